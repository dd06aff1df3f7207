"""What every EventQueue promises (kappa_core.ports.queue), on every driver."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from kappa_core.memory import MemoryEventQueue
from kappa_core.ports.queue import (
    DEDUPE_MS,
    EVENT_OVERHEAD,
    HOT_BYTES,
    Bounds,
    Dead,
    EventQueue,
    Lease,
    LeaseLost,
    QueueFull,
    Waiting,
)
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_queue import PostgresEventQueue
from kappa_gateway.stores.queue import SLICE, SqliteEventQueue
from queue_samples import ARN, event

Opener = Callable[..., AbstractAsyncContextManager[EventQueue]]
Scenario = Callable[[EventQueue], Awaitable[None]]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Opener:
    dsn = request.getfixturevalue("postgres_dsn") if request.param == "postgres" else ""

    @contextlib.asynccontextmanager
    async def memory(**options: Any) -> AsyncIterator[EventQueue]:
        queue = MemoryEventQueue(clock_ms=clock, **options)
        yield queue
        await queue.close()

    @contextlib.asynccontextmanager
    async def sqlite(**options: Any) -> AsyncIterator[EventQueue]:
        queue = await SqliteEventQueue.open(tmp_path / "events.db", alone=True, clock_ms=clock, **options)
        yield queue
        await queue.close()

    @contextlib.asynccontextmanager
    async def postgres(**options: Any) -> AsyncIterator[EventQueue]:
        connections = await Postgres.open(dsn)
        queue = await PostgresEventQueue.open(connections, clock_ms=clock, **options)
        yield queue
        await queue.close()
        await connections.close()

    return {"memory": memory, "sqlite": sqlite, "postgres": postgres}[request.param]


def run(opened: Opener, scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), opened(**options) as queue:
            await scenario(queue)

    asyncio.run(main())


async def lease(queue: EventQueue, limit: int = 10, *, share: int = 10, **rooms: int) -> list[Lease]:
    named = {f"uid-{function}": room for function, room in rooms.items()}
    return (await queue.lease(limit, lease_ms=5_000, share=share, rooms=named)).leases


async def lease_ids(queue: EventQueue, limit: int = 10, *, share: int = 10, **rooms: int) -> list[str]:
    return [one.event.event_id for one in await lease(queue, limit, share=share, **rooms)]


async def lease_one(queue: EventQueue) -> Lease:
    (one,) = await lease(queue, 1)
    return one


@pytest.mark.parametrize(
    "payload",
    [pytest.param(b"", id="empty"), pytest.param(b"x" * HOT_BYTES, id="hot"), pytest.param(b"y" * 1_048_576, id="large")],
)
def test_an_event_is_leased_as_it_was_enqueued_and_gone_once_acknowledged(opened: Opener, clock: Clock, payload: bytes) -> None:
    async def scenario(queue: EventQueue) -> None:
        sent = event("e", payload=payload, qualifier="live")
        assert await queue.enqueue(sent) == "e"
        clock.now += 7
        one = await lease_one(queue)
        assert (one.event, one.enqueued_ms, one.leases, one.note) == (sent, clock.now - 7, 1, b"")
        await queue.ack(one)
        clock.now += 60_000
        assert await lease(queue) == []
        assert await queue.find("e") is None

    run(opened, scenario)


def test_a_leased_event_is_nobody_elses_until_its_lease_ends(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("e"))
        first = await lease_one(queue)
        clock.now += 4_999
        assert await lease(queue) == []
        clock.now += 1
        second = await lease_one(queue)
        assert second.epoch > first.epoch
        assert second.leases == 2

    run(opened, scenario)


def test_an_extended_lease_lasts_from_the_extension_on_and_keeps_the_note(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("e"))
        one = await lease_one(queue)
        clock.now += 4_000
        await queue.extend(one, lease_ms=5_000, note=b"half way")
        await queue.extend(one, lease_ms=5_000)
        clock.now += 4_999
        assert await lease(queue) == []
        clock.now += 1
        assert (await lease_one(queue)).note == b"half way"

    run(opened, scenario)


@pytest.mark.parametrize("note", [pytest.param(b"n", id="small"), pytest.param(b"n" * (HOT_BYTES + 1), id="large")])
def test_a_returned_event_is_due_when_told_and_brings_its_note(opened: Opener, clock: Clock, note: bytes) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("e"))
        await queue.nack(await lease_one(queue), after_ms=60_000, note=note)
        leased = await queue.lease(10, lease_ms=1, share=10, rooms={})
        assert (leased.leases, leased.next_due_ms) == ([], clock.now + 60_000)
        clock.now += 60_000
        one = await lease_one(queue)
        assert one.note == note
        await queue.nack(one, after_ms=0, note=b"short again")
        assert (await lease_one(queue)).note == b"short again"

    run(opened, scenario)


def test_a_delayed_event_is_not_due_before_its_time(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("later"), delay_ms=100)
        await queue.enqueue(event("now"))
        assert await lease_ids(queue) == ["now"]
        clock.now += 100
        assert await lease_ids(queue) == ["later"]

    run(opened, scenario)


@pytest.mark.parametrize("say", ["ack", "nack", "kill", "extend"])
@pytest.mark.parametrize("fate", ["leased again", "returned", "done", "dead", "purged"])
def test_whoever_lost_a_lease_is_refused_whatever_he_says(opened: Opener, clock: Clock, say: str, fate: str) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("e"))
        lost = await lease_one(queue)
        if fate == "leased again":
            clock.now += 5_000
            await lease_one(queue)
        elif fate == "returned":
            await queue.nack(lost, after_ms=0)
        elif fate == "done":
            await queue.ack(lost)
        elif fate == "dead":
            await queue.kill(lost, reason="RetriesExhausted")
        else:
            await queue.purge("uid-f", dead=False)
        before = await queue.stats()
        with pytest.raises(LeaseLost):
            await {
                "ack": lambda: queue.ack(lost),
                "nack": lambda: queue.nack(lost, after_ms=0),
                "kill": lambda: queue.kill(lost, reason="RetriesExhausted"),
                "extend": lambda: queue.extend(lost, lease_ms=1),
            }[say]()
        assert await queue.stats() == before

    run(opened, scenario)


def test_an_expired_lease_that_nobody_took_over_may_still_be_acknowledged(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("e"))
        one = await lease_one(queue)
        clock.now += 3_600_000
        await queue.ack(one)
        assert await lease(queue) == []

    run(opened, scenario)


def test_leases_go_round_the_functions_whatever_the_length_of_their_queues(opened: Opener) -> None:
    async def scenario(queue: EventQueue) -> None:
        for number in range(50):
            await queue.enqueue(event(f"a{number}", function="a"))
        await queue.enqueue(event("b0", function="b"))
        await queue.enqueue(event("c0", function="c"))
        assert sorted(await lease_ids(queue, 3)) == ["a0", "b0", "c0"]
        await queue.enqueue(event("b1", function="b"))
        assert sorted(await lease_ids(queue, 2)) == ["a1", "b1"]

    run(opened, scenario)


def test_one_lease_after_the_other_takes_turns_as_well(opened: Opener) -> None:
    async def scenario(queue: EventQueue) -> None:
        for function in "abc":
            for number in range(3):
                await queue.enqueue(event(f"{function}{number}", function=function))
        order = [(await lease_ids(queue, 1))[0] for _ in range(9)]
        assert [{name[0] for name in order[start : start + 3]} for start in (0, 3, 6)] == [{"a", "b", "c"}] * 3
        for function in "abc":
            assert [name for name in order if name[0] == function] == [f"{function}{number}" for number in range(3)]

    run(opened, scenario)


def test_a_function_gets_no_more_than_its_share_or_its_room(opened: Opener) -> None:
    async def scenario(queue: EventQueue) -> None:
        for function in "abc":
            for number in range(5):
                await queue.enqueue(event(f"{function}{number}", function=function))
        taken = await lease_ids(queue, 15, share=2, a=0, b=3)
        assert sorted(taken) == ["b0", "b1", "b2", "c0", "c1"]

    run(opened, scenario)


def test_the_next_due_time_looks_past_functions_without_room(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("a", function="a"), delay_ms=10)
        await queue.enqueue(event("b", function="b"), delay_ms=20)
        assert (await queue.lease(5, lease_ms=1, share=5, rooms={})).next_due_ms == clock.now + 10
        assert (await queue.lease(5, lease_ms=1, share=5, rooms={"uid-a": 0})).next_due_ms == clock.now + 20
        assert (await queue.lease(5, lease_ms=1, share=5, rooms={"uid-a": 0, "uid-b": 0})).next_due_ms is None

    run(opened, scenario)


def test_a_dedupe_key_stores_one_event_for_five_minutes_even_when_it_is_done(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        assert await queue.enqueue(event("first"), dedupe="key") == "first"
        assert await queue.enqueue(event("second"), dedupe="key") == "first"
        assert await queue.enqueue(event("theirs", function="g"), dedupe="key") == "theirs"
        assert await queue.enqueue(event("other"), dedupe="another key") == "other"
        for one in await lease(queue):
            await queue.ack(one)
        assert await queue.enqueue(event("third"), dedupe="key") == "first"
        assert await lease(queue) == []
        clock.now += DEDUPE_MS
        assert await queue.enqueue(event("fourth"), dedupe="key") == "fourth"
        assert await lease_ids(queue) == ["fourth"]

    run(opened, scenario)


def test_a_killed_event_is_a_dead_letter_that_nobody_leases(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("e", payload=b"[1]"))
        begun = clock.now
        one = await lease_one(queue)
        clock.now += 10
        await queue.kill(one, reason="RetriesExhausted", detail="it raised")
        clock.now += 3_600_000
        assert await lease(queue) == []
        dead = Dead(
            event=event("e", payload=b"[1]"),
            enqueued_ms=begun,
            killed_ms=begun + 10,
            reason="RetriesExhausted",
            detail="it raised",
        )
        assert await queue.dead_letters("uid-f") == [dead]
        assert await queue.find("e") == dead

    run(opened, scenario)


def test_dead_letters_are_listed_in_the_order_of_their_end_page_by_page(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        for number in range(5):
            await queue.enqueue(event(f"e{number}"))
        leases = await lease(queue)
        for one in reversed(leases):
            clock.now += number_of(one) % 2  # some end within the same millisecond
            await queue.kill(one, reason="EventAgeExceeded")
        listed = [one.event.event_id for one in await queue.dead_letters("uid-f")]
        assert sorted(listed) == [f"e{number}" for number in range(5)]
        paged: list[str] = []
        while page := await queue.dead_letters("uid-f", after=paged[-1] if paged else "", limit=2):
            paged += [one.event.event_id for one in page]
        assert paged == listed
        assert await queue.dead_letters("uid-g") == []

    run(opened, scenario)


def number_of(one: Lease) -> int:
    return int(one.event.event_id[1:])


def test_a_redriven_event_begins_anew(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        for name in ("a", "b"):
            await queue.enqueue(event(name))
        for one in await lease(queue):
            await queue.extend(one, lease_ms=9, note=b"n" * (HOT_BYTES + 1))
            await queue.kill(one, reason="RetriesExhausted")
        clock.now += 86_400_000
        assert await queue.redrive("uid-f", event_id="b") == 1
        one = await lease_one(queue)
        assert (one.event.event_id, one.enqueued_ms, one.leases, one.note) == ("b", clock.now, 1, b"")
        await queue.ack(one)
        assert await queue.redrive("uid-f") == 1
        assert await queue.redrive("uid-f") == 0
        assert await lease_ids(queue) == ["a"]

    run(opened, scenario)


def test_purging_drops_what_waits_or_what_is_dead_and_nothing_else(opened: Opener) -> None:
    async def scenario(queue: EventQueue) -> None:
        for name in ("dead", "dead too"):
            await queue.enqueue(event(name))
            await queue.kill(await lease_one(queue), reason="RetriesExhausted")
        for name in ("leased", "waiting", "waiting too"):
            await queue.enqueue(event(name))
        await lease_one(queue)
        await queue.enqueue(event("theirs", function="g"))
        assert await queue.purge("uid-f", dead=True, event_id="waiting") == 0
        assert await queue.purge("uid-f", dead=True, event_id="dead") == 1
        assert await queue.purge("uid-f", dead=False, event_id="waiting") == 1
        assert await queue.find("waiting") is None
        assert await queue.purge("uid-f", dead=False) == 2
        assert await queue.purge("uid-f", dead=True) == 1
        assert await queue.purge("uid-g", dead=True) == 0
        assert [(one.function_uid, one.depth, one.dead) for one in await queue.stats()] == [("uid-f", 0, 0), ("uid-g", 1, 0)]

    run(opened, scenario)


def test_many_events_are_purged_and_redriven_to_the_last(opened: Opener) -> None:
    async def scenario(queue: EventQueue) -> None:
        total = SLICE + 500
        await asyncio.gather(*(queue.enqueue(event(f"e{number}")) for number in range(total)))
        leased = await lease(queue, total, share=total)
        await asyncio.gather(*(queue.kill(one, reason="EventAgeExceeded") for one in leased))
        assert await queue.redrive("uid-f") == total
        assert await queue.purge("uid-f", dead=False) == total
        (after,) = await queue.stats()
        assert (after.depth, after.depth_bytes, after.dead, after.killed) == (0, 0, 0, total)

    run(opened, scenario)


def test_old_dead_letters_expire_and_forgotten_functions_with_them(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("old"))
        await queue.kill(await lease_one(queue), reason="RetriesExhausted")
        clock.now += 1_000
        await queue.enqueue(event("young", function="g"))
        await queue.kill(await lease_one(queue), reason="RetriesExhausted")
        assert await queue.expire(clock.now) == 1
        assert await queue.find("old") is None
        assert [(one.function_uid, one.dead) for one in await queue.stats()] == [("uid-g", 1)]
        assert await queue.expire(clock.now) == 0

    run(opened, scenario)


def test_the_numbers_say_what_waits_how_old_it_is_and_how_everything_ended(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        begun = clock.now
        for number in range(4):
            await queue.enqueue(event(f"e{number}", payload=b"x" * 10, qualifier="live"))
            clock.now += 1
        leased = await lease(queue, 2)
        await queue.ack(leased[0])
        await queue.kill(leased[1], reason="RetriesExhausted")
        (stats,) = await queue.stats()
        assert (stats.function_uid, stats.function_arn) == ("uid-f", ARN + "f")
        assert (stats.depth, stats.depth_bytes) == (2, 2 * (10 + EVENT_OVERHEAD))
        assert (stats.dead, stats.done, stats.killed) == (1, 1, 1)
        assert stats.oldest_ms == begun + 2

    run(opened, scenario)


def test_a_waiting_event_can_be_looked_at(opened: Opener, clock: Clock) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.enqueue(event("e"), delay_ms=50)
        assert await queue.find("e") == Waiting(event=event("e"), enqueued_ms=clock.now, due_ms=clock.now + 50, leases=0)
        assert await queue.find("nobody") is None

    run(opened, scenario)


def test_one_function_fills_half_of_the_queue_and_another_still_gets_in(opened: Opener) -> None:
    async def scenario(queue: EventQueue) -> None:
        for number in range(5):
            await queue.enqueue(event(f"a{number}", function="a", payload=b""))
        before = await queue.stats()
        with pytest.raises(QueueFull):
            await queue.enqueue(event("a5", function="a", payload=b""))
        assert await queue.stats() == before
        await queue.enqueue(event("b0", function="b", payload=b""))
        await queue.ack(await lease_one(queue))
        (one,) = await lease(queue, 1)
        await queue.kill(one, reason="RetriesExhausted")
        await queue.enqueue(event("a6", function="a", payload=b""))

    run(opened, scenario, bounds=Bounds(total_bytes=10 * EVENT_OVERHEAD))


def test_a_closed_queue_says_so(opened: Opener) -> None:
    async def scenario(queue: EventQueue) -> None:
        await queue.close()
        await queue.close()
        with pytest.raises(StoreUnavailable):
            await queue.enqueue(event("e"))
        with pytest.raises(StoreUnavailable):
            await lease(queue)

    run(opened, scenario)


def test_two_consumers_at_once_never_get_the_same_event(opened: Opener) -> None:
    async def scenario(queue: EventQueue) -> None:
        await asyncio.gather(*(queue.enqueue(event(f"e{number}")) for number in range(60)))
        batches = await asyncio.gather(*(lease_ids(queue, 7) for _ in range(9)))
        taken = [name for batch in batches for name in batch]
        assert sorted(taken) == sorted(f"e{number}" for number in range(60))

    run(opened, scenario)
