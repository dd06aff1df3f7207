"""EventQueue: where asynchronous invocations wait. Between the 202 of an Invoke and the terminal state of its event, only this holds it.

Guarantees that every driver gives (``tests/contract/queue``): an enqueue that returned is durable; an event is leased to one holder
at a time, and every lease has a higher epoch than the one before it, so that what an earlier holder still says is refused; an event
leaves the queue only by :meth:`EventQueue.ack` or a purge, and its waiting state only by one of these or :meth:`EventQueue.kill`; a
lease that nobody extends ends by itself. Rows belong to a function's uid: what waits for a deleted function never reaches the next one of
its name. Leases go round the functions, so that a long queue of one does not delay the first event of another.

It refuses to know why: retries, ages and deliveries are decided by the consumer, which keeps its progress in ``note``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

HOT_BYTES: Final = 64 * 1024
"""Payloads and notes up to this size lie in the row that leases and acknowledgements touch; larger ones beside it."""
DEDUPE_MS: Final = 5 * 60_000
"""How long a dedupe key is remembered, also after its event is done."""

NOBODY: Final = 0
"""The epoch of an event that is not leased; leases begin at 1."""


class QueueError(Exception):
    """Base of what an EventQueue raises, beside :class:`kappa_core.ports.store.StoreUnavailable` (nothing was written)."""


class QueueFull(QueueError):
    """enqueue: the function's share of the queue is used up; nothing was stored."""


class LeaseLost(QueueError):
    """The lease is not, or no longer, the event's: it expired and went to somebody else, or the event was purged."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What fits. A function may take one more event while its own bytes stay within what is free for all, so that one function alone
    fills half of the queue and there is always room for the first event of another."""

    total_bytes: int = 4 * 1024**3
    """Of waiting events, payloads and :data:`EVENT_OVERHEAD` together."""


EVENT_OVERHEAD: Final = 512
"""Bytes that an event counts beside its payload."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One asynchronous invocation."""

    event_id: str
    """The request id that every attempt runs under. A new one for each event: the queue does not look for another of the same."""
    function_uid: str
    function_arn: str
    """As invoked: with the qualifier where one was given, so that an alias is resolved again at each attempt."""
    payload: bytes
    trace_id: str = ""


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """An event in somebody's hands. Everything said about it names its epoch."""

    event: Event
    number: int
    """The queue's own name of the event, never given to another one."""
    epoch: int
    """Rises with each lease of the queue."""
    enqueued_ms: int
    """Epoch milliseconds of the enqueue, or of the redrive."""
    leases: int
    """How often it has been leased since then, this one included."""
    note: bytes = b""
    """What the consumer noted last."""


class Leased(msgspec.Struct, frozen=True, kw_only=True):
    leases: list[Lease]
    next_due_ms: int | None
    """When the next event becomes due that is not due yet (epoch milliseconds), as far as this call has looked; None: none waits."""


class Dead(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was given up."""

    event: Event
    enqueued_ms: int
    killed_ms: int
    reason: str
    """The consumer's word for the rule that ended it."""
    detail: str
    """For people."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """An event that waits or is leased."""

    event: Event
    enqueued_ms: int
    due_ms: int
    """When it can be leased: of a leased event the end of its lease."""
    leases: int


class FunctionStats(msgspec.Struct, frozen=True, kw_only=True):
    """One function's part of the queue."""

    function_uid: str
    function_arn: str
    """Unqualified."""
    depth: int
    """Events that wait or are leased."""
    depth_bytes: int
    oldest_ms: int | None
    """Enqueue of the oldest of them, epoch milliseconds."""
    dead: int
    done: int
    """Acknowledged so far."""
    killed: int
    """Given up so far."""


class EventQueue(Protocol):
    async def enqueue(self, event: Event, /, *, delay_ms: int = 0, dedupe: str = "") -> str:
        """Store an event that is due after ``delay_ms``. Returns its id once it is durable; with a ``dedupe`` key that the function used
        within :data:`DEDUPE_MS`, the id of that earlier event, and nothing is stored. Raises QueueFull, StoreUnavailable."""

    async def lease(self, limit: int, /, *, lease_ms: int, share: int, rooms: Mapping[str, int]) -> Leased:
        """Up to ``limit`` due events for ``lease_ms``, the longest due first within a function, one of each function in turn, beginning
        behind where the last call ended. Of a function at most ``rooms[uid]``, and ``share`` where it is not named."""

    async def extend(self, lease: Lease, /, *, lease_ms: int, note: bytes | None = None) -> None:
        """Keep a lease for ``lease_ms`` from now, and with ``note`` the consumer's progress. Raises LeaseLost."""

    async def ack(self, lease: Lease, /) -> None:
        """Done: the event leaves the queue. Raises LeaseLost."""

    async def nack(self, lease: Lease, /, *, after_ms: int, note: bytes | None = None) -> None:
        """Back into the queue, due after ``after_ms``. Raises LeaseLost."""

    async def kill(self, lease: Lease, /, *, reason: str, detail: str = "") -> None:
        """Given up: the event becomes a dead letter. Raises LeaseLost."""

    async def find(self, event_id: str, /) -> Waiting | Dead | None:
        """One event, wherever it is."""

    async def dead_letters(self, function_uid: str, /, *, after: str = "", limit: int = 100) -> list[Dead]:
        """Dead letters in the order in which they were given up, those behind event ``after`` only."""

    async def redrive(self, function_uid: str, /, *, event_id: str = "") -> int:
        """Make dead letters wait again as if they had been enqueued now; all, or one. Returns how many."""

    async def purge(self, function_uid: str, /, *, dead: bool, event_id: str = "") -> int:
        """Drop dead letters, or (``dead`` false) what waits or is leased; all, or one. Returns how many."""

    async def expire(self, before_ms: int, /) -> int:
        """Drop dead letters given up before this moment (epoch milliseconds), and what was kept of functions that have had nothing here
        since. Returns how many dead letters went."""

    async def stats(self) -> list[FunctionStats]:
        """Every function that has, or lately had, anything here."""

    async def close(self) -> None: ...


def unqualified(function_arn: str) -> str:
    """The ARN of the function itself."""
    return ":".join(function_arn.split(":", 7)[:7])
