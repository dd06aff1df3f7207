"""LogStore on one SQLite file: a ring of bounded size that takes tens of thousands of lines a second beside the invocations.

``append`` only puts events into a buffer; every ``FLUSH_SECONDS`` the buffer goes to the writer thread, which packs the events of a
group into a few rows (:mod:`kappa_gateway.stores.ring`). So a line costs a fraction of a microsecond on the loop and no row of its
own, and evicting the oldest is deleting a few rows. Reads unpack the rows that can hold what is asked for.

It refuses to delay or fail its caller: what does not fit into the buffer, or cannot be written because the disk is full, is dropped
and counted. It is not durable against power loss (synchronous=NORMAL), and begins anew where its file is damaged.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Final, Self

from kappa_core.ports.logs import LogEvent, LogGroup, LogQuery
from kappa_core.ports.store import StoreUnavailable
from kappa_core.resources import AccountId, Region
from kappa_gateway.clock import epoch_ms
from kappa_gateway.stores import ring
from kappa_gateway.stores.database import Database, DatabaseDamaged, open_database, pause

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.1
BUFFER_BYTES = 32 * 1024 * 1024
"""Of events that are not written yet; more is dropped."""
POLL_SECONDS = 0.2
"""After which a follower sees what another process wrote; own events wake it."""
_EVENTS_PER_READ = 1000


class SqliteLogStore:
    """See the module. Use :meth:`open`; belongs to the event loop it was opened on."""

    missing: Final[frozenset[str]] = frozenset()

    def __init__(self, *, bounds: ring.Bounds, buffer_bytes: int, clock_ms: Callable[[], int]) -> None:
        self.dropped = 0
        """Events that were not stored: the buffer was full or the file could not be written."""
        self._bounds = bounds
        self._buffer_bytes = buffer_bytes
        self._clock_ms = clock_ms
        self._database: Database
        self._buffer: dict[LogGroup, list[LogEvent]] = {}
        self._unwritten_bytes = 0
        self._buffered_bytes = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushes: set[asyncio.Task[None]] = set()
        self._followers: set[asyncio.Event] = set()
        self._closing = asyncio.Event()
        self._failing = False

    @classmethod
    async def open(
        cls,
        path: Path,
        /,
        *,
        bounds: ring.Bounds = ring.Bounds(),  # noqa: B008 - frozen
        buffer_bytes: int = BUFFER_BYTES,
        clock_ms: Callable[[], int] = epoch_ms,
    ) -> Self:
        """Open or create the store; a damaged file is moved aside. Raises StoreUnavailable."""
        store = cls(bounds=bounds, buffer_bytes=buffer_bytes, clock_ms=clock_ms)
        try:
            store._database = await open_database(path, layout=ring.LAYOUT, on_commit=store._wake)
        except DatabaseDamaged as error:
            aside = await asyncio.to_thread(_move_aside, path)
            logger.warning("%s. Function logs begin anew, the damaged file is %s.", error, aside)
            store._database = await open_database(path, layout=ring.LAYOUT, on_commit=store._wake)
        return store

    def append(self, group: LogGroup, events: Sequence[LogEvent], /) -> None:
        if not events:
            return
        size = sum(len(event.message) for event in events) + ring.EVENT_OVERHEAD * len(events)
        if self._closing.is_set() or self._unwritten_bytes + size > self._buffer_bytes:
            self.dropped += len(events)
            return
        self._unwritten_bytes += size
        self._buffered_bytes += size
        self._buffer.setdefault(group, []).extend(events)
        if self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush)

    async def read(self, query: LogQuery, /) -> list[LogEvent]:
        await self._written()

        def work(connection: sqlite3.Connection) -> list[LogEvent]:
            found: list[LogEvent] = []
            for event in ring.events(
                connection,
                query.group,
                start_ms=query.start_ms,
                end_ms=query.end_ms,
                after_event_id=query.after_event_id,
                newest_first=query.newest,
            ):
                if len(found) >= query.limit:
                    break
                if query.selects(event):
                    found.append(event)
            return found[::-1] if query.newest else found

        return await self._database.read(work)

    def follow(self, group: LogGroup, /, *, start_ms: int | None = None) -> AsyncGenerator[LogEvent, None]:
        if self._closing.is_set():
            raise StoreUnavailable(f"{self._database.path} is closed")
        begin: asyncio.Task[str] | None = None
        if start_ms is None:
            # The writer takes its work in order: what is buffered now comes before this question, what follows behind it.
            self._flush()
            begin = asyncio.get_running_loop().create_task(self._database.write(ring.newest_event_id))
        return self._follow(group, start_ms=start_ms, begin=begin)

    async def groups(self, account: AccountId, region: Region, /, *, prefix: str = "") -> list[LogGroup]:
        await self._written()

        return await self._database.read(lambda connection: ring.groups(connection, account, region, prefix=prefix))

    async def delete_group(self, group: LogGroup, /) -> None:
        await self._written()
        await self._database.write(lambda connection: ring.delete_group(connection, group))

    async def close(self) -> None:
        """Write what is buffered, end the followers, close the file. Idempotent."""
        self._closing.set()
        await self._written()
        self._wake()
        await self._database.close()

    # -- buffer to file --------------------------------------------------------------------------------------------
    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if not self._buffer:
            return
        buffer, size = self._buffer, self._buffered_bytes
        self._buffer, self._buffered_bytes = {}, 0
        flush = asyncio.get_running_loop().create_task(self._write(buffer, size))
        self._flushes.add(flush)
        flush.add_done_callback(self._flushes.discard)

    async def _written(self) -> None:
        self._flush()
        if self._flushes:
            await asyncio.wait(self._flushes)

    async def _write(self, buffer: dict[LogGroup, list[LogEvent]], size: int) -> None:
        now = self._clock_ms()
        try:
            await self._database.write(lambda connection: ring.store(connection, buffer, now_ms=now, bounds=self._bounds))
            self._failing = False
        except StoreUnavailable as error:
            self.dropped += sum(len(events) for events in buffer.values())
            if not self._failing:
                logger.warning("Function logs are being dropped: %s", error)
            self._failing = True
        finally:
            self._unwritten_bytes -= size

    def _wake(self) -> None:
        for woken in self._followers:
            woken.set()

    async def _follow(
        self, group: LogGroup, *, start_ms: int | None, begin: asyncio.Task[str] | None
    ) -> AsyncGenerator[LogEvent, None]:
        woken = asyncio.Event()
        self._followers.add(woken)
        try:
            cursor = None if begin is None else await begin
            while not self._closing.is_set():
                woken.clear()
                try:
                    events = await self.read(LogQuery(group, start_ms=start_ms, after_event_id=cursor, limit=_EVENTS_PER_READ))
                except StoreUnavailable:
                    events = []  # closing, or tried again below; dropped lines are reported by the writer
                for event in events:
                    cursor = event.event_id
                    yield event
                if not events:
                    await pause(woken, at_most=POLL_SECONDS)
        finally:
            self._followers.discard(woken)


def _move_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged")
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return path.replace(aside)
