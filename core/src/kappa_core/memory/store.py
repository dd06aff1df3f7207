"""ResourceStore in a dictionary: optimistic concurrency, ordered listing and watches exactly as the durable drivers have them.

Every write is one step without an await in it, so that tasks of one event loop see writes in one order. Nothing is copied:
resources are immutable values by agreement (:mod:`kappa_core.resources`).
"""

from __future__ import annotations

import asyncio
import builtins
import uuid
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import cast

import msgspec

from kappa_core.ports.store import AlreadyExists, Change, Conflict, NotFound, R, StoreUnavailable, key_order
from kappa_core.resources import AccountId, Key, Kind, Meta, Region, Resource
from kappa_core.rules.revision import edition_after


class _Watch:
    """What one watcher has not taken yet."""

    def __init__(self) -> None:
        self.pending: deque[Change] = deque()
        self.woken = asyncio.Event()


class MemoryResourceStore:
    """The twin of every durable ResourceStore."""

    def __init__(self, *, clock_ms: Callable[[], int], new_uid: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        self._clock_ms = clock_ms
        self._new_uid = new_uid
        self._resources: dict[Key, Resource] = {}
        self._counters: dict[str, int] = {}
        self._sequence = 0
        self._closed = False
        # A watch that was never iterated or closed disappears with its generator.
        self._watches: weakref.WeakSet[_Watch] = weakref.WeakSet()

    async def create(self, resource: R, /) -> R:
        self._check_open()
        if resource.key in self._resources:
            raise AlreadyExists(f"{resource.key} exists")
        now = self._clock_ms()
        meta = Meta(
            uid=self._new_uid(),
            resource_version=self._next_version(),
            generation=1,
            created_ms=now,
            updated_ms=now,
        )
        return self._put(msgspec.structs.replace(resource, meta=meta))

    async def get(self, key: Key, /) -> Resource | None:
        self._check_open()
        return self._resources.get(key)

    async def update(self, resource: R, /) -> R:
        self._check_open()
        stored = self._current(resource.key, resource_version=resource.meta.resource_version)
        meta = msgspec.structs.replace(
            stored.meta,
            resource_version=self._next_version(),
            generation=stored.meta.generation + 1,
            edition=edition_after(stored, resource),
            updated_ms=self._clock_ms(),
        )
        return self._put(msgspec.structs.replace(resource, meta=meta))

    async def delete(self, key: Key, /, *, resource_version: str | None = None) -> Resource:
        self._check_open()
        stored = self._current(key, resource_version=resource_version)
        self._next_version()
        del self._resources[key]
        self._tell(Change("DELETE", key, stored))
        return stored

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
        self._check_open()
        keys = sorted(
            (
                key
                for key in self._resources
                if key.kind == kind
                and (account is None or key.account == account)
                and (region is None or key.region == region)
                and (name is None or key.name == name)
                and (after is None or key_order(key)[1:] > key_order(after)[1:])
            ),
            key=key_order,
        )
        return [self._resources[key] for key in keys[:limit]]

    async def allocate(self, counter: str, /) -> int:
        self._check_open()
        self._counters[counter] = self._counters.get(counter, 0) + 1
        return self._counters[counter]

    def watch(self, *, replay: bool = True) -> AsyncGenerator[Change, None]:
        self._check_open()
        watch = _Watch()
        if replay:
            keys = sorted(self._resources, key=key_order)
            watch.pending.extend(Change("PUT", key, self._resources[key]) for key in keys)
        self._watches.add(watch)
        return self._deliver(watch)

    async def close(self) -> None:
        self._closed = True
        for watch in builtins.list(self._watches):
            watch.woken.set()

    async def _deliver(self, watch: _Watch) -> AsyncGenerator[Change, None]:
        try:
            while True:
                while watch.pending:
                    yield watch.pending.popleft()
                if self._closed:
                    return
                watch.woken.clear()
                await watch.woken.wait()
        finally:
            self._watches.discard(watch)

    def _current(self, key: Key, *, resource_version: str | None) -> Resource:
        stored = self._resources.get(key)
        if stored is None:
            raise NotFound(f"{key} does not exist")
        if resource_version is not None and resource_version != stored.meta.resource_version:
            raise Conflict(f"{key} changed: it is at {stored.meta.resource_version}, not at {resource_version}")
        return stored

    def _put(self, resource: R) -> R:
        self._resources[resource.key] = cast(Resource, resource)
        self._tell(Change("PUT", resource.key, cast(Resource, resource)))
        return resource

    def _tell(self, change: Change) -> None:
        for watch in builtins.list(self._watches):
            watch.pending.append(change)
            watch.woken.set()

    def _next_version(self) -> str:
        self._sequence += 1
        return str(self._sequence)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
