"""The worker: takes due events out of the queue, runs them like any other invocation, and records how each of them ended.

One task per event that is in hand, bounded by :mod:`.slots`; one loop that leases, one that keeps the leases. Every attempt of an event
runs under the same request id and asks anew where its function is. What follows from an attempt is decided by
:mod:`kappa_core.rules.retry`. An event that has ended is noted as such before anybody is told, told to its destinations, and only then
acknowledged or made a dead letter, under the epoch of its lease: so an end is recorded once, and told at least once.

It refuses to hold anything that the queue does not hold: a worker that is killed loses no event, it lets some run again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec

from kappa_core.errors import (
    EnvironmentLostException,
    LambdaError,
    RecursiveInvocationException,
    ServiceUnavailableException,
    TooManyRequestsException,
)
from kappa_core.link import frames
from kappa_core.ports.queue import Event, EventQueue, Lease, LeaseLost
from kappa_core.ports.store import StoreUnavailable
from kappa_core.rules.destination_record import Ending, error_message_of
from kappa_core.rules.lineage import refused as lineage_of_refused
from kappa_core.rules.retry import Condition, Ended, Retry, Schedule, after_attempt, before_attempt, delay_ms
from kappa_gateway.events.counts import OUTCOMES, Counts
from kappa_gateway.events.delivery import DeliveryError
from kappa_gateway.events.progress import Delivery, Progress, Ran, decode, encode
from kappa_gateway.events.slots import Slots
from kappa_gateway.events.targets import FunctionGone, Target
from kappa_gateway.hot.path import InFlight, Links, code_class
from kappa_gateway.hot.routes import Record
from kappa_gateway.stores.database import pause

_log = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
"""After which the worker looks for what another process has enqueued; its own enqueues wake it."""
GATHER_SECONDS: Final = 0.002
"""How long a busy worker waits for more slots to become free before it leases again: a lease is a commit."""
STATS_SECONDS: Final = 2.0
"""How often the gauges are read while there is anything to see."""
STORE_RETRY_SECONDS: Final = 0.5
SILENT_SECONDS: Final = 30.0
"""Between two lines about a queue that cannot be used."""
EXITED: Final = "Runtime.ExitError"
"""Error type of a function whose process ended before it had answered."""
EXPIRE_SECONDS: Final = 3600.0
DEAD_LETTER_MS: Final = 14 * 86_400_000
"""How long a dead letter is kept: as long as SQS keeps a message at most."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    concurrency: int = 100
    """Events in hand at once, those being delivered included."""
    lease_ms: int = 30_000
    """Renewed every third of it."""
    schedule: Schedule = Schedule()
    delivery_delays_ms: tuple[int, ...] = (1_000, 5_000, 30_000, 120_000, 600_000)
    """Between the attempts to deliver; behind the last one a delivery is given up."""


class FindsTargets(Protocol):
    """See kappa_gateway.events.targets."""

    async def find(self, event: Event, /) -> Target: ...


class Delivers(Protocol):
    """See kappa_gateway.events.delivery."""

    async def deliver(self, delivery: Delivery, ending: Ending, event: Event, /) -> None:
        """Tell one destination or dead-letter queue. Raises DeliveryError."""


Recorder = Callable[[str, str, str], Record]
"""Account, function and qualifier to what counts their invocations."""


class _InHand:
    """An event with a task; its lease may be replaced by a later one of the same event."""

    __slots__ = ("lease", "task")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.task: asyncio.Task[None] | None = None


class Worker:
    """See the module. ``clock_ms`` is epoch milliseconds, the queue's own clock."""

    def __init__(
        self,
        *,
        queue: EventQueue,
        links: Links,
        targets: FindsTargets,
        delivery: Delivers,
        counts: Counts,
        recorder: Recorder,
        in_flight: InFlight,
        settings: WorkerSettings,
        clock_ms: Callable[[], int],
    ) -> None:
        self._queue = queue
        self._links = links
        self._targets = targets
        self._delivery = delivery
        self._counts = counts
        self._recorder = recorder
        self._in_flight = in_flight
        self._settings = settings
        self._clock_ms = clock_ms
        self._slots = Slots(settings.concurrency)
        self._in_hand: dict[int, _InHand] = {}
        """By the queue's number of the event."""
        self._woken = asyncio.Event()
        self._resting = False
        self._stirred = True
        """Whether anything happened since the gauges were read."""
        self._silent_until = 0.0

    def wake(self, function_uid: str = "") -> None:
        """Something may be due: of this function, or of any. One that may run nothing more now is looked at when something of it ends."""
        self._stirred = True
        if not function_uid or self._slots.room(function_uid) > 0:
            self._woken.set()

    async def run(self) -> None:
        """Work until cancelled; then call :meth:`close`."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._lease_forever(), name="lease events")
            parts.create_task(self._keep_leases(), name="keep leases")
            parts.create_task(self._observe(), name="observe the queue")
            parts.create_task(self._expire(), name="expire dead letters")

    def rest(self) -> None:
        """Lease nothing more; what is in hand goes on."""
        self._resting = True
        self._woken.set()

    async def at_rest(self) -> None:
        """Returns when nothing is in hand any more, after :meth:`rest`."""
        while tasks := [each.task for each in self._in_hand.values() if each.task is not None]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Put down what is in hand: it is due again at once, for whoever works next. Call it when :meth:`run` has ended."""
        in_hand = list(self._in_hand.values())
        tasks = [each.task for each in in_hand if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # What its task has still said before it was cancelled counts; the others' leases are over now instead of at their end.
        await asyncio.gather(*(self._queue.nack(each.lease, after_ms=0) for each in in_hand), return_exceptions=True)

    # -- leases ----------------------------------------------------------------------------------------------------
    async def _lease_forever(self) -> None:
        while not self._resting:
            self._woken.clear()
            next_due: int | None = None
            if self._slots.free > 0:
                try:
                    leased = await self._queue.lease(
                        self._slots.free,
                        lease_ms=self._settings.lease_ms,
                        share=self._slots.share,
                        rooms=self._slots.rooms(),
                    )
                except StoreUnavailable as error:
                    self._say_failing(error)
                    await asyncio.sleep(STORE_RETRY_SECONDS)
                    continue
                for lease in leased.leases:
                    self._begin(lease)
                if leased.leases:
                    continue
                next_due = leased.next_due_ms
            seconds = POLL_SECONDS
            if next_due is not None:
                seconds = min(seconds, max(0, next_due - self._clock_ms()) / 1000)
            await pause(self._woken, at_most=seconds)
            if self._in_hand:
                await asyncio.sleep(GATHER_SECONDS)

    def _begin(self, lease: Lease) -> None:
        known = self._in_hand.get(lease.number)
        if known is not None:
            # Its lease ended while this process slept (a closed laptop). It still runs here, so it goes on under the new lease.
            known.lease = lease
            return
        in_hand = self._in_hand[lease.number] = _InHand(lease)
        self._slots.take(lease.event.function_uid)
        self._stirred = True
        in_hand.task = asyncio.create_task(self._handle(in_hand), name=f"event {lease.event.event_id}")

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_ms / 3000)
            kept = [self._keep(in_hand) for in_hand in self._in_hand.values()]
            await asyncio.gather(*kept)

    async def _keep(self, in_hand: _InHand) -> None:
        try:
            await self._queue.extend(in_hand.lease, lease_ms=self._settings.lease_ms)
        except LeaseLost:
            pass  # it has ended meanwhile; or it is somebody else's now, which its own task finds out when it speaks
        except StoreUnavailable as error:
            self._say_failing(error)

    async def _observe(self) -> None:
        while True:
            if self._stirred:
                self._stirred = bool(self._in_hand)
                try:
                    self._counts.stats = await self._queue.stats()
                except StoreUnavailable as error:
                    self._say_failing(error)
            await asyncio.sleep(STATS_SECONDS)

    async def _expire(self) -> None:
        while True:
            try:
                expired = await self._queue.expire(self._clock_ms() - DEAD_LETTER_MS)
            except StoreUnavailable as error:
                self._say_failing(error)
            else:
                if expired:
                    _log.info("%d dead letters were older than %d days and are gone", expired, DEAD_LETTER_MS // 86_400_000)
            await asyncio.sleep(EXPIRE_SECONDS)

    def _say_failing(self, error: StoreUnavailable) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._silent_until = now + SILENT_SECONDS
            _log.warning("the event queue cannot be used, will try again: %s", error)

    # -- one event -------------------------------------------------------------------------------------------------
    async def _handle(self, in_hand: _InHand) -> None:
        event = in_hand.lease.event
        try:
            await self._work_on(in_hand)
        except Exception:  # noqa: BLE001 - a bug about one event must not end the others; its lease runs out and it is tried again
            _log.exception("working on event %s of %s failed unexpectedly", event.event_id, event.function_arn)
        finally:
            self._slots.release(event.function_uid)
            del self._in_hand[in_hand.lease.number]
            self.wake()

    async def _work_on(self, in_hand: _InHand) -> None:
        lease = in_hand.lease
        progress = decode(lease.note)
        if lease.leases > progress.turns + 1:
            self._counts.repeated.inc()
            _log.info(
                "event %s of %s is taken up again: whoever had it ended without a word, so it may run twice",
                lease.event.event_id,
                lease.event.function_arn,
            )
        progress = msgspec.structs.replace(progress, turns=lease.leases)
        if progress.ending is None:
            ended = await self._attempt(in_hand, progress)
            if ended is None:
                return
            progress = ended
            if progress.deliveries:
                note = encode(progress)
                if not await self._say(
                    in_hand, lambda lease: self._queue.extend(lease, lease_ms=self._settings.lease_ms, note=note)
                ):
                    return
        await self._finish(in_hand, progress)

    async def _attempt(self, in_hand: _InHand, progress: Progress) -> Progress | None:
        """Run the event, if it may still run. The progress with its end, or None where it has been put back."""
        lease, event = in_hand.lease, in_hand.lease.event
        try:
            target = await self._targets.find(event)
        except FunctionGone:
            await self._drop(in_hand)
            return None
        except (ServiceUnavailableException, StoreUnavailable) as error:
            # Nobody can say now whose terms hold: nothing is given up meanwhile.
            attempts = progress.attempts.after("system_error")
            progress = msgspec.structs.replace(progress, attempts=attempts, last=_last(progress.last, _refused(error)))
            after_ms = delay_ms("system_error", attempts, schedule=self._settings.schedule)
            await self._put_back(in_hand, progress, after_ms, cause="system_error")
            return None
        over = before_attempt(age_ms=self._age_ms(lease), reserved=target.reserved, terms=target.terms)
        if over is not None:
            return self._ended(over.condition, progress, event, target)
        try:
            event = _entering(event, target)
        except RecursiveInvocationException as error:
            return self._stopped(error, progress, event, target)
        ended, ran = await self._invoke(event, target)
        attempts = progress.attempts.after(ended)
        progress = msgspec.structs.replace(progress, attempts=attempts, last=_last(progress.last, ran))
        follows = after_attempt(
            ended,
            attempts,
            age_ms=self._age_ms(lease),
            reserved=target.reserved,
            terms=target.terms,
            schedule=self._settings.schedule,
        )
        if isinstance(follows, Retry):
            await self._put_back(in_hand, progress, follows.after_ms, cause="throttled" if ran.status == 429 else ended)
            return None
        return self._ended(follows.condition, progress, event, target)

    def _stopped(self, error: RecursiveInvocationException, progress: Progress, event: Event, target: Target) -> Progress:
        """The progress of an event that its function will not run for: it has run too often in this chain of invocations."""
        self._recorder(target.account, target.function, target.qualifier)(code_class(error), 0.0)
        _log.warning(
            "event %s of %s is dropped: the function invokes itself in a loop (PutFunctionRecursionConfig can allow that)",
            event.event_id,
            event.function_arn,
        )
        if target.route is not None:
            event = msgspec.structs.replace(event, trace_id=lineage_of_refused(event.trace_id, mark=target.route.mark))
        progress = msgspec.structs.replace(progress, last=_refused(error))
        return self._ended("RecursiveInvocation", progress, event, target)

    async def _drop(self, in_hand: _InHand) -> None:
        """Everything that waits for a deleted function goes at once."""
        event = in_hand.lease.event
        dropped = 0

        async def purge(_: Lease) -> None:
            nonlocal dropped
            dropped = await self._queue.purge(event.function_uid, dead=False)

        await self._say(in_hand, purge)
        self._counts.events.labels("function_deleted").inc(dropped)
        _log.info("%d events of %s are dropped: the function was deleted", dropped, event.function_arn)

    async def _invoke(self, event: Event, target: Target) -> tuple[Ended, Ran]:
        """One attempt, counted like any invocation."""
        route = target.route
        if route is None:
            return "system_error", _refused(target.refused or ServiceUnavailableException())
        record = self._recorder(target.account, target.function, target.qualifier)
        started = time.perf_counter()
        self._in_flight.inc()
        try:
            version = route.choose()
            spec = version.spec or await version.make_spec()
            result, payload = await self._links.invoke(
                spec=spec,
                function_key=route.function_key,
                reserved=route.reserved,
                invoke=frames.Invoke(event.event_id, route.function_arn, event.trace_id),
                payload=event.payload,
            )
        except LambdaError as error:
            throttled = isinstance(error, TooManyRequestsException)
            if throttled:
                self._slots.throttled(event.function_uid)
            elif isinstance(error, EnvironmentLostException):
                _say_cut_off(event, str(error))
            record("throttled" if throttled else "platform_error", time.perf_counter() - started)
            return "system_error", _refused(error)
        except Exception as error:  # noqa: BLE001 - whatever broke is the platform's fault, and the event's chance is kept
            _log.exception("event %s of %s could not be run", event.event_id, event.function_arn)
            record("platform_error", time.perf_counter() - started)
            return "system_error", Ran(status=500, error_message=str(error))
        finally:
            self._in_flight.dec()
        self._slots.went_through(event.function_uid, reserved=route.reserved)
        failed = bool(result.function_error)
        if result.error_type == EXITED:
            _say_cut_off(event, error_message_of(payload))
        record("function_error" if failed else "ok", time.perf_counter() - started, cold=result.init_ms > 0)
        return "function_error" if failed else "ok", Ran(
            executed_version=version.label.decode(),
            function_error=result.function_error,
            response=payload,
            error_message=error_message_of(payload) if failed else "",
        )

    async def _put_back(self, in_hand: _InHand, progress: Progress, after_ms: int, *, cause: str) -> None:
        note = encode(progress)
        if await self._say(in_hand, lambda lease: self._queue.nack(lease, after_ms=after_ms, note=note)):
            self._counts.retries.labels(cause).inc()

    def _ended(self, condition: Condition, progress: Progress, event: Event, target: Target) -> Progress:
        """The progress of an event that has come to its end, with whom to tell."""
        last = progress.last or Ran()
        succeeded, never_ran = condition == "Success", condition == "ZeroReservedConcurrency"
        if never_ran:
            throttled = TooManyRequestsException("ReservedFunctionConcurrentInvocationLimitExceeded")
            last = Ran(status=throttled.status, error_message=throttled.message or "")
        ending = Ending(
            event_id=event.event_id,
            function_arn=target.qualified_arn,
            condition=condition,
            ended_ms=self._clock_ms(),
            invoke_count=progress.attempts.invoke_count + succeeded,
            executed_version=last.executed_version,
            function_error=last.function_error,
            response=last.response,
            status=last.status,
            error_message=last.error_message,
        )
        destination = target.on_success if succeeded else target.on_failure
        deliveries = [Delivery("destination", destination)] if destination else []
        if target.dead_letter and not succeeded:
            deliveries.append(Delivery("dead_letter", target.dead_letter))
        return msgspec.structs.replace(progress, ending=ending, deliveries=tuple(deliveries), trace_id=event.trace_id)

    async def _finish(self, in_hand: _InHand, progress: Progress) -> None:
        """Tell whom there is to tell, then take the event out of the queue."""
        ending = progress.ending
        assert ending is not None
        event = msgspec.structs.replace(in_hand.lease.event, trace_id=progress.trace_id)
        progress = await self._deliver(event, ending, progress)
        if progress.deliveries:
            delay = self._settings.delivery_delays_ms[progress.delivery_attempts - 1]
            note = encode(progress)
            await self._say(in_hand, lambda lease: self._queue.nack(lease, after_ms=delay, note=note))
            return
        condition = ending.condition
        if ending.succeeded:
            said = await self._say(in_hand, self._queue.ack)
        else:
            detail = "; ".join(text for text in (ending.error_message, *progress.failed) if text)
            said = await self._say(in_hand, lambda lease: self._queue.kill(lease, reason=condition, detail=detail))
        if said:
            self._counts.events.labels(OUTCOMES[condition]).inc()

    async def _deliver(self, event: Event, ending: Ending, progress: Progress) -> Progress:
        """Try all deliveries that are left; those that remain in the answer are to be tried again later."""
        left: list[Delivery] = []
        failed = list(progress.failed)
        attempts = progress.delivery_attempts + 1
        for delivery in progress.deliveries:
            service = service_of(delivery.arn)
            try:
                await self._delivery.deliver(delivery, ending, event)
            except DeliveryError as error:
                final = error.permanent or attempts > len(self._settings.delivery_delays_ms)
                self._counts.deliveries.labels(service, "failed" if final else "retried").inc()
                if final:
                    _log.warning("event %s could not be delivered to %s: %s", event.event_id, delivery.arn, error)
                    failed.append(f"not delivered to {delivery.arn}: {error}")
                else:
                    left.append(delivery)
            else:
                self._counts.deliveries.labels(service, "delivered").inc()
        return msgspec.structs.replace(progress, deliveries=tuple(left), delivery_attempts=attempts, failed=tuple(failed))

    async def _say(self, in_hand: _InHand, say: Callable[[Lease], Awaitable[Any]]) -> bool:
        """Tell the queue, again and again while it cannot be written: what has run must not run again for want of a word.

        False: the lease was lost, and with it the right to say anything.
        """
        while True:
            try:
                await say(in_hand.lease)
            except LeaseLost as error:
                _log.warning("%s: what was done for it here does not count, and it may run twice", error)
                return False
            except StoreUnavailable as error:
                self._say_failing(error)
                await asyncio.sleep(STORE_RETRY_SECONDS)
            else:
                return True

    def _age_ms(self, lease: Lease) -> int:
        return self._clock_ms() - lease.enqueued_ms


def service_of(arn: str) -> str:
    """The service of a destination's ARN, such as ``sqs``."""
    tokens = arn.split(":", 3)
    return tokens[2] if len(tokens) > 2 else ""


def _entering(event: Event, target: Target) -> Event:
    """The event under the trace header that its function is to run with. Raises RecursiveInvocationException."""
    if target.route is None:
        return event
    return msgspec.structs.replace(event, trace_id=target.route.enter(event.trace_id))


def _say_cut_off(event: Event, why: str) -> None:
    """What it had done by then is done again, if it may run again: the line that explains an event that came to its end twice."""
    _log.info("event %s of %s was cut off while it ran, so it may run twice: %s", event.event_id, event.function_arn, why)


def _refused(error: LambdaError | StoreUnavailable) -> Ran:
    if isinstance(error, LambdaError):
        return Ran(status=error.status, error_message=error.message or "")
    return Ran(status=503, error_message=str(error))


def _last(before: Ran | None, ran: Ran) -> Ran:
    """What records show: a function's answer stays shown when later attempts did not reach it."""
    if ran.executed_version or before is None or not before.executed_version:
        return ran
    return before
