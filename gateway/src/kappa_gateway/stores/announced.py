"""A ResourceStore that tells this process of its own writes before whoever wrote hears that they are done.

A watch brings the same changes a little later. Without this, an invocation that follows an UpdateAlias or DeleteFunction of the same
client could still be served by what was before. Writes of other gateways come through the watch alone. Listeners must therefore take
a change twice, and an older one after a newer one. It refuses to hold anything back: reads and watches go straight to the store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from kappa_core.ports.store import Change, ResourceStore
from kappa_core.resources import AccountId, Key, Kind, Region, Resource

R = TypeVar("R", bound=Resource)


class AnnouncedStore:
    """Implements ResourceStore over another one. ``listeners`` are called in the event loop, in order, and must not raise."""

    def __init__(self, store: ResourceStore) -> None:
        self._store = store
        self.listeners: list[Callable[[Change], None]] = []

    async def create(self, resource: R, /) -> R:
        created = await self._store.create(resource)
        self._tell(Change("PUT", created.key, created))
        return created

    async def get(self, key: Key, /) -> Resource | None:
        return await self._store.get(key)

    async def update(self, resource: R, /) -> R:
        updated = await self._store.update(resource)
        self._tell(Change("PUT", updated.key, updated))
        return updated

    async def delete(self, key: Key, /, *, resource_version: str | None = None) -> Resource:
        last = await self._store.delete(key, resource_version=resource_version)
        self._tell(Change("DELETE", key, last))
        return last

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
        return await self._store.list(kind, account=account, region=region, name=name, after=after, limit=limit)

    async def allocate(self, counter: str, /) -> int:
        return await self._store.allocate(counter)

    def watch(self, *, replay: bool = True) -> AsyncGenerator[Change, None]:
        return self._store.watch(replay=replay)

    async def close(self) -> None:
        await self._store.close()

    def _tell(self, change: Change) -> None:
        for listener in self.listeners:
            listener(change)
