"""A collection of the Kubernetes API in memory, as far as it can be listed and watched: versions, bookmarks, compaction, faults.

Everything is scripted by the test: ``fail_next`` makes the next request fail, ``cut`` breaks all watches as a lost connection
does, ``end`` ends them, ``freeze`` keeps them open and silent, ``compact`` forgets the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from kappa_crds.api import ApiError, Expired, Object, Unavailable


class WatchedTwin:
    """Implements :class:`kappa_crds.api.WatchedApi` for one collection."""

    def __init__(self) -> None:
        self.lists: list[str] = []
        """Paths that were listed."""
        self.watches: list[str] = []
        """Versions that were watched from."""
        self.fail_next: list[ApiError] = []
        self._objects: dict[tuple[str, str], Object] = {}
        self._history: list[tuple[int, Object]] = []
        self._version = 0
        self._uids = 0
        self._compacted = 0
        self._cuts = 0
        self._ends = 0
        self._frozen = False
        self._woken = asyncio.Event()

    # -- what the test does --------------------------------------------------------------------------------------------
    def put(self, name: str, *, namespace: str = "n", **fields: object) -> Object:
        """Create or change an object."""
        known = self._objects.get((namespace, name))
        if known is None:
            self._uids += 1
        self._version += 1
        metadata = {
            "namespace": namespace,
            "name": name,
            "uid": known["metadata"]["uid"] if known else f"uid-{self._uids}",
            "resourceVersion": str(self._version),
            "managedFields": [{"manager": "test", "fieldsV1": {"f:spec": {}}}],
        }
        obj = {"metadata": metadata, **fields}
        self._objects[namespace, name] = obj
        self._tell("ADDED" if known is None else "MODIFIED", obj)
        return obj

    def remove(self, name: str, *, namespace: str = "n") -> None:
        obj = self._objects.pop((namespace, name))
        self._version += 1
        self._tell("DELETED", {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}})

    def bookmark(self) -> None:
        """As after changes of other collections."""
        self._version += 1
        self._tell("BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}})

    def cut(self) -> None:
        self._cuts += 1
        self._wake()

    def end(self) -> None:
        """As the API server does after the time that was asked for."""
        self._ends += 1
        self._wake()

    def freeze(self, *, frozen: bool = True) -> None:
        self._frozen = frozen
        self._wake()

    def compact(self) -> None:
        self._compacted = self._version
        self._history.clear()

    # -- what the informer calls ---------------------------------------------------------------------------------------
    async def list(
        self, path: str, *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> tuple[list[Object], str]:
        self.lists.append(path)
        self._fail()
        return [*self._objects.values()], str(self._version)

    async def watch(
        self,
        path: str,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncGenerator[Object, None]:
        self.watches.append(resource_version)
        self._fail()
        position, cuts, ends = int(resource_version), self._cuts, self._ends
        while True:
            if cuts != self._cuts:
                raise Unavailable("cut")
            if ends != self._ends:
                return
            if position < self._compacted:
                raise Expired("too old resource version")
            news = [] if self._frozen else [entry for entry in self._history if entry[0] > position]
            for version, event in news:
                position = version
                yield event
            if not news:
                await self._woken.wait()

    def _fail(self) -> None:
        if self.fail_next:
            raise self.fail_next.pop(0)

    def _tell(self, type_: str, obj: Object) -> None:
        self._history.append((self._version, {"type": type_, "object": obj}))
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = asyncio.Event()
