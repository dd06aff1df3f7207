"""Events that are part of a recursive loop: what their function runs under, when they are dropped, and who is told."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from kappa_core.ports.queue import Dead, Event
from kappa_core.rules.destination_record import Ending
from kappa_core.rules.lineage import LOOPS, STOPPED, mark_of
from kappa_gateway.events.delivery import AwsDelivery, DeliveryError, DeliverySettings
from kappa_gateway.events.progress import Delivery
from kappa_gateway.hot.path import Caller
from kappa_gateway.hot.routes import Route, RoutedVersion
from queue_samples import ARN, event
from virtual_time import virtual
from worked_queue import DLQ_ARN, QUEUE_ARN, World, failed, make_spec

MARK = mark_of("000000000000/eu-central-1/f/uid-f")
"""Of the function ``f`` of these samples."""


async def run(world: World, trace_id: str) -> Dead | None:
    """An event with that trace header, until it has ended; its dead letter, if it is one."""
    await world.queue.enqueue(msgspec.structs.replace(event("e"), trace_id=trace_id))
    async with world.working():
        await world.settled()
    found = await world.queue.find("e")
    assert found is None or isinstance(found, Dead)
    return found


@virtual
async def test_a_function_runs_under_the_lineage_of_its_chain_and_so_does_each_repetition() -> None:
    world = World()
    world.answers = [failed()]
    world.on_success = QUEUE_ARN
    assert await run(world, f"Root=1-0;Lineage=1:{MARK}:3") is None
    assert world.traces == [f"Root=1-0;Lineage=1:{MARK}:4"] * 2
    assert world.told_traces == [f"Root=1-0;Lineage=1:{MARK}:4"]


@virtual
async def test_an_event_from_outside_begins_a_chain() -> None:
    world = World()
    await run(world, "Root=1-0")
    assert world.traces == [f"Root=1-0;Lineage=1:{MARK}:0"]


@virtual
async def test_an_event_of_a_loop_is_dropped_without_a_run_and_both_are_told(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.on_success, world.on_failure, world.dead_letter = "arn:x", QUEUE_ARN, DLQ_ARN
    dead = await run(world, f"Root=1-0;Lineage=1:{MARK}:{LOOPS - 1}")
    assert world.traces == []
    assert dead is not None
    assert (dead.reason, dead.detail) == ("RecursiveInvocation", STOPPED)
    assert [delivery for _, delivery, _ in world.told] == [Delivery("destination", QUEUE_ARN), Delivery("dead_letter", DLQ_ARN)]
    ending = world.told[0][2]
    assert (ending.condition, ending.invoke_count, ending.status) == ("RecursiveInvocation", 0, 400)
    assert (ending.error_message, ending.executed_version) == (STOPPED, "")
    assert world.told_traces == [f"Root=1-0;Lineage=1:{MARK}:{LOOPS}"] * 2
    assert world.ended("recursive_invocation") == 1
    assert world.recorded == ["recursive"]
    assert "event e of" in caplog.text


@virtual
async def test_a_function_that_allows_loops_runs_on() -> None:
    world = World()
    world.loops = True
    trace_id = f"Root=1-0;Lineage=1:{MARK}:{LOOPS - 1}"
    assert await run(world, trace_id) is None
    assert world.traces == [trace_id]


class Target:
    """A function that is a destination, and what was put into its queue."""

    def __init__(self) -> None:
        self.accepted: list[str] = []

    def cached(self, *_: Any) -> None: ...

    async def find(self, _caller: Caller, name: str, _qualifier: str | None, /) -> Route[str]:
        return Route(
            function_arn=ARN + name,
            function_key=f"000000000000/eu-central-1/{name}/uid-{name}",
            reserved=None,
            primary=RoutedVersion(name, label="$LATEST", make=make_spec),
            additional=None,
            weight=0.0,
            draw=lambda: 0.0,
            record=lambda *_, **__: None,
        )

    async def accept(self, *, trace_id: str, **_: Any) -> None:
        self.accepted.append(trace_id)


def delivered(condition: Any, trace_id: str) -> list[str]:
    """The trace headers under which another function is told of an event that ended so."""
    target = Target()
    delivery = AwsDelivery(DeliverySettings(), functions=target, intake=target)
    ending = Ending(event_id="e", function_arn=f"{ARN}f:$LATEST", condition=condition, ended_ms=0, invoke_count=1)
    ended: Event = msgspec.structs.replace(event("e"), trace_id=trace_id)
    asyncio.run(delivery.deliver(Delivery("destination", f"{ARN}g"), ending, ended))
    return target.accepted


def test_a_function_that_is_a_destination_goes_on_with_the_chain() -> None:
    trace_id = f"Root=1-0;Lineage=1:{MARK}:4"
    assert delivered("Success", trace_id) == [trace_id]


def test_a_function_is_told_once_that_a_chain_was_stopped() -> None:
    stopped = f"Root=1-0;Lineage=1:{MARK}:{LOOPS}"
    assert delivered("RecursiveInvocation", stopped) == [stopped]
    with pytest.raises(DeliveryError) as caught:
        delivered("RecursiveInvocation", f"Root=1-0;Lineage=1:{MARK}:{LOOPS + 1}")
    assert caught.value.permanent
