"""A worker with everything around it in memory, for tests in virtual time: functions that end as told, and what became of each event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

from prometheus_client import CollectorRegistry

from kappa_core.errors import LambdaError
from kappa_core.link import frames
from kappa_core.memory import MemoryEventQueue
from kappa_core.ports.queue import Dead, Event
from kappa_core.rules.destination_record import Ending
from kappa_core.rules.retry import Terms
from kappa_gateway.events.counts import Counts
from kappa_gateway.events.delivery import DeliveryError
from kappa_gateway.events.progress import Delivery
from kappa_gateway.events.targets import FunctionGone, Target
from kappa_gateway.events.worker import Worker, WorkerSettings
from kappa_gateway.hot.routes import Route, RoutedVersion
from kappa_gateway.observe.metrics import InFlight
from queue_samples import ARN, event
from virtual_time import clock_ms

FAILED = b'{"errorMessage": "no", "errorType": "ValueError"}'
QUEUE_ARN = "arn:aws:sqs:eu-central-1:000000000000:results"
DLQ_ARN = "arn:aws:sqs:eu-central-1:000000000000:dead"
MINUTE = 60.0

Answer = tuple[frames.Result, bytes]
Run = Callable[[Event], Awaitable[Answer]]


class Spec:
    """Stands in for a VersionSpec: only handed on."""


async def make_spec(_: str) -> Any:
    return Spec()


def ok() -> Answer:
    return frames.Result("r"), b'"done"'


def failed() -> Answer:
    return frames.Result("r", function_error="Unhandled"), FAILED


class World:
    """A worker with a memory queue; tests say what functions do (``runs``) and what holds for them (``terms`` and so on)."""

    def __init__(self) -> None:
        self.queue = MemoryEventQueue(clock_ms=clock_ms)
        self.registry = CollectorRegistry()
        self.counts = Counts(self.registry, clock_ms=clock_ms)
        self.seen: list[tuple[float, str]] = []
        """When what was run."""
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}
        """How many ran at once, by function."""
        self.runs: Run | None = None
        self.answers: list[Answer | LambdaError] = []
        """What the next attempts end in; then all succeed."""
        self.terms = Terms()
        self.reserved: int | None = None
        self.on_success = self.on_failure = self.dead_letter = ""
        self.refused: LambdaError | None = None
        self.gone = False
        self.loops = False
        """Whether the function allows recursive loops."""
        self.traces: list[str] = []
        """The trace header of each run."""
        self.label = "$LATEST"
        self.told: list[tuple[float, Delivery, Ending]] = []
        self.told_traces: list[str] = []
        self.delivery_errors: list[DeliveryError] = []
        self.recorded: list[str] = []
        self.in_flight = InFlight()
        self.settings = WorkerSettings()

    def worker(self) -> Worker:
        return Worker(
            queue=self.queue,
            links=self,  # a spec is only handed on
            targets=self,
            delivery=self,
            counts=self.counts,
            recorder=lambda *_: self.record,
            in_flight=self.in_flight,
            settings=self.settings,
            clock_ms=clock_ms,
        )

    def record(self, code_class: str, _seconds: float, /, *, cold: bool = False) -> None:
        self.recorded.append(code_class)

    async def find(self, event: Event, /) -> Target:
        if self.gone:
            raise FunctionGone
        name = event.function_arn.split(":")[6]
        route = Route(
            function_arn=event.function_arn,
            function_key=f"000000000000/eu-central-1/{name}/{event.function_uid}",
            reserved=self.reserved,
            primary=RoutedVersion(name, label=self.label, make=make_spec),
            additional=None,
            weight=0.0,
            draw=lambda: 0.0,
            record=self.record,
            loops=self.loops,
        )
        return Target(
            account="000000000000",
            function=name,
            qualifier="$LATEST",
            qualified_arn=f"{ARN}{name}:$LATEST",
            route=None if self.refused else route,
            refused=self.refused,
            reserved=self.reserved,
            terms=self.terms,
            on_success=self.on_success,
            on_failure=self.on_failure,
            dead_letter=self.dead_letter,
        )

    async def invoke(self, *, invoke: frames.Invoke, function_key: str, payload: bytes, **_: Any) -> Answer:
        self.seen.append((asyncio.get_running_loop().time(), invoke.request_id))
        self.traces.append(invoke.trace_id)
        self.running[function_key] = self.running.get(function_key, 0) + 1
        self.most[function_key] = max(self.most.get(function_key, 0), self.running[function_key])
        try:
            if self.runs is not None:
                return await self.runs(event(invoke.request_id, payload=payload))
            await asyncio.sleep(0.001)
            answer = self.answers.pop(0) if self.answers else ok()
            if isinstance(answer, LambdaError):
                raise answer
            return answer
        finally:
            self.running[function_key] -= 1

    async def deliver(self, delivery: Delivery, ending: Ending, event: Event, /) -> None:
        self.told.append((asyncio.get_running_loop().time(), delivery, ending))
        self.told_traces.append(event.trace_id)
        if self.delivery_errors:
            raise self.delivery_errors.pop(0)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Worker]:
        worker = self.worker()
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await worker.close()

    async def settled(self) -> None:
        """Wait until nothing waits any more."""
        while any(one.depth for one in await self.queue.stats()):
            await asyncio.sleep(0.5)

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def ended(self, outcome: str) -> float:
        return self.count("kappa_async_events_total", outcome=outcome)

    def waits(self) -> list[float]:
        """Seconds between the attempts."""
        times = [at for at, _ in self.seen]
        return [round(after - before, 1) for before, after in pairwise(times)]


async def run_one(world: World, **payload: Any) -> Dead | None:
    """Enqueue an event and work until it has ended; its dead letter, if it is one."""
    await world.queue.enqueue(event("e", payload=json.dumps(payload).encode()))
    async with world.working():
        await world.settled()
        await asyncio.sleep(1)
    found = await world.queue.find("e")
    assert found is None or isinstance(found, Dead)
    return found
