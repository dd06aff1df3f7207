"""ResourceStore over the Kubernetes API: the resources that people see with kubectl are the ones that the Lambda API works on.

Reads go to the API server and are consistent, so a write through one gateway is seen through every other at once. Writes are
server-side apply without force as ``kappa-api`` for what callers ask for, and by force as ``kappa-gateway`` for the status, each with
the resourceVersion that was read. Where both change, the spec goes first: a crash in between leaves an update in progress, which the
settler finishes. Watches are fed by one informer per kind (:mod:`kappa_gateway.kubernetes.store_index`), and by own writes before these
return.

It refuses to overwrite a field that another manager owns, and to serve a namespace that no account is assigned to.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Final, Self, cast

import msgspec

from kappa_core.ports.store import AlreadyExists, Change, Conflict, NotFound, R, Rejected, StoreUnavailable, key_order
from kappa_core.resources import (
    AccountId,
    Alias,
    EventInvokeConfig,
    FunctionVersion,
    Key,
    Kind,
    Meta,
    Region,
    Resource,
)
from kappa_crds import labels, names
from kappa_crds.api import KubernetesApi, Object, api_path
from kappa_crds.convert import to_object
from kappa_crds.status import observation_lags
from kappa_crds.watching import ChangeType, Informer, without_field_sets
from kappa_gateway.clock import epoch_ms
from kappa_gateway.kubernetes.store_counters import Counters
from kappa_gateway.kubernetes.store_errors import translated
from kappa_gateway.kubernetes.store_index import ClaimIndex, Place, place_of, precedence
from kappa_gateway.kubernetes.store_listings import Asked, Listings, is_behind
from kappa_gateway.kubernetes.store_namespaces import Namespaces
from kappa_gateway.kubernetes.store_objects import NAME_FIELDS, Objects, collection_path, key_text, object_path
from kappa_gateway.kubernetes.store_watch import WatchQueue

SYNC_SECONDS: Final = 30.0
LISTING_SECONDS: Final = 60.0
"""How long after a listing began its further pages are answered by what the watches have told."""
_ATTEMPTS: Final = 10
"""Writes of others that may come between two own requests."""
_AT_A_TIME: Final = 200
"""Objects read out before the loop gets a turn."""

log = logging.getLogger(__name__)


class KubernetesResourceStore:
    """See the module. Use :meth:`open`; belongs to the event loop it was opened on. ``api`` stays the caller's to close."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        default_namespace: str,
        default_region: str,
        namespaces: Sequence[str],
        namespace_selector: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self._api = api
        self._default_region = default_region
        self._clock_ms = clock_ms
        self._namespaces = Namespaces(default_namespace=default_namespace)
        self._index = ClaimIndex(account_of=self._namespaces.account_of, default_region=default_region)
        self._objects = Objects(
            api, namespaces=self._namespaces, index=self._index, default_region=default_region, clock_ms=clock_ms
        )
        self._counters = Counters(api, namespaces=self._namespaces)
        self._queues: set[WatchQueue] = set()
        self._writing: Counter[Place] = Counter()
        self._closed = False
        self.broken: str | None = None
        """Why nothing here can be relied on any more, if so."""
        self._listings = Listings(seconds=LISTING_SECONDS)
        self._scopes = tuple(namespaces) or ("",)
        every = Informer(api, api_path("v1", "namespaces"), on_change=self._namespace_changed, label_selector=namespace_selector)
        self._informers: dict[tuple[str, str], Informer] = {("Namespace", ""): every} | {
            (kind, scope): Informer(api, collection_path(kind, namespace=scope), on_change=partial(self._object_changed, kind))
            for kind in names.PLURALS
            for scope in self._scopes
        }
        self._tasks: builtins.list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        api: KubernetesApi,
        *,
        default_namespace: str,
        default_region: str,
        namespaces: Sequence[str] = (),
        namespace_selector: str = "",
        clock_ms: Callable[[], int] = epoch_ms,
        sync_seconds: float = SYNC_SECONDS,
    ) -> Self:
        """List everything and follow it. Raises StoreUnavailable where that takes longer than ``sync_seconds``.

        ``namespaces`` are the only ones in which objects are read, where this identity may do so in no others;
        ``namespace_selector`` (labels) leaves namespaces to a second installation.
        """
        store = cls(
            api,
            default_namespace=default_namespace,
            default_region=default_region,
            namespaces=namespaces,
            namespace_selector=namespace_selector,
            clock_ms=clock_ms,
        )
        store._tasks = [asyncio.create_task(informer.run(), name=f"watch {name}") for name, informer in store._informers.items()]
        for task in store._tasks:
            task.add_done_callback(store._ended)
        try:
            async with asyncio.timeout(sync_seconds):
                for informer in store._informers.values():
                    await informer.synced.wait()
        except asyncio.CancelledError:
            await store.close()
            raise
        except TimeoutError:
            missing = dict.fromkeys(kind for (kind, _), informer in store._informers.items() if not informer.synced.is_set())
            await store.close()
            raise StoreUnavailable(
                f"{', '.join(missing)} could not be listed within {sync_seconds:g} s: is the API server there, are the "
                "CustomResourceDefinitions installed (`kappa crds apply`), and may this identity list them?"
            ) from None
        return store

    @property
    def silent_seconds(self) -> float:
        """Since the quietest watch last heard of the API server. No reason to restart a gateway: warm functions answer without it."""
        return max(informer.silent_seconds for informer in self._informers.values())

    # -- reads ---------------------------------------------------------------------------------------------------------
    async def get(self, key: Key, /) -> Resource | None:
        self._check_open()
        found = await self._objects.find(key)
        return None if found is None else self._objects.read(found)

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
    ) -> builtins.list[Resource]:
        self._check_open()
        asked = Asked(kind, account, region, name)
        if after is not None and self._listings.goes_on(asked):
            known = (each for each in self._index.resources(kind) if asked.covers(each.key) and is_behind(each.key, after))
            return [*islice(known, limit)]
        claims = await self._claims(asked)
        keys = sorted((key for key in claims if asked.covers(key) and is_behind(key, after)), key=key_order)
        self._listings.began(asked)
        found: builtins.list[Resource] = []
        for number, key in enumerate(keys[:limit], start=1):
            found.append(self._objects.read(claims[key]))
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        return found

    async def _claims(self, asked: Asked) -> dict[Key, Object]:
        """What the API server has now of what is asked for, of several objects with one key the one that counts. The index knows it from
        now on: further pages come from there."""
        kind, account, region, name = asked
        # A Function whose object is called as it is need not say its name.
        field = NAME_FIELDS.get(kind) if name is not None and kind != "Function" else None
        claims: dict[Key, Object] = {}
        for namespace in self._scopes if account is None else self._namespaces.of(account):
            with translated():
                objects, _ = await self._api.list(
                    collection_path(kind, namespace=namespace),
                    label_selector=self._objects.region_selector(region),
                    field_selector="" if field is None else f"{field}={name}",
                )
            for number, obj in enumerate(objects, start=1):
                place = Place(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])
                if not self._writing[place]:
                    self._tell(self._index.put(place, without_field_sets(obj)))
                key = self._objects.key(kind, obj)
                if key is not None and (key not in claims or precedence(obj) < precedence(claims[key])):
                    claims[key] = obj
                if number % _AT_A_TIME == 0:
                    await asyncio.sleep(0)
        return claims

    async def allocate(self, counter: str, /) -> int:
        self._check_open()
        return await self._counters.allocate(counter)

    # -- the objects behind the resources --------------------------------------------------------------------------------
    async def read(self, key: Key, /) -> Object | None:
        """The object that has a key, read now. Raises StoreUnavailable."""
        self._check_open()
        return await self._objects.find(key)

    def place(self, key: Key, /) -> Place | None:
        """Where the object that has a key is, as far as the watches have told."""
        return self._index.locate(key)

    def made_of(self, namespace: str, config_map: str, /) -> builtins.list[Key]:
        """The functions whose code comes from a ConfigMap, as far as the watches have told."""
        return self._index.made_of(namespace, config_map)

    def lagging(self) -> builtins.list[Key]:
        """Functions whose status speaks of an older generation than their object has, as far as the watches have told."""
        items = (obj for scope in self._scopes for obj in self._informers["Function", scope].items.values())
        keys = (self._objects.key("Function", obj) for obj in items if observation_lags(obj))
        return [key for key in keys if key is not None]

    def account_of(self, namespace: str, /) -> AccountId | None:
        """None: not served."""
        return self._namespaces.account_of(namespace)

    def namespaces_of(self, account: AccountId, /) -> builtins.list[str]:
        """The namespaces of an account; what is new goes into the first one."""
        return self._namespaces.of(account)

    # -- writes --------------------------------------------------------------------------------------------------------
    async def create(self, resource: R, /) -> R:
        self._check_open()
        key = resource.key
        namespaces = self._namespaces.of(resource.account)
        if not namespaces:
            raise Rejected(
                f"No namespace is account {resource.account}: label one with {labels.ACCOUNT_ID}={resource.account} first."
            )
        if self._index.locate(key) is not None and await self._objects.find(key) is not None:
            raise AlreadyExists(f"{key_text(key)} exists")
        namespace, owner = namespaces[0], None
        if isinstance(resource, FunctionVersion | Alias | EventInvokeConfig):
            parent = await self._objects.function_place(resource)
            if parent is not None:
                namespace, owner = parent.namespace, names.Owner(name=parent.name, uid=resource.function_uid)
        resource = msgspec.structs.replace(resource, meta=Meta(created_ms=self._clock_ms()))
        body = to_object(cast(Resource, resource), namespace=namespace, default_region=self._default_region, owner=owner)
        # An object's name that is taken by what stands for something else gives way to one that no person would choose.
        for name in dict.fromkeys((body["metadata"]["name"], names.key_name(key, default_region=""))):
            body["metadata"]["name"] = name
            with self._holding(Place(key.kind, namespace, name)):
                written = await self._objects.create(key, body)
                if written is not None:
                    written = await self._objects.write_status(resource, written, spec_written=True)
                    return cast(R, self._written(written))
        raise AlreadyExists(f"{namespace}/{body['metadata']['name']} exists")

    async def update(self, resource: R, /) -> R:
        self._check_open()
        key = resource.key
        current = await self._objects.find(key)
        if current is None:
            raise NotFound(f"{key_text(key)} does not exist")
        _check_version(key, current, resource_version=resource.meta.resource_version)
        with self._holding(place_of(key.kind, current)):
            written = await self._objects.write_spec(cast(Resource, resource), current)
            written = await self._objects.write_status(resource, written, spec_written=written is not current)
            return cast(R, self._written(written))

    async def delete(self, key: Key, /, *, resource_version: str | None = None) -> Resource:
        self._check_open()
        for _ in range(_ATTEMPTS):
            current = await self._objects.find(key)
            if current is None:
                raise NotFound(f"{key_text(key)} does not exist")
            if resource_version is not None:
                _check_version(key, current, resource_version=resource_version)
            metadata = current["metadata"]
            try:
                with translated():
                    await self._api.delete(
                        object_path(current),
                        uid=metadata["uid"],
                        resource_version=metadata["resourceVersion"],
                        propagation="Background",
                    )
            except Conflict:
                continue  # what it was by then is what the caller must be told
            self._tell(self._index.remove(place_of(key.kind, current), metadata["uid"]))
            return self._objects.read(current)
        raise Conflict(f"{key_text(key)} is changed by others all the time")

    # -- watching ------------------------------------------------------------------------------------------------------
    def watch(self, *, replay: bool = True) -> AsyncGenerator[Change, None]:
        self._check_open()
        queue = WatchQueue(Change("PUT", each.key, each) for each in (self._index.resources() if replay else ()))
        self._queues.add(queue)
        return self._deliver(queue)

    async def close(self) -> None:
        """End the watches. Idempotent."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queue in self._queues:
            queue.close()

    async def _deliver(self, queue: WatchQueue) -> AsyncGenerator[Change, None]:
        try:
            while (change := await queue.take()) is not None:
                yield change
        finally:
            self._queues.discard(queue)

    def _tell(self, changes: builtins.list[Change]) -> None:
        for change in changes:
            for queue in self._queues:
                queue.tell(change)

    def _namespace_changed(self, type_: ChangeType, namespace: Object) -> None:
        moved = self._namespaces.remove(namespace) if type_ == "DELETED" else self._namespaces.put(namespace)
        if moved:
            self._tell(self._index.reassign(namespace["metadata"]["name"]))

    def _object_changed(self, kind: Kind, type_: ChangeType, obj: Object) -> None:
        place = place_of(kind, obj)
        if type_ == "DELETED":
            self._tell(self._index.remove(place, obj["metadata"]["uid"]))
        elif not self._writing[place]:
            self._tell(self._index.put(place, obj))

    @contextmanager
    def _holding(self, place: Place) -> Iterator[None]:
        """While one of our writes takes several requests, what the informer sees of them is told only with the last."""
        self._writing[place] += 1
        try:
            yield
        finally:
            self._writing[place] -= 1
            if not self._writing[place]:
                del self._writing[place]
                for scope in self._scopes:
                    seen = self._informers[place.kind, scope].items.get((place.namespace, place.name))
                    if seen is not None:
                        self._tell(self._index.put(place, seen))

    def _written(self, obj: Object) -> Resource:
        """Tell of an own write, and what it made."""
        self._tell(self._index.put(place_of(obj["kind"], obj), without_field_sets(obj)))
        return self._objects.read(obj)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A watch ends only with the store; one that ends of a bug leaves this gateway blind until it is started anew."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s has ended", task.get_name(), exc_info=error)
            self.broken = f"{task.get_name()} has ended: {error}"

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")


def _check_version(key: Key, current: Object, *, resource_version: str) -> None:
    found = current["metadata"]["resourceVersion"]
    if found != resource_version:
        raise Conflict(f"{key_text(key)} changed: it is at {found}, not at {resource_version}")
