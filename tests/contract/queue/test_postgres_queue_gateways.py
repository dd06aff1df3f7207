"""The PostgreSQL EventQueue between several gateways, and under crashes: connections that end in the middle of a word, a server that is
restarted without any preparation. Nothing that was acknowledged is lost or done twice, and the books agree with the rows."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

import queue_process
from kappa_core.ports.queue import Bounds, Dead, LeaseLost, QueueFull
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_queue import PostgresEventQueue
from postgres_server import PostgresServer
from queue_samples import event


@contextlib.asynccontextmanager
async def gateway(dsn: str, **options: Any) -> AsyncIterator[PostgresEventQueue]:
    postgres = await Postgres.open(dsn, connections=4)
    queue = await PostgresEventQueue.open(postgres, **options)
    yield queue
    await queue.close()
    await postgres.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(90):
            await scenario()

    asyncio.run(main())


class Said:
    """What the queue answered, to whoever asked."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.done: list[str] = []
        self.dead: set[str] = set()
        self.unsure: set[str] = set()
        """The connection was lost before the answer: it may or may not have happened."""


async def produce(queue: PostgresEventQueue, said: Said, prefix: str, over: asyncio.Event) -> None:
    turn = 0
    while not over.is_set():
        turn += 1
        name = f"{prefix}-{turn}"
        try:
            await queue.enqueue(event(name, function=prefix, payload=name.encode() * (5_000 if turn % 20 == 0 else 1)))
        except StoreUnavailable:
            said.unsure.add(name)
            await asyncio.sleep(0.02)
        else:
            said.accepted.add(name)
            await asyncio.sleep(0)


async def consume(queue: PostgresEventQueue, said: Said, dice: random.Random, over: asyncio.Event) -> None:
    while not over.is_set():
        try:
            leased = await queue.lease(5, lease_ms=400, share=5, rooms={})
        except StoreUnavailable:
            await asyncio.sleep(0.02)
            continue
        await asyncio.gather(*(end(queue, lease, said, dice.random()) for lease in leased.leases))
        await asyncio.sleep(0.002)


async def end(queue: PostgresEventQueue, lease: Any, said: Said, fate: float) -> None:
    name = lease.event.event_id
    assert lease.event.payload.startswith(name.encode())
    try:
        if fate < 0.2:
            await queue.nack(lease, after_ms=50)
        elif fate < 0.3:
            await queue.extend(lease, lease_ms=100, note=b"forgotten")
        elif fate < 0.4:
            await queue.kill(lease, reason="RetriesExhausted")
            said.dead.add(name)
        elif fate < 0.9:
            await queue.ack(lease)
            said.done.append(name)
    except LeaseLost:
        pass
    except StoreUnavailable:
        said.unsure.add(name)


@pytest.mark.parametrize("seed", range(4))
def test_two_gateways_lose_nothing_whatever_is_killed_under_them(
    postgres_server: PostgresServer, postgres_dsn: str, seed: int
) -> None:
    dice = random.Random(seed)

    async def scenario() -> None:
        said, over = Said(), asyncio.Event()
        async with gateway(postgres_dsn) as first, gateway(postgres_dsn) as second, asyncio.TaskGroup() as work:
            for number, queue in enumerate((first, second)):
                for task in range(3):
                    work.create_task(produce(queue, said, f"g{number}t{task}", over))
                    work.create_task(consume(queue, said, dice, over))
            for kill in dice.choices(("connections", "connections", "server"), k=6):
                await asyncio.sleep(dice.uniform(0.1, 0.4))
                if kill == "server":
                    await asyncio.to_thread(postgres_server.restart)
                else:
                    await asyncio.to_thread(postgres_server.kill_connections, postgres_dsn)
            await asyncio.sleep(0.7)
            over.set()
        async with gateway(postgres_dsn) as queue:
            await check(queue, said)
        rows = "SELECT count(*) || ' ' || coalesce(sum(size), 0) FROM kappa.events"
        assert postgres_server.execute(rows, dsn=postgres_dsn) == "0 0"

    run(scenario)


async def check(queue: PostgresEventQueue, said: Said) -> None:
    assert len(said.accepted) > 50
    assert len(said.done) == len(set(said.done))
    for function in {name.partition("-")[0] for name in said.accepted}:
        dead = {one.event.event_id for one in await queue.dead_letters(f"uid-{function}", limit=100_000)}
        assert dead - said.unsure <= said.dead
        await queue.redrive(f"uid-{function}")
    assert not said.dead & set(said.done)
    left: set[str] = set()
    deadline = asyncio.get_running_loop().time() + 40
    while asyncio.get_running_loop().time() < deadline:
        leased = (await queue.lease(200, lease_ms=10_000, share=200, rooms={})).leases
        names = [lease.event.event_id for lease in leased]
        assert not left & set(names)
        left |= set(names)
        await asyncio.gather(*(queue.ack(lease) for lease in leased))
        if not leased:
            stats = await queue.stats()
            if not any(one.depth for one in stats):
                break
            await asyncio.sleep(0.05)
    certain = said.accepted - said.unsure
    assert certain - set(said.done) <= left
    assert not left & set(said.done)
    assert left <= said.accepted | said.unsure
    assert all((one.depth, one.depth_bytes, one.dead) == (0, 0, 0) for one in await queue.stats())


@pytest.mark.parametrize("seed", range(2))
def test_after_kill_9_of_gateways_and_crashes_of_the_server_every_event_is_where_it_was_acknowledged_to_be(
    postgres_server: PostgresServer, postgres_dsn: str, seed: int
) -> None:
    dice = random.Random(seed)
    said: list[tuple[str, str]] = []
    for life in range(3):
        commands = [[sys.executable, queue_process.__file__, postgres_dsn, f"life{life}-{twin}"] for twin in range(2)]
        twins = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
        for turn, twin in enumerate(twins):
            assert twin.stdout is not None
            lines = [twin.stdout.readline() for _ in range(dice.randrange(50, 300))]
            if turn == 0:
                postgres_server.restart()
            twin.kill()
            lines += [line for line in twin.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
            twin.wait()
            twin.stdout.close()
            for line in lines:
                what, name = line.split()
                said.append((what, name))
    asyncio.run(look_for(said, postgres_dsn))
    waiting = "SELECT count(*) || ' ' || coalesce(sum(size), 0) FROM kappa.events WHERE killed_ms IS NULL"
    books = "SELECT sum(depth) || ' ' || sum(bytes) FROM kappa.books"
    assert postgres_server.execute(waiting, dsn=postgres_dsn) == postgres_server.execute(books, dsn=postgres_dsn)


async def look_for(said: list[tuple[str, str]], dsn: str) -> None:
    accepted = [name for what, name in said if what == "in"]
    done = [name for what, name in said if what == "done"]
    dead = {name for what, name in said if what == "dead"}
    unsure = {name for what, name in said if what == "unsure"}
    assert len(accepted) > 100
    assert len(done) == len(set(done))
    assert not {name for what, name in said if what == "lost"} - unsure
    gone = 0
    async with gateway(dsn) as queue:
        for name in accepted:
            found = await queue.find(name)
            if name in done:
                assert found is None
            elif name in dead:
                assert isinstance(found, Dead)
            elif found is None:
                gone += name not in unsure
            else:
                assert found.event.payload.startswith(name.encode())
    assert gone <= 12  # their acknowledgement was under way: of the two consumers of each of six processes


def test_gateways_that_lease_at_once_share_what_is_due_and_miss_nothing(postgres_dsn: str) -> None:
    async def scenario() -> None:
        async with gateway(postgres_dsn) as first, gateway(postgres_dsn) as second, gateway(postgres_dsn) as third:
            await asyncio.gather(*(first.enqueue(event(f"e{number}", function=f"f{number % 7}")) for number in range(300)))
            taken: list[str] = []

            async def take(queue: PostgresEventQueue) -> None:
                while True:
                    leased = await queue.lease(3, lease_ms=60_000, share=2, rooms={})
                    taken.extend(lease.event.event_id for lease in leased.leases)
                    if not leased.leases and (leased.next_due_ms or 0) > queue.clock_ms() + 1_000:
                        return

            await asyncio.gather(*(take(queue) for queue in (first, second, third) for _ in range(2)))
            assert sorted(taken) == sorted(f"e{number}" for number in range(300))

    run(scenario)


def test_an_enqueue_at_one_gateway_wakes_the_worker_of_another_and_not_its_own(postgres_dsn: str) -> None:
    async def scenario() -> None:
        heard: dict[str, asyncio.Queue[str]] = {"first": asyncio.Queue(), "second": asyncio.Queue()}
        async with gateway(postgres_dsn) as first, gateway(postgres_dsn) as second:
            first.listen(heard["first"].put_nowait)
            second.listen(heard["second"].put_nowait)
            assert [await heard["first"].get(), await heard["second"].get()] == ["", ""]  # the connection is there
            await first.enqueue(event("e", function="f"))
            assert await heard["second"].get() == "uid-f"
            (lease,) = (await second.lease(1, lease_ms=1_000, share=1, rooms={})).leases
            await second.nack(lease, after_ms=0)
            assert await heard["first"].get() == "uid-f"
            assert heard["second"].empty()

    run(scenario)


def test_news_arrive_again_after_the_connection_was_lost(
    postgres_server: PostgresServer, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kappa_gateway.stores.postgres_wakes.RECONNECT_SECONDS", 0.05)

    async def scenario() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        async with gateway(postgres_dsn) as first, gateway(postgres_dsn, look_seconds=0.05) as second:
            second.listen(heard.put_nowait)
            assert await heard.get() == ""
            await asyncio.to_thread(postgres_server.kill_connections, postgres_dsn)
            assert await heard.get() == ""  # a new connection: something may have come meanwhile
            first.listen(lambda _: None)
            while heard.empty():
                with contextlib.suppress(StoreUnavailable):
                    await first.enqueue(event("e", function="g"))
                await asyncio.sleep(0.02)
            assert await heard.get() == "uid-g"

    run(scenario)


def test_what_a_gateway_puts_back_as_it_stops_is_told_to_the_others(postgres_dsn: str) -> None:
    async def scenario() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        ready = asyncio.Event()
        async with gateway(postgres_dsn) as staying:
            staying.listen(heard.put_nowait)
            await heard.get()
            async with gateway(postgres_dsn) as stopping:
                stopping.listen(lambda _: ready.set())
                await ready.wait()
                await staying.enqueue(event("e"), delay_ms=1)
                leases = []
                while not leases:
                    leases = (await stopping.lease(1, lease_ms=60_000, share=1, rooms={})).leases
                await stopping.nack(leases[0], after_ms=0)
            assert await heard.get() == "uid-f"

    run(scenario)


def test_the_same_dedupe_key_at_two_gateways_at_once_stores_one_event(postgres_dsn: str) -> None:
    async def scenario() -> None:
        async with gateway(postgres_dsn) as first, gateway(postgres_dsn) as second:
            queues = [first, second] * 10
            ids = await asyncio.gather(*(queue.enqueue(event(f"e{n}"), dedupe="key") for n, queue in enumerate(queues)))
            assert len(set(ids)) == 1
            leased = await first.lease(50, lease_ms=60_000, share=50, rooms={})
            assert [lease.event.event_id for lease in leased.leases] == [ids[0]]

    run(scenario)


def test_what_another_gateway_took_in_counts_against_the_bounds(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kappa_gateway.stores.postgres_queue.BOOKS_SECONDS", 0.0)

    async def scenario() -> None:
        bounds = Bounds(total_bytes=100_000)
        async with gateway(postgres_dsn, bounds=bounds) as first, gateway(postgres_dsn, bounds=bounds) as second:
            await first.enqueue(event("a", payload=b"x" * 30_000))
            await second.enqueue(event("b", payload=b"x" * 15_000))
            with pytest.raises(QueueFull):
                await first.enqueue(event("c", payload=b"x" * 30_000))
            await second.enqueue(event("d", function="g", payload=b"x" * 20_000))

    run(scenario)


def test_a_batch_of_words_is_heard_in_its_order(postgres_dsn: str) -> None:
    async def scenario() -> None:
        async with gateway(postgres_dsn) as queue:
            await queue.enqueue(event("e"))
            (lease,) = (await queue.lease(1, lease_ms=60_000, share=1, rooms={})).leases
            answers = await asyncio.gather(
                queue.extend(lease, lease_ms=60_000, note=b"noted"),
                queue.extend(lease, lease_ms=60_000),
                queue.nack(lease, after_ms=0),
                queue.extend(lease, lease_ms=60_000, note=b"too late"),
                return_exceptions=True,
            )
            assert answers[:3] == [None] * 3
            assert isinstance(answers[3], LeaseLost)
            (again,) = (await queue.lease(1, lease_ms=60_000, share=1, rooms={})).leases
            assert again.note == b"noted"
            twice = await asyncio.gather(queue.ack(again), queue.ack(again), return_exceptions=True)
            assert [type(one) for one in twice] == [type(None), LeaseLost]

    run(scenario)


def test_a_dead_letter_outlives_a_restart_with_its_payload(postgres_server: PostgresServer, postgres_dsn: str) -> None:
    async def scenario() -> None:
        async with gateway(postgres_dsn) as queue:
            await queue.enqueue(event("e", payload=b"z" * 1_000_000))
            (lease,) = (await queue.lease(1, lease_ms=60_000, share=1, rooms={})).leases
            await queue.kill(lease, reason="RetriesExhausted", detail="it raised")
        await asyncio.to_thread(postgres_server.restart)
        async with gateway(postgres_dsn) as queue:
            found = await queue.find("e")
            assert isinstance(found, Dead)
            assert (found.event.payload, found.detail) == (b"z" * 1_000_000, "it raised")

    run(scenario)
