"""ResourceStore on one SQLite file, which any number of gateways on the machine may share.

Writes are synced before they return (WAL, synchronous=FULL, group commit: :mod:`kappa_gateway.stores.database`), tables and
statements are in :mod:`kappa_gateway.stores.rows`. A watch (:mod:`kappa_gateway.stores.watching`) is woken by own commits at once
and by those of other processes within ``POLL_SECONDS``, which SQLite shows as a new data version. It refuses to lose an
acknowledged write and to show one that is not durable.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import sqlite3
import uuid
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Self

import msgspec

from kappa_core.ports.store import Change, R, StoreUnavailable
from kappa_core.resources import AccountId, Key, Kind, Meta, Region, Resource
from kappa_core.rules.revision import edition_after
from kappa_gateway.clock import epoch_ms
from kappa_gateway.stores import rows
from kappa_gateway.stores.database import Database, explain, open_database, pause
from kappa_gateway.stores.watching import Watcher

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
RETRY_SECONDS = 1.0
"""Between two reads of a watch while the file cannot be read."""
CHANGES_KEPT = 4096
"""Entries of the change log; a watcher that falls further behind is told the difference instead."""


class SqliteResourceStore:
    """See the module. Use :meth:`open`; belongs to the event loop it was opened on."""

    def __init__(self, *, clock_ms: Callable[[], int], new_uid: Callable[[], str], changes_kept: int) -> None:
        self._clock_ms = clock_ms
        self._new_uid = new_uid
        self._changes_kept = changes_kept
        self._database: Database
        self._closing = asyncio.Event()
        self._wakeups: set[asyncio.Event] = set()
        self._poll_connection: sqlite3.Connection | None = None
        self._poll_timer: asyncio.TimerHandle | None = None
        self._data_version = 0

    @classmethod
    async def open(
        cls,
        path: Path,
        /,
        *,
        clock_ms: Callable[[], int] = epoch_ms,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        changes_kept: int = CHANGES_KEPT,
    ) -> Self:
        """Open or create the store. Raises StoreUnavailable with one line that says what to do."""
        store = cls(clock_ms=clock_ms, new_uid=new_uid, changes_kept=changes_kept)
        store._database = await open_database(path, layout=rows.LAYOUT, on_commit=store._wake)
        return store

    # -- writes ----------------------------------------------------------------------------------------------------
    async def create(self, resource: R, /) -> R:
        def work(connection: sqlite3.Connection) -> R:
            rows.absent(connection, resource.key)
            now = self._clock_ms()
            meta = Meta(
                uid=self._new_uid(),
                resource_version=str(rows.next_sequence(connection)),
                generation=1,
                created_ms=now,
                updated_ms=now,
            )
            created = msgspec.structs.replace(resource, meta=meta)
            rows.put(connection, created, changes_kept=self._changes_kept)
            return created

        return await self._database.write(work)

    async def update(self, resource: R, /) -> R:
        def work(connection: sqlite3.Connection) -> R:
            stored = rows.current(connection, resource.key, resource_version=resource.meta.resource_version)
            meta = msgspec.structs.replace(
                stored.meta,
                resource_version=str(rows.next_sequence(connection)),
                generation=stored.meta.generation + 1,
                edition=edition_after(stored, resource),
                updated_ms=self._clock_ms(),
            )
            updated = msgspec.structs.replace(resource, meta=meta)
            rows.put(connection, updated, changes_kept=self._changes_kept)
            return updated

        return await self._database.write(work)

    async def delete(self, key: Key, /, *, resource_version: str | None = None) -> Resource:
        def work(connection: sqlite3.Connection) -> Resource:
            stored = rows.current(connection, key, resource_version=resource_version)
            sequence = rows.next_sequence(connection)
            rows.remove(connection, stored, sequence=sequence, changes_kept=self._changes_kept)
            return stored

        return await self._database.write(work)

    async def allocate(self, counter: str, /) -> int:
        return await self._database.write(lambda connection: rows.allocate(connection, counter))

    # -- reads -----------------------------------------------------------------------------------------------------
    async def get(self, key: Key, /) -> Resource | None:
        return await self._database.read(lambda connection: rows.stored(connection, key))

    async def list(
        self,
        kind: Kind,
        /,
        *,
        account: AccountId | None = None,
        region: Region | None = None,
        name: str | None = None,
        after: Key | None = None,
        limit: int | None = None,
    ) -> list[Resource]:
        return await self._database.read(
            lambda connection: rows.select(connection, kind, account=account, region=region, name=name, after=after, limit=limit)
        )

    def watch(self, *, replay: bool = True) -> AsyncGenerator[Change, None]:
        if self._closing.is_set():
            raise StoreUnavailable(f"{self._database.path} is closed")
        if self._poll_connection is None:
            self._poll_connection = self._database.connect_reader()
        # Read now, on the loop, and not at the first step of the generator: changes count from this call on. Without replay
        # there is no other moment; it is one cached page.
        try:
            cursor = rows.head(self._poll_connection)
        except sqlite3.Error as error:
            raise explain(self._database.path, error) from error
        return self._watch(Watcher(cursor=cursor, replay=replay))

    async def close(self) -> None:
        """Finish the writes under way, end the watches, close the file. Idempotent."""
        self._closing.set()
        self._wake()
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None
        await self._database.close()
        if self._poll_connection is not None:
            self._poll_connection.close()
            self._poll_connection = None

    # -- watching --------------------------------------------------------------------------------------------------
    async def _watch(self, watcher: Watcher) -> AsyncGenerator[Change, None]:
        woken = asyncio.Event()
        self._wakeups.add(woken)
        self._schedule_poll()
        interrupted = False
        try:
            while not self._closing.is_set():
                woken.clear()
                changes: builtins.list[Change] = []
                try:
                    changes = await self._database.read(watcher.read)
                    interrupted = False
                except StoreUnavailable as error:
                    if not interrupted and not self._closing.is_set():
                        logger.warning("Changes of resources cannot be read, will try again: %s", error)
                    interrupted = True
                for change in changes:
                    yield change
                if not changes:
                    await pause(woken, at_most=RETRY_SECONDS if interrupted else None)
        finally:
            self._wakeups.discard(woken)

    def _wake(self) -> None:
        for woken in self._wakeups:
            woken.set()

    def _schedule_poll(self) -> None:
        if self._poll_timer is None and self._wakeups and not self._closing.is_set():
            self._poll_timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)

    def _poll(self) -> None:
        """Runs on the loop: SQLite answers this from shared memory, without waiting for a lock or the disk."""
        self._poll_timer = None
        if self._poll_connection is None:
            return
        try:
            version = int(self._poll_connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            version = -1  # wakes the watches, whose own read says what is wrong
        if version != self._data_version:
            self._data_version = version
            self._wake()
        self._schedule_poll()
