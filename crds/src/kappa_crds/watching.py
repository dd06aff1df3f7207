"""A collection of the Kubernetes API kept in memory: list, then watch for ever.

An :class:`Informer` is what the gateway's store and index, the scaler's provider and the operator learn of changes by. It begins with
a list, follows with a watch and, whenever that ends (timeouts, lost connections, a frozen stream), resumes behind the last event it
saw. Only where the API server has compacted that version does it list again; it then tells the difference, deletions included, so
that whoever listens never has to ask. Bookmarks keep the position fresh and prove that the stream lives.

It refuses to invent: between a change and the event about it the memory is behind, usually by milliseconds. Who needs what is true
now reads from the API.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Final, Literal

from kappa_crds.api import ApiError, Expired, Object, WatchedApi

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
OnChange = Callable[[ChangeType, Object], None]
ObjectKey = tuple[str, str]
"""Namespace and name."""

INACTIVITY_SECONDS: Final = 150.0
"""Without any event before a watch counts as frozen: the API server sends a bookmark about every minute."""
WATCH_SECONDS: Final = 300
"""After this the API server ends a watch, so that connections spread over its replicas again."""
_DELAY_SECONDS: Final = 0.5
_DELAY_MAX_SECONDS: Final = 30.0

log = logging.getLogger(__name__)


def object_key(obj: Object) -> ObjectKey:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def without_field_sets(obj: Object) -> Object:
    """Which fields each manager owns is a third of an object and of no use to a listener; who wrote when is kept."""
    entries = [
        {name: value for name, value in entry.items() if name not in ("fieldsV1", "fieldsType", "apiVersion")}
        for entry in obj["metadata"].get("managedFields") or ()
    ]
    return {**obj, "metadata": {**obj["metadata"], "managedFields": entries}}


class Informer:
    """One collection. :meth:`run` until cancelled.

    ``on_change`` is called in the event loop, in order per object, after :attr:`items` shows the change; it must not raise. An object
    that is deleted and created again between two looks is told as DELETED and ADDED. DELETED carries the last state that is known.
    ``trim`` is applied to each object before it is kept.
    """

    def __init__(
        self,
        api: WatchedApi,
        path: str,
        *,
        on_change: OnChange | None = None,
        label_selector: str = "",
        field_selector: str = "",
        trim: Callable[[Object], Object] = without_field_sets,
        inactivity_seconds: float = INACTIVITY_SECONDS,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._path = path
        self._on_change = on_change
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._trim = trim
        self._inactivity_seconds = inactivity_seconds
        self._uniform = uniform
        self._items: dict[ObjectKey, Object] = {}
        self._failures = 0
        self.position = ""
        """The resourceVersion up to which everything has been told; empty before the first list."""
        self.synced = asyncio.Event()
        """Set for good once the first list is in :attr:`items` and has been told."""
        self.last_heard = float("-inf")
        """Time of the loop's clock at which the API server last sent anything, a bookmark included."""

    @property
    def items(self) -> Mapping[ObjectKey, Object]:
        """Everything there is, by namespace and name. Objects are not to be changed."""
        return self._items

    @property
    def silent_seconds(self) -> float:
        """Since the API server last sent anything; for liveness, which should allow twice INACTIVITY_SECONDS."""
        return asyncio.get_running_loop().time() - self.last_heard

    async def run(self) -> None:
        """List and watch until cancelled. Errors of the API are logged and tried again, ever more rarely up to twice a minute."""
        while True:
            try:
                if not self.position:
                    await self._relist()
                await self._follow()
            except Expired:
                log.info("%s: version %s is gone, listing again", self._path, self.position)
                self.position = ""
            except TimeoutError:
                log.warning("%s: nothing heard for %g s, watching anew", self._path, self._inactivity_seconds)
            except ApiError as error:
                log.warning("%s: %s", self._path, error)
            if self._failures:
                await asyncio.sleep(self._delay())
            self._failures += 1  # until something is heard

    def _delay(self) -> float:
        """Seconds: doubling, capped, between half and all of it, so that a restarted API server is not met by all at once."""
        # Beyond the sixth the cap holds anyway, and a power of thousands would overflow.
        return min(_DELAY_MAX_SECONDS, _DELAY_SECONDS * 2.0 ** min(self._failures - 1, 6)) * (0.5 + self._uniform() / 2)

    async def _relist(self) -> None:
        found, position = await self._api.list(
            self._path, label_selector=self._label_selector, field_selector=self._field_selector
        )
        there = {object_key(obj): self._trim(obj) for obj in found}
        gone = [key for key, known in self._items.items() if key not in there or _uid(there[key]) != _uid(known)]
        for key in gone:
            self._remove(key, self._items[key])
        for key, obj in there.items():
            known = self._items.get(key)
            # Different, not greater: an etcd that was restored from a backup counts from further back.
            if known is None or _version(known) != _version(obj):
                self._put(key, obj)
        self.position = position
        self._heard()
        self.synced.set()

    async def _follow(self) -> None:
        """One watch, until it ends."""
        watch = self._api.watch(
            self._path,
            resource_version=self.position,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_seconds=WATCH_SECONDS,
        )
        async with aclosing(watch):
            while True:
                async with asyncio.timeout(self._inactivity_seconds):
                    event = await anext(watch, None)
                if event is None:
                    return
                self._take(event["type"], event["object"])
                self.position = _version(event["object"])
                self._heard()

    def _take(self, type_: str, obj: Object) -> None:
        if type_ == "BOOKMARK":
            return
        key, obj = object_key(obj), self._trim(obj)
        known = self._items.get(key)
        if type_ == "DELETED":
            if known is not None and _uid(known) == _uid(obj):
                self._remove(key, obj)
            return
        if known is not None and _uid(known) != _uid(obj):
            self._remove(key, known)
        self._put(key, obj)

    def _put(self, key: ObjectKey, obj: Object) -> None:
        type_: ChangeType = "MODIFIED" if key in self._items else "ADDED"
        self._items[key] = obj
        if self._on_change is not None:
            self._on_change(type_, obj)

    def _remove(self, key: ObjectKey, last: Object) -> None:
        del self._items[key]
        if self._on_change is not None:
            self._on_change("DELETED", last)

    def _heard(self) -> None:
        self.last_heard = asyncio.get_running_loop().time()
        self._failures = 0


def _uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def _version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])
