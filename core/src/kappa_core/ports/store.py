"""ResourceStore: the durable home of resources, shaped so that SQLite and the Kubernetes API can both be it.

Guarantees that every driver gives (``tests/support/resource_store_promises.py``): a write that returned is durable and visible to
every reader of every process at once; writes to one key are serialised by ``resource_version``; a watch delivers every change
after its start exactly once and in order per key, and never skips to a later state without the earlier one having been visible or
superseded. There are no transactions over several keys: rules are written so that each single write leaves a valid whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, Protocol, TypeVar

import msgspec

from kappa_core.resources import AccountId, Key, Kind, Region, Resource

R = TypeVar("R", bound=Resource)


class StoreError(Exception):
    """Base of what a ResourceStore raises. Rejected and OwnedElsewhere come only from backends that others write to as well."""


class AlreadyExists(StoreError):
    """create: the key is taken."""


class NotFound(StoreError):
    """update or delete: nothing is there."""


class Conflict(StoreError):
    """update or delete: the resource changed since it was read."""


class StoreUnavailable(StoreError):
    """The backend cannot be reached or is full. Nothing was written, unless the connection was lost while it was at it."""


class Rejected(StoreError):
    """create or update: the backend will not take this resource, now or later; the message says why, for the caller."""


class OwnedElsewhere(StoreError):
    """update: somebody else, such as a GitOps controller, owns a part that would change; the message names who and what."""


class Change(msgspec.Struct, frozen=True):
    """One event of a watch."""

    type: Literal["PUT", "DELETE"]
    key: Key
    resource: Resource
    """After the change; for DELETE the last state."""


def key_order(key: Key) -> tuple[str, str, str, str, int, int, str]:
    """Sort key of :meth:`ResourceStore.list`: by member, a ``sub`` of digits only by its number and before all others."""
    numeric = key.sub.isascii() and key.sub.isdigit()
    return (
        key.kind,
        key.account,
        key.region,
        key.name,
        0 if numeric else 1,
        int(key.sub) if numeric else 0,
        key.sub,
    )


class ResourceStore(Protocol):
    async def create(self, resource: R, /) -> R:
        """Store a new resource and return it with its metadata. Raises AlreadyExists, Rejected, StoreUnavailable."""

    async def get(self, key: Key, /) -> Resource | None:
        """Read-after-write through any process. Raises StoreUnavailable."""

    async def update(self, resource: R, /) -> R:
        """Replace; ``resource.meta.resource_version`` must be current. Raises NotFound, Conflict, OwnedElsewhere, Rejected,
        StoreUnavailable. A driver may make no change, and tell none, where nothing differs."""

    async def delete(self, key: Key, /, *, resource_version: str | None = None) -> Resource:
        """Remove and return the last state. Raises NotFound, Conflict (if a version is named and not current)."""

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
        """Resources in key order (``sub`` that is all digits sorts by number), those behind ``after`` only, at most ``limit``."""

    async def allocate(self, counter: str, /) -> int:
        """Next number of a named high-water mark, 1 first. Durable, never reused, survives deletion of what it numbered."""

    def watch(self, *, replay: bool = True) -> AsyncGenerator[Change, None]:
        """All changes from this call on; with ``replay`` first a PUT for everything there is. Ends only by being closed, itself
        or with the store. A watcher that falls far behind may miss superseded states, never the newest one or a DELETE."""

    async def close(self) -> None: ...
