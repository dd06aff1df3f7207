"""The worker over the queue's twin in virtual time: what runs when, how often, how it ends, and who is told."""

from __future__ import annotations

import asyncio
import logging

import pytest

from kappa_core.errors import (
    EnvironmentLostException,
    LambdaError,
    ResourceNotFoundException,
    ServiceUnavailableException,
    TooManyRequestsException,
)
from kappa_core.link import frames
from kappa_core.memory import MemoryEventQueue
from kappa_core.ports.queue import Event, Lease
from kappa_core.ports.store import StoreUnavailable
from kappa_core.rules.retry import Terms
from kappa_gateway.events.delivery import DeliveryError
from kappa_gateway.events.progress import Delivery
from kappa_gateway.events.worker import WorkerSettings
from queue_samples import ARN, event
from virtual_time import BEGIN_MS, clock_ms, virtual
from worked_queue import DLQ_ARN, FAILED, MINUTE, QUEUE_ARN, Answer, World, failed, ok, run_one


@virtual
async def test_an_event_runs_once_and_is_done() -> None:
    world = World()
    assert await run_one(world) is None
    assert [name for _, name in world.seen] == ["e"]
    assert world.ended("done") == 1
    assert world.recorded == ["ok"]
    assert world.in_flight.value == 0
    assert [(one.done, one.killed) for one in await world.queue.stats()] == [(1, 0)]


@virtual
async def test_a_function_error_is_repeated_under_the_same_id_after_one_and_two_minutes() -> None:
    world = World()
    world.answers = [failed(), failed(), ok()]
    assert await run_one(world) is None
    assert [name for _, name in world.seen] == ["e", "e", "e"]
    assert world.waits() == [MINUTE, 2 * MINUTE]
    assert world.ended("done") == 1
    assert world.count("kappa_async_retries_total", cause="function_error") == 2


@virtual
async def test_a_function_that_keeps_failing_is_given_up_and_both_are_told() -> None:
    world = World()
    world.answers = [failed()] * 3
    world.on_failure, world.dead_letter = QUEUE_ARN, DLQ_ARN
    dead = await run_one(world)
    assert dead is not None
    assert (dead.reason, dead.detail) == ("RetriesExhausted", "no")
    assert [delivery for _, delivery, _ in world.told] == [Delivery("destination", QUEUE_ARN), Delivery("dead_letter", DLQ_ARN)]
    ending = world.told[0][2]
    assert (ending.condition, ending.invoke_count, ending.status) == ("RetriesExhausted", 3, 200)
    assert (ending.executed_version, ending.function_error, ending.response) == ("$LATEST", "Unhandled", FAILED)
    assert ending.function_arn == f"{ARN}f:$LATEST"
    assert world.ended("retries_exhausted") == 1


@virtual
async def test_only_the_success_destination_hears_of_a_success() -> None:
    world = World()
    world.on_success, world.on_failure, world.dead_letter = QUEUE_ARN, "arn:x", DLQ_ARN
    await run_one(world)
    ((_, delivery, ending),) = world.told
    assert delivery == Delivery("destination", QUEUE_ARN)
    assert (ending.condition, ending.invoke_count, ending.response, ending.function_error) == ("Success", 1, b'"done"', "")


@virtual
async def test_throttles_are_waited_out_with_growing_delays_and_cost_no_attempt() -> None:
    world = World()
    throttle = TooManyRequestsException("ReservedFunctionConcurrentInvocationLimitExceeded")
    world.answers = [throttle] * 4 + [failed(), failed(), ServiceUnavailableException("full"), ok()]
    assert await run_one(world) is None
    assert world.waits() == [1.0, 2.0, 4.0, 8.0, MINUTE, 2 * MINUTE, 1.0]
    assert world.recorded == ["throttled"] * 4 + ["function_error"] * 2 + ["platform_error", "ok"]


@virtual
async def test_an_event_that_is_throttled_for_six_hours_is_given_up() -> None:
    world = World()
    world.answers = [TooManyRequestsException("ConcurrentInvocationLimitExceeded")] * 1000
    world.dead_letter = DLQ_ARN
    dead = await run_one(world)
    assert dead is not None
    assert dead.reason == "EventAgeExceeded"
    ending = world.told[0][2]
    assert (ending.status, ending.error_message, ending.executed_version) == (429, "Rate Exceeded.", "")
    assert 21_600 - 301 < world.seen[-1][0] < 21_600


@pytest.mark.parametrize(("maximum_s", "attempts"), [(60, 1), (90, 2)])
@virtual
async def test_a_retry_beyond_the_maximum_age_is_not_waited_for(maximum_s: int, attempts: int) -> None:
    world = World()
    world.answers = [failed()] * 3
    world.terms = Terms(maximum_event_age_ms=maximum_s * 1000)
    world.on_failure = QUEUE_ARN
    dead = await run_one(world)
    assert dead is not None
    ((told_at, _, ending),) = world.told
    assert (ending.condition, ending.invoke_count) == ("EventAgeExceeded", attempts)
    assert told_at == pytest.approx(world.seen[-1][0], abs=0.01)


@virtual
async def test_an_event_that_waited_too_long_is_not_run_at_all() -> None:
    world = World()
    await world.queue.enqueue(event("e"))
    await asyncio.sleep(21_601)
    async with world.working():
        await world.settled()
    assert world.seen == []
    assert world.ended("event_age_exceeded") == 1


@virtual
async def test_a_function_without_reserved_concurrency_gives_up_its_events_at_once() -> None:
    world = World()
    world.reserved, world.on_failure, world.dead_letter = 0, QUEUE_ARN, DLQ_ARN
    dead = await run_one(world)
    assert dead is not None
    assert dead.reason == "ZeroReservedConcurrency"
    assert world.seen == []
    ending = world.told[0][2]
    assert (ending.condition, ending.executed_version, ending.invoke_count) == ("ZeroReservedConcurrency", "", 0)
    assert world.ended("zero_reserved_concurrency") == 1


@virtual
async def test_events_of_a_deleted_function_are_dropped_and_counted() -> None:
    world = World()
    world.gone = True
    for number in range(3):
        await world.queue.enqueue(event(f"e{number}"))
    async with world.working():
        await world.settled()
    assert world.ended("function_deleted") == 3
    assert world.seen == []
    assert [one.dead for one in await world.queue.stats()] == [0]


@virtual
async def test_an_alias_that_is_missing_is_waited_for_until_it_is_back() -> None:
    world = World()
    world.refused = ResourceNotFoundException("Function not found")
    await world.queue.enqueue(event("e"))
    async with world.working():
        await asyncio.sleep(100)
        world.refused = None
        await world.settled()
    assert [name for _, name in world.seen] == ["e"]
    assert world.ended("done") == 1


@virtual
async def test_the_version_is_asked_for_at_each_attempt() -> None:
    world = World()
    world.answers = [failed(), ok()]
    world.on_success = QUEUE_ARN
    await world.queue.enqueue(event("e"))
    async with world.working():
        await asyncio.sleep(30)
        world.label = "2"
        await world.settled()
    assert world.told[0][2].executed_version == "2"


@virtual
async def test_a_bug_in_running_it_is_the_platforms_error_and_the_event_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    turns = iter((True, False))

    async def run(_: Event) -> Answer:
        if next(turns):
            raise RuntimeError("broken")
        return ok()

    world.runs = run
    assert await run_one(world) is None
    assert world.recorded == ["platform_error", "ok"]
    assert "broken" in caplog.text


@pytest.mark.parametrize(
    "cut_off",
    [
        pytest.param(EnvironmentLostException("the connection was lost"), id="its environment was lost"),
        pytest.param((frames.Result("r", "Unhandled", "Runtime.ExitError"), FAILED), id="its process ended"),
    ],
)
@virtual
async def test_a_run_that_was_cut_off_is_said_to_be_one_that_may_run_twice(
    cut_off: Answer | LambdaError, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.answers = [cut_off]
    assert await run_one(world) is None
    assert [name for _, name in world.seen] == ["e", "e"]
    (line,) = [line for line in caplog.messages if "may run twice" in line]
    assert "event e of" in line


@virtual
async def test_a_run_longer_than_the_lease_is_nobody_elses() -> None:
    world = World()

    async def run(_: Event) -> Answer:
        await asyncio.sleep(900)
        return ok()

    world.runs = run
    async with world.working():
        await world.queue.enqueue(event("e"))
        await asyncio.sleep(2)
        async with world.working():
            await world.settled()
    assert len(world.seen) == 1
    assert world.ended("done") == 1
    assert world.count("kappa_async_repeated_total") == 0


@virtual
async def test_what_a_dead_worker_had_in_hand_runs_again_under_the_same_id_and_is_said_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    await world.queue.enqueue(event("e"))
    await world.queue.lease(1, lease_ms=10_000, share=1, rooms={})  # and never heard of again
    async with world.working():
        await world.settled()
    assert [(round(at), name) for at, name in world.seen] == [(10, "e")]
    assert world.count("kappa_async_repeated_total") == 1
    assert "event e of" in caplog.text


@virtual
async def test_a_worker_that_stops_puts_down_what_it_has_in_hand() -> None:
    world = World()

    async def run(_: Event) -> Answer:
        await asyncio.sleep(900)
        return ok()

    world.runs = run
    await world.queue.enqueue(event("e"))
    async with world.working():
        await asyncio.sleep(5)
    assert world.running == {"000000000000/eu-central-1/f/uid-f": 0}
    world.runs = None
    async with world.working():
        await asyncio.sleep(0.1)
    assert [round(at) for at, _ in world.seen] == [0, 5]
    assert world.ended("done") == 1


@virtual
async def test_a_worker_at_rest_finishes_what_it_has_in_hand_and_begins_nothing_more() -> None:
    world = World()

    async def run(_: Event) -> Answer:
        await asyncio.sleep(60)
        return ok()

    world.runs = run
    await world.queue.enqueue(event("e"))
    async with world.working() as worker:
        await asyncio.sleep(5)
        worker.rest()
        await world.queue.enqueue(event("later"))
        await worker.at_rest()
        assert round(asyncio.get_running_loop().time()) == 60
    assert world.ended("done") == 1
    assert [name for _, name in world.seen] == ["e"]
    assert await world.queue.find("later") is not None


@virtual
async def test_whoever_lost_the_lease_does_not_record_the_end(caplog: pytest.LogCaptureFixture) -> None:
    world = World()

    async def run(_: Event) -> Answer:
        await world.queue.purge("uid-f", dead=False)
        return ok()

    world.runs = run
    assert await run_one(world) is None
    assert world.ended("done") == 0
    assert "does not count" in caplog.text


@virtual
async def test_a_failing_delivery_is_repeated_without_running_the_function_again() -> None:
    world = World()
    world.on_success = QUEUE_ARN
    world.delivery_errors = [DeliveryError("away", permanent=False), DeliveryError("still away", permanent=False)]
    assert await run_one(world) is None
    assert len(world.seen) == 1
    assert [round(at) for at, _, _ in world.told] == [0, 1, 6]
    assert len({ending.ended_ms for _, _, ending in world.told}) == 1
    assert world.count("kappa_async_deliveries_total", service="sqs", outcome="retried") == 2
    assert world.count("kappa_async_deliveries_total", service="sqs", outcome="delivered") == 1
    assert world.ended("done") == 1


@virtual
async def test_only_what_failed_is_delivered_again() -> None:
    world = World()
    world.answers = [failed()]
    world.terms = Terms(maximum_retry_attempts=0)
    world.on_failure, world.dead_letter = QUEUE_ARN, DLQ_ARN
    world.delivery_errors = [DeliveryError("away", permanent=False)]
    await run_one(world)
    assert [delivery.arn for _, delivery, _ in world.told] == [QUEUE_ARN, DLQ_ARN, QUEUE_ARN]


@pytest.mark.parametrize(("permanent", "attempts"), [(True, 1), (False, 6)])
@virtual
async def test_a_delivery_that_cannot_be_made_is_given_up_counted_and_kept_as_a_dead_letter(
    permanent: bool, attempts: int
) -> None:
    world = World()
    world.answers = [failed()]
    world.terms = Terms(maximum_retry_attempts=0)
    world.dead_letter = DLQ_ARN
    world.delivery_errors = [DeliveryError("no such queue", permanent=permanent) for _ in range(20)]
    dead = await run_one(world)
    assert dead is not None
    assert dead.detail == f"no; not delivered to {DLQ_ARN}: no such queue"
    assert len(world.told) == attempts
    assert world.count("kappa_async_deliveries_total", service="sqs", outcome="failed") == 1


@virtual
async def test_a_worker_that_dies_between_the_end_and_its_delivery_does_not_run_the_function_again() -> None:
    world = World()
    world.on_success = QUEUE_ARN
    reached = asyncio.Event()

    async def never(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    delivers, world.deliver = world.deliver, never  # type: ignore[method-assign]
    await world.queue.enqueue(event("e"))
    async with world.working():
        await reached.wait()
    world.deliver = delivers  # type: ignore[method-assign]
    async with world.working():
        await world.settled()
    assert len(world.seen) == 1
    assert len(world.told) == 1
    assert world.ended("done") == 1


class Unsteady(MemoryEventQueue):
    """Cannot be written for a while."""

    def __init__(self) -> None:
        super().__init__(clock_ms=clock_ms)
        self.away = False

    async def ack(self, lease: Lease, /) -> None:
        if self.away:
            raise StoreUnavailable("the disk is full")
        await super().ack(lease)


@virtual
async def test_an_end_that_cannot_be_written_is_said_until_it_is_and_nothing_runs_twice(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    queue = world.queue = Unsteady()
    queue.away = True
    await queue.enqueue(event("e"))
    async with world.working():
        await asyncio.sleep(300)
        queue.away = False
        await world.settled()
    assert len(world.seen) == 1
    assert world.ended("done") == 1
    assert caplog.text.count("the disk is full") == 10


@virtual
async def test_a_long_queue_of_slow_events_does_not_delay_the_first_of_another_function() -> None:
    world = World()
    world.settings = WorkerSettings(concurrency=32)
    begun: dict[str, float] = {}

    async def run(event: Event) -> Answer:
        begun[event.event_id] = asyncio.get_running_loop().time()
        await asyncio.sleep(600)
        return ok()

    world.runs = run
    for number in range(500):
        await world.queue.enqueue(event(f"a{number}", function="a"))
    async with world.working() as worker:
        await asyncio.sleep(5_000)
        now = asyncio.get_running_loop().time()
        await world.queue.enqueue(event("b", function="b"))
        worker.wake()
        await asyncio.sleep(1)
        assert begun["b"] - now < 0.05
        assert world.most["000000000000/eu-central-1/a/uid-a"] == 16


@virtual
async def test_a_function_with_reserved_concurrency_is_hardly_ever_throttled_by_its_own_events() -> None:
    world = World()
    world.reserved = 2

    async def run(_: Event) -> Answer:
        if world.running["000000000000/eu-central-1/f/uid-f"] > 2:
            raise TooManyRequestsException("ReservedFunctionConcurrentInvocationLimitExceeded")
        await asyncio.sleep(1)
        return ok()

    world.runs = run
    for number in range(100):
        await world.queue.enqueue(event(f"e{number}"))
    async with world.working():
        await world.settled()
    assert world.ended("done") == 100
    assert world.recorded.count("throttled") <= 4
    assert asyncio.get_running_loop().time() < 60


@virtual
async def test_the_gauges_say_what_waits_and_how_old_it_is() -> None:
    world = World()
    await world.queue.enqueue(event("e"), delay_ms=3_600_000)
    async with world.working():
        await asyncio.sleep(100)
    families = {family.name: family.samples for family in world.counts.gauges()}
    labels = {"account": "000000000000", "function": "f"}
    assert [(one.labels, one.value) for one in families["kappa_queue_depth"]] == [(labels, 1.0)]
    assert [one.value for one in families["kappa_queue_oldest_age_seconds"]] == [100.0]
    assert [one.value for one in families["kappa_queue_dead_letters"]] == [0.0]
    assert clock_ms() == BEGIN_MS + 100_000
