"""The look at everything: every few minutes, and at once where a watch had to begin anew.

Events can be missed (a watch that expired while objects were deleted, a fault of a proxy), and a memory that is fed by events alone
would keep what is gone. A resync lists each collection, corrects the cache by it, and queues every object, so that whatever somebody
changed or deleted by hand is as it should be again. Where nothing is amiss it writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from kappa_crds.api import ApiError, Object
from kappa_operator.cache import Cache, Ref, ref_of, version_of
from kappa_operator.concerns import CONDITIONED
from kappa_operator.kinds import WATCHED, Watched

Change = Callable[[str, bool, Object], None]
"""Kind, whether it is gone, its last state; as a watch would have told it."""

_RETRY_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class ListingApi(Protocol):
    """What this module needs of the API."""

    async def list(
        self, path: str, *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> tuple[list[Object], str]: ...


class Resync:
    """:meth:`run` keeps the pace; :meth:`collection` is asked for by path."""

    def __init__(
        self,
        api: ListingApi,
        *,
        cache: Cache,
        namespaces: tuple[str, ...],
        hear: Change,
        enqueue: Callable[[Ref], None],
        seconds: float,
    ) -> None:
        self._api = api
        self._cache = cache
        self._hear = hear
        self._enqueue = enqueue
        self._seconds = seconds
        self._paths = {path: watched for watched in WATCHED.values() for path in watched.paths(namespaces)}
        self._due: set[str] = set()
        self._some = asyncio.Event()

    @property
    def paths(self) -> list[str]:
        """Of all collections."""
        return list(self._paths)

    def soon(self, path: str) -> None:
        """A watch of this collection began anew."""
        if path in self._paths:
            self._due.add(path)
            self._some.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._seconds
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await self._some.wait()
            except TimeoutError:
                due = loop.time() + self._seconds
                await self._everything()
                continue
            self._some.clear()
            for path in sorted(self._due):
                self._due.discard(path)
                await self._collection_or_warn(path)

    async def start(self) -> None:
        """List everything once, however long that takes."""
        for path in self._paths:
            while not await self._collection_or_warn(path):  # noqa: ASYNC110 - no event tells when another machine is back
                await asyncio.sleep(_RETRY_SECONDS)

    async def _everything(self) -> None:
        for path in self._paths:
            await self._collection_or_warn(path)
        for kind in (*CONDITIONED, "Namespace"):
            for thing in self._cache.of_kind(kind):
                self._enqueue(ref_of(kind, thing))

    async def _collection_or_warn(self, path: str) -> bool:
        try:
            await self.collection(path)
        except ApiError as error:
            log.warning("cannot list %s: %s", path, error)
            return False
        return True

    async def collection(self, path: str) -> None:
        """Correct the cache by a list. Raises ApiError."""
        watched = self._paths[path]
        things, version = await self._api.list(path, label_selector=watched.label_selector)
        there = set()
        for thing in things:
            thing |= {"apiVersion": watched.api_version, "kind": watched.kind}
            there.add(ref_of(watched.kind, thing))
            self._hear(watched.kind, False, thing)
        for thing in self._cache.of_kind(watched.kind):
            if (
                self._lies_in(path, watched, thing)
                and ref_of(watched.kind, thing) not in there
                and version_of(thing) <= int(version)
            ):
                self._hear(watched.kind, True, thing)

    def _lies_in(self, path: str, watched: Watched, thing: Object) -> bool:
        return path in watched.paths([thing["metadata"].get("namespace", "")]) or path in watched.paths([])
