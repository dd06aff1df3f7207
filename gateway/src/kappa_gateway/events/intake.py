"""The way into the queue: an event is durable when :meth:`Intake.accept` returns, and only then may anybody be told 202.

What the queue cannot take is an error of the Lambda API at once: nothing is held in memory in the hope of better times.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from kappa_core.errors import RequestEntityTooLargeException, ServiceUnavailableException
from kappa_core.ports.queue import Event, EventQueue, QueueFull
from kappa_core.ports.store import StoreUnavailable

_log = logging.getLogger(__name__)


class Intake:
    """See the module. ``wake`` tells the worker of this process whose event has come."""

    def __init__(self, *, queue: EventQueue, limit: int, wake: Callable[[str], None]) -> None:
        self._queue = queue
        self._limit = limit
        self._wake = wake
        self._failing = False

    async def accept(
        self, *, request_id: str, function_key: str, function_arn: str, trace_id: str, payload: bytes, dedupe: str = ""
    ) -> None:
        """Store one event. ``function_key`` is that of its route.

        Raises RequestEntityTooLargeException over the limit, and ServiceUnavailableException where the queue is full or cannot be
        written: nothing was stored.
        """
        if len(payload) > self._limit:
            raise RequestEntityTooLargeException(
                f"{len(payload)} byte payload is too large for the Event invocation type (limit {self._limit} bytes)"
            )
        event = Event(
            event_id=request_id,
            function_uid=function_key.rpartition("/")[2],
            function_arn=function_arn,
            payload=payload,
            trace_id=trace_id,
        )
        try:
            await self._queue.enqueue(event, dedupe=dedupe)
        except QueueFull as error:
            raise ServiceUnavailableException(f"The event was not accepted: {error}.") from error
        except StoreUnavailable as error:
            if not self._failing:
                _log.error("asynchronous events cannot be accepted: %s", error)
            self._failing = True
            raise ServiceUnavailableException("The event was not accepted: the queue cannot be written.") from error
        self._failing = False
        self._wake(event.function_uid)
