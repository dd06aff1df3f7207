"""The way into the queue, and what an event is to run on: refusals, qualifiers, configurations, orphans."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from kappa_core.errors import LambdaError, RequestEntityTooLargeException, ResourceNotFoundException, ServiceUnavailableException
from kappa_core.memory import MemoryEventQueue, MemoryResourceStore
from kappa_core.ports.queue import EVENT_OVERHEAD, Bounds, Event
from kappa_core.resources import DeadLetter, EventInvokeConfig, Function, Key, Resource
from kappa_core.rules.retry import Terms
from kappa_gateway.events.intake import Intake
from kappa_gateway.events.targets import FunctionGone, Targets
from kappa_gateway.hot.routes import Route
from queue_samples import ARN
from store_samples import ACCOUNT, REGION, function

ROUTE: Any = object()


def clock() -> int:
    return 1_000


class Index:
    """Knows what it is told, and answers routes."""

    def __init__(self) -> None:
        self.resources: dict[Key, Resource] = {}
        self.error: LambdaError | None = None
        self.asked: list[tuple[str, str | None]] = []

    def cached(self, _caller: object, name: str, qualifier: str | None, /) -> Route[Any] | None:
        self.asked.append((name, qualifier))
        return None

    async def find(self, _caller: object, _name: str, _qualifier: str | None, /) -> Route[Any]:
        if self.error is not None:
            raise self.error
        return ROUTE  # type: ignore[no-any-return]  # only handed on

    def get(self, key: Key, /) -> Resource | None:
        return self.resources.get(key)


class World:
    def __init__(self) -> None:
        self.store = MemoryResourceStore(clock_ms=clock)
        self.index = Index()
        self.targets = Targets(index=self.index, store=self.store)

    async def create(self) -> Function:
        made = await self.store.create(function("f"))
        self.index.resources[made.key] = made
        return made

    def configure(self, qualifier: str, uid: str, **members: Any) -> None:
        config = EventInvokeConfig(
            account=ACCOUNT, region=REGION, name="f", qualifier=qualifier, function_uid=uid, modified_ms=1, **members
        )
        self.index.resources[config.key] = config


def event(uid: str, qualifier: str = "") -> Event:
    return Event(event_id="e", function_uid=uid, function_arn=ARN + "f" + (f":{qualifier}" if qualifier else ""), payload=b"{}")


def test_without_configuration_awss_defaults_hold() -> None:
    async def scenario() -> None:
        world = World()
        made = await world.create()
        target = await world.targets.find(event(made.meta.uid))
        assert target.route is ROUTE
        assert target.terms == Terms(maximum_retry_attempts=2, maximum_event_age_ms=21_600_000)
        assert (target.on_success, target.on_failure, target.dead_letter) == ("", "", "")
        assert (target.qualifier, target.qualified_arn) == ("$LATEST", f"{ARN}f:$LATEST")

    asyncio.run(scenario())


def test_the_configuration_is_that_of_the_qualifier_and_the_dead_letter_queue_that_of_latest() -> None:
    async def scenario() -> None:
        world = World()
        made = await world.create()
        changed = msgspec.structs.replace(made.configuration, dead_letter=DeadLetter(target_arn="arn:dlq"))
        world.index.resources[made.key] = msgspec.structs.replace(made, configuration=changed, reserved_concurrency=3)
        world.configure("$LATEST", made.meta.uid, on_success="arn:latest")
        world.configure("live", made.meta.uid, on_failure="arn:live", maximum_retry_attempts=0, maximum_event_age_seconds=60)
        target = await world.targets.find(event(made.meta.uid, "live"))
        assert world.index.asked == [("f", "live")]
        assert (target.on_success, target.on_failure, target.dead_letter) == ("", "arn:live", "arn:dlq")
        assert target.terms == Terms(maximum_retry_attempts=0, maximum_event_age_ms=60_000)
        assert target.reserved == 3

    asyncio.run(scenario())


def test_a_configuration_left_behind_by_an_earlier_function_is_none() -> None:
    async def scenario() -> None:
        world = World()
        made = await world.create()
        world.configure("$LATEST", "an earlier uid", on_success="arn:old")
        assert (await world.targets.find(event(made.meta.uid))).on_success == ""

    asyncio.run(scenario())


def test_a_qualifier_that_is_missing_is_a_refusal_with_the_functions_terms() -> None:
    async def scenario() -> None:
        world = World()
        made = await world.create()
        world.index.error = ResourceNotFoundException("Function not found: f:gone")
        target = await world.targets.find(event(made.meta.uid, "gone"))
        assert target.route is None
        assert target.refused is world.index.error

    asyncio.run(scenario())


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "deleted and made again"])
def test_an_event_of_a_deleted_function_is_an_orphan(again: bool) -> None:
    async def scenario() -> None:
        world = World()
        if again:
            await world.create()
        else:
            world.index.error = ResourceNotFoundException("Function not found: f")
        with pytest.raises(FunctionGone):
            await world.targets.find(event("an earlier uid"))

    asyncio.run(scenario())


def test_an_index_that_is_behind_the_store_orphans_nothing() -> None:
    async def scenario() -> None:
        world = World()
        made = await world.create()
        world.index.resources[made.key] = msgspec.structs.replace(made, meta=msgspec.structs.replace(made.meta, uid="earlier"))
        with pytest.raises(ServiceUnavailableException):
            await world.targets.find(event(made.meta.uid))

    asyncio.run(scenario())


def accept(intake: Intake, payload: bytes = b"{}", *, request_id: str = "r") -> Any:
    return intake.accept(
        request_id=request_id,
        function_key="000000000000/eu-central-1/f/uid-f",
        function_arn=f"{ARN}f:live",
        trace_id="Root=1-0",
        payload=payload,
    )


def test_an_accepted_event_is_in_the_queue_under_its_request_id_and_the_worker_knows() -> None:
    async def scenario() -> None:
        queue, woken = MemoryEventQueue(clock_ms=clock), list[str]()
        await accept(Intake(queue=queue, limit=100, wake=woken.append), b"[1]")
        (lease,) = (await queue.lease(5, lease_ms=1, share=5, rooms={})).leases
        assert lease.event == Event(
            event_id="r", function_uid="uid-f", function_arn=f"{ARN}f:live", payload=b"[1]", trace_id="Root=1-0"
        )
        assert woken == ["uid-f"]

    asyncio.run(scenario())


def test_too_large_an_event_is_refused_in_awss_words() -> None:
    async def scenario() -> None:
        queue = MemoryEventQueue(clock_ms=clock)
        with pytest.raises(RequestEntityTooLargeException) as caught:
            await accept(Intake(queue=queue, limit=3, wake=lambda _: None), b"[1,2]")
        assert caught.value.message == "5 byte payload is too large for the Event invocation type (limit 3 bytes)"
        assert await queue.stats() == []

    asyncio.run(scenario())


def test_what_the_queue_cannot_take_is_refused_at_once_and_nobody_is_woken(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        woken: list[str] = []
        full = MemoryEventQueue(clock_ms=clock, bounds=Bounds(total_bytes=EVENT_OVERHEAD))
        with pytest.raises(ServiceUnavailableException, match="no room"):
            await accept(Intake(queue=full, limit=100, wake=woken.append))
        away = MemoryEventQueue(clock_ms=clock)
        await away.close()
        intake = Intake(queue=away, limit=100, wake=woken.append)
        for number in range(3):
            with pytest.raises(ServiceUnavailableException, match="cannot be written"):
                await accept(intake, request_id=str(number))
        assert woken == []
        assert caplog.text.count("cannot be accepted") == 1

    asyncio.run(scenario())
