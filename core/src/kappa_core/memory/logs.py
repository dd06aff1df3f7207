"""LogStore in lists, one for each group, each keeping its newest events only.

Decides with :func:`selected` what a read returns, as the drivers do, so that all of them filter alike.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

import msgspec

from kappa_core.ports.logs import LogEvent, LogGroup, LogQuery, event_id
from kappa_core.resources import AccountId, Region

DEFAULT_EVENTS_PER_GROUP = 100_000
EVENT_OVERHEAD = 512
"""Bytes that an event takes beside its message, about."""
ARRIVALS_PER_MS = 1_000_000
"""Ids of one millisecond; more than can arrive."""


class _Follower:
    """What one follower has not taken yet."""

    def __init__(self, group: LogGroup, *, at_most: int) -> None:
        self.group = group
        # Who follows and does not read loses the oldest lines, and not the gateway its memory.
        self.pending: deque[LogEvent] = deque(maxlen=at_most)
        self.woken = asyncio.Event()


class MemoryLogStore:
    """The twin of every LogStore, and the one of gateways in a cluster. ``events_per_group`` and ``total_bytes`` (of messages and
    :data:`EVENT_OVERHEAD`) bound what is kept; the oldest go first. Ids begin with the time of arrival and end with ``origin``, so
    that those of several gateways (of different origins) stand in one order and are never the same."""

    missing: Final[frozenset[str]] = frozenset()

    def __init__(
        self,
        *,
        clock_ms: Callable[[], int],
        origin: int = 0,
        events_per_group: int = DEFAULT_EVENTS_PER_GROUP,
        total_bytes: int | None = None,
    ) -> None:
        self._clock_ms = clock_ms
        self._origin = origin
        self._events_per_group = events_per_group
        self._total_bytes = total_bytes
        self._bytes = 0
        self._order: deque[tuple[LogGroup, str]] = deque()
        """Group and event id of everything kept, and of what has gone from a full group since, oldest first."""
        self._groups: dict[LogGroup, deque[LogEvent]] = {}
        self._newest = 0
        """First part of the newest event's id."""
        self._closed = False
        self._dismissed = False
        self._followers: weakref.WeakSet[_Follower] = weakref.WeakSet()

    def append(self, group: LogGroup, events: Sequence[LogEvent], /) -> None:
        if self._closed or not events:
            return
        now = self._clock_ms()
        for event in events:
            self._newest = max(self._newest + 1, now * ARRIVALS_PER_MS)
            stored = msgspec.structs.replace(event, event_id=event_id(self._newest, self._origin), ingestion_ms=now)
            self._keep(group, stored)
            for follower in list(self._followers):
                if follower.group == group:
                    follower.pending.append(stored)
                    follower.woken.set()

    def _keep(self, group: LogGroup, event: LogEvent) -> None:
        kept = self._groups.setdefault(group, deque())
        kept.append(event)
        self._bytes += _size(event)
        if len(kept) > self._events_per_group:
            self._bytes -= _size(kept.popleft())
        if self._total_bytes is None:
            return
        self._order.append((group, event.event_id))
        while self._bytes > self._total_bytes:
            oldest, oldest_id = self._order.popleft()
            there = self._groups.get(oldest)
            if there and there[0].event_id == oldest_id:
                self._bytes -= _size(there.popleft())
                if not there:
                    del self._groups[oldest]

    async def read(self, query: LogQuery, /) -> list[LogEvent]:
        return query.page([event for event in self._groups.get(query.group, ()) if query.selects(event)])

    def follow(self, group: LogGroup, /, *, start_ms: int | None = None) -> AsyncGenerator[LogEvent, None]:
        follower = _Follower(group, at_most=self._events_per_group)
        if start_ms is not None:
            follower.pending.extend(event for event in self._groups.get(group, ()) if event.timestamp_ms >= start_ms)
        self._followers.add(follower)
        return self._deliver(follower, start_ms)

    async def groups(self, account: AccountId, region: Region, /, *, prefix: str = "") -> list[LogGroup]:
        return sorted(
            group
            for group in self._groups
            if group.account == account and group.region == region and group.name.startswith(prefix)
        )

    async def delete_group(self, group: LogGroup, /) -> None:
        self._bytes -= sum(map(_size, self._groups.pop(group, ())))

    def dismiss(self) -> None:
        """End the followers, and those that come later once they have what is stored; lines are still kept and read."""
        self._dismissed = True
        for follower in list(self._followers):
            follower.woken.set()

    async def close(self) -> None:
        self._closed = True
        for follower in list(self._followers):
            follower.woken.set()

    async def _deliver(self, follower: _Follower, start_ms: int | None) -> AsyncGenerator[LogEvent, None]:
        try:
            while True:
                while follower.pending:
                    event = follower.pending.popleft()
                    if start_ms is None or event.timestamp_ms >= start_ms:
                        yield event
                if self._closed or self._dismissed:
                    return
                follower.woken.clear()
                await follower.woken.wait()
        finally:
            self._followers.discard(follower)


def _size(event: LogEvent) -> int:
    return len(event.message) + EVENT_OVERHEAD
