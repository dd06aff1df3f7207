"""EventQueue on one SQLite file of its own: an enqueue is answered after the fsync that carried it, and many share one.

What is stored how is in :mod:`kappa_gateway.stores.queue_rows`; threads, group commit and the words for a full disk come from
:mod:`kappa_gateway.stores.database`. Several processes may have the file open. What touches many rows is done in slices, so that an
enqueue never waits for the purge of a million events.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from kappa_core.ports.queue import Bounds, Dead, Event, FunctionStats, Lease, Leased, Waiting
from kappa_gateway.clock import epoch_ms
from kappa_gateway.stores import queue_rows
from kappa_gateway.stores.database import Database, open_database
from kappa_gateway.stores.gathering import Gathering

SLICE: Final = 2_000
"""Rows that a purge or redrive touches in one transaction."""


class SqliteEventQueue:
    """See the module. Use :meth:`open`; belongs to the event loop it was opened on."""

    def __init__(self, database: Database, *, bounds: Bounds, clock_ms: Callable[[], int]) -> None:
        self._database = database
        self._bounds = bounds
        self._clock_ms = clock_ms
        self._turn = -1
        self._enqueues = Gathering[queue_rows.Arrival, str](self._enqueue)
        self._acks = Gathering[Lease, None](self._ack)

    @classmethod
    async def open(
        cls,
        path: Path,
        /,
        *,
        alone: bool,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        clock_ms: Callable[[], int] = epoch_ms,
    ) -> Self:
        """Open or create the queue. ``alone``: no other process works on it, so that leases from before are over at once instead of
        when they expire. Raises StoreUnavailable."""
        queue = cls(await open_database(path, layout=queue_rows.LAYOUT), bounds=bounds, clock_ms=clock_ms)
        if alone:
            try:
                await queue._write(queue_rows.release)
            except BaseException:
                await queue.close()
                raise
        return queue

    async def enqueue(self, event: Event, /, *, delay_ms: int = 0, dedupe: str = "") -> str:
        now = self._clock_ms()
        return await self._enqueues(queue_rows.Arrival(event, now, now + delay_ms, dedupe))

    async def lease(self, limit: int, /, *, lease_ms: int, share: int, rooms: Mapping[str, int]) -> Leased:
        def work(connection: sqlite3.Connection) -> tuple[Leased, int]:
            # The time is read when it is written: a lease must not be half over because the writer was busy.
            return queue_rows.lease(
                connection, limit, now=self._clock_ms(), lease_ms=lease_ms, share=share, rooms=rooms, turn=self._turn
            )

        leased, self._turn = await self._database.write(work)
        return leased

    async def extend(self, lease: Lease, /, *, lease_ms: int, note: bytes | None = None) -> None:
        await self._write(lambda connection, *, now: queue_rows.extend(connection, lease, due_ms=now + lease_ms, note=note))

    async def ack(self, lease: Lease, /) -> None:
        await self._acks(lease)

    async def nack(self, lease: Lease, /, *, after_ms: int, note: bytes | None = None) -> None:
        await self._write(lambda connection, *, now: queue_rows.nack(connection, lease, due_ms=now + after_ms, note=note))

    async def kill(self, lease: Lease, /, *, reason: str, detail: str = "") -> None:
        await self._write(lambda connection, *, now: queue_rows.kill(connection, lease, reason=reason, detail=detail, now=now))

    async def find(self, event_id: str, /) -> Waiting | Dead | None:
        return await self._database.read(lambda connection: queue_rows.find(connection, event_id))

    async def dead_letters(self, function_uid: str, /, *, after: str = "", limit: int = 100) -> list[Dead]:
        return await self._database.read(
            lambda connection: queue_rows.dead_letters(connection, function_uid, after=after, limit=limit)
        )

    async def redrive(self, function_uid: str, /, *, event_id: str = "") -> int:
        def work(connection: sqlite3.Connection) -> int:
            return queue_rows.redrive(connection, function_uid, event_id=event_id, now=self._clock_ms(), limit=SLICE)

        return await self._sliced(work)

    async def purge(self, function_uid: str, /, *, dead: bool, event_id: str = "") -> int:
        def work(connection: sqlite3.Connection) -> int:
            return queue_rows.purge(connection, function_uid, dead=dead, event_id=event_id, now=self._clock_ms(), limit=SLICE)

        return await self._sliced(work)

    async def expire(self, before_ms: int, /) -> int:
        def work(connection: sqlite3.Connection) -> int:
            return queue_rows.expire(connection, before_ms, now=self._clock_ms(), limit=SLICE)

        return await self._sliced(work)

    async def stats(self) -> list[FunctionStats]:
        return await self._database.read(queue_rows.stats)

    async def close(self) -> None:
        """Finish the writes under way, then close the file. Idempotent."""
        await self._database.close()
        await self._enqueues.idle()
        await self._acks.idle()

    async def _enqueue(self, arrivals: Sequence[queue_rows.Arrival]) -> Sequence[str | Exception]:
        return await self._database.write(lambda connection: queue_rows.enqueue(connection, arrivals, bounds=self._bounds))

    async def _ack(self, leases: Sequence[Lease]) -> Sequence[Exception | None]:
        return await self._database.write(lambda connection: queue_rows.ack(connection, leases, now=self._clock_ms()))

    async def _write(self, work: Callable[..., None]) -> None:
        await self._database.write(lambda connection: work(connection, now=self._clock_ms()))

    async def _sliced(self, work: Callable[[sqlite3.Connection], int]) -> int:
        total = 0
        while True:
            done = await self._database.write(work)
            total += done
            if done < SLICE:
                return total
