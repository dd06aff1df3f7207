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
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Self, cast

import msgspec

from kappa_core.ports.store import AlreadyExists, Change, Conflict, NotFound, R, Rejected, StoreUnavailable, key_order
from kappa_core.resources import (
    AccountId,
    Alias,
    EventInvokeConfig,
    Function,
    FunctionVersion,
    Key,
    Kind,
    Meta,
    Region,
    Resource,
)
from kappa_crds import api as kubernetes
from kappa_crds import labels, names
from kappa_crds.api import ApiError, KubernetesApi, Object, api_path
from kappa_crds.convert import from_object, to_object, to_status
from kappa_crds.watching import ChangeType, Informer, without_field_sets
from kappa_gateway.kubernetes.store_counters import Counters
from kappa_gateway.kubernetes.store_errors import owned_elsewhere, store_error, translated
from kappa_gateway.kubernetes.store_fields import held_by_others, to_apply
from kappa_gateway.kubernetes.store_index import ClaimIndex, Place, is_leaving, key_of, place_of, precedence
from kappa_gateway.kubernetes.store_namespaces import Namespaces
from kappa_gateway.kubernetes.store_watch import WatchQueue

SYNC_SECONDS: Final = 30.0
_ATTEMPTS: Final = 10
"""Writes of others that may come between two own requests."""
_AT_A_TIME: Final = 200
"""Objects read out before the loop gets a turn."""


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
        self._counters = Counters(api, namespaces=self._namespaces)
        self._queues: set[WatchQueue] = set()
        self._writing: Counter[Place] = Counter()
        self._closed = False
        self._scopes = tuple(namespaces) or ("",)
        every = Informer(api, api_path("v1", "namespaces"), on_change=self._namespace_changed, label_selector=namespace_selector)
        self._informers: dict[tuple[str, str], Informer] = {("Namespace", ""): every} | {
            (kind, scope): Informer(api, _collection(kind, namespace=scope), on_change=partial(self._object_changed, kind))
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
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
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
        try:
            async with asyncio.timeout(sync_seconds):
                for informer in store._informers.values():
                    await informer.synced.wait()
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
        """Since the quietest watch last heard of the API server; for liveness."""
        return max(informer.silent_seconds for informer in self._informers.values())

    # -- reads ---------------------------------------------------------------------------------------------------------
    async def get(self, key: Key, /) -> Resource | None:
        self._check_open()
        found = await self._find(key)
        return None if found is None else self._read(found)

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
        namespaces = self._scopes if account is None else self._namespaces.of(account)
        # A Function whose object is called as it is need not say its name.
        field = _NAME_FIELDS.get(kind) if name is not None and kind != "Function" else None
        claims: dict[Key, Object] = {}
        for namespace in namespaces:
            with translated():
                objects, _ = await self._api.list(
                    _collection(kind, namespace=namespace),
                    label_selector=self._region_selector(region),
                    field_selector="" if field is None else f"{field}={name}",
                )
            for obj in objects:
                key = self._key(kind, obj)
                if key is not None and (key not in claims or precedence(obj) < precedence(claims[key])):
                    claims[key] = obj
        keys = sorted(
            (
                key
                for key in claims
                if (region is None or key.region == region)
                and (name is None or key.name == name)
                and (after is None or key_order(key)[1:] > key_order(after)[1:])
            ),
            key=key_order,
        )
        found: builtins.list[Resource] = []
        for number, key in enumerate(keys[:limit], start=1):
            found.append(self._read(claims[key]))
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        return found

    async def allocate(self, counter: str, /) -> int:
        self._check_open()
        return await self._counters.allocate(counter)

    # -- the objects behind the resources --------------------------------------------------------------------------------
    async def read(self, key: Key, /) -> Object | None:
        """The object that has a key, read now. Raises StoreUnavailable."""
        self._check_open()
        return await self._find(key)

    def place(self, key: Key, /) -> Place | None:
        """Where the object that has a key is, as far as the watches have told."""
        return self._index.locate(key)

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
        namespace = next(iter(self._namespaces.of(resource.account)), None)
        if namespace is None:
            raise Rejected(
                f"No namespace is account {resource.account}: label one with {labels.ACCOUNT_ID}={resource.account} first."
            )
        if self._index.locate(key) is not None and await self._find(key) is not None:
            raise AlreadyExists(f"{_name(key)} exists")
        owner = await self._owner(cast(Resource, resource))
        resource = msgspec.structs.replace(resource, meta=Meta(created_ms=self._clock_ms()))
        body = to_object(cast(Resource, resource), namespace=namespace, default_region=self._default_region, owner=owner)
        # An object's name that is taken by what stands for something else gives way to one that no person would choose.
        for name in dict.fromkeys((body["metadata"]["name"], names.key_name(key, default_region=""))):
            body["metadata"]["name"] = name
            with self._holding(Place(key.kind, namespace, name)):
                written = await self._create_object(key, body)
                if written is not None:
                    written = await self._write_status(resource, written, spec_written=True)
                    return cast(R, self._written(written))
        raise AlreadyExists(f"{namespace}/{body['metadata']['name']} exists")

    async def update(self, resource: R, /) -> R:
        self._check_open()
        key = resource.key
        current = await self._find(key)
        if current is None:
            raise NotFound(f"{_name(key)} does not exist")
        _check_version(key, current, resource_version=resource.meta.resource_version)
        with self._holding(place_of(key.kind, current)):
            written = await self._write_spec(cast(Resource, resource), current)
            written = await self._write_status(resource, written, spec_written=written is not current)
            return cast(R, self._written(written))

    async def delete(self, key: Key, /, *, resource_version: str | None = None) -> Resource:
        self._check_open()
        for _ in range(_ATTEMPTS):
            current = await self._find(key)
            if current is None:
                raise NotFound(f"{_name(key)} does not exist")
            if resource_version is not None:
                _check_version(key, current, resource_version=resource_version)
            metadata = current["metadata"]
            try:
                with translated():
                    await self._api.delete(
                        _path(current),
                        uid=metadata["uid"],
                        resource_version=metadata["resourceVersion"],
                        propagation="Background",
                    )
            except Conflict:
                continue  # what it was by then is what the caller must be told
            self._tell(self._index.remove(place_of(key.kind, current), metadata["uid"]))
            return self._read(current)
        raise Conflict(f"{_name(key)} is changed by others all the time")

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
        return self._read(obj)

    # -- one object ----------------------------------------------------------------------------------------------------
    async def _find(self, key: Key) -> Object | None:
        """The object that has a key, read now."""
        namespaces = self._namespaces.of(key.account)
        known = self._index.locate(key)
        expected = self._expected_names(key)
        places = [Place(key.kind, namespace, name) for namespace in namespaces for name in expected]
        if known is not None:
            places = [known, *(place for place in places if place != known)]
        for place in places:
            with translated():
                try:
                    obj = await self._api.get(_collection(place.kind, namespace=place.namespace, name=place.name))
                except kubernetes.NotFound:
                    continue
            if self._key(key.kind, obj) == key:
                return obj
        # Made by kubectl under another name, a moment ago: what the index does not know yet, the API server finds.
        field = _NAME_FIELDS.get(key.kind)
        found: builtins.list[Object] = []
        for namespace in namespaces:
            with translated():
                objects, _ = await self._api.list(
                    _collection(key.kind, namespace=namespace),
                    label_selector=self._region_selector(key.region),
                    field_selector="" if field is None else f"{field}={key.name}",
                )
            found += [obj for obj in objects if self._key(key.kind, obj) == key]
        return min(found, key=precedence, default=None)

    def _expected_names(self, key: Key) -> builtins.list[str]:
        """Of the object: as the API would call it and, for a Function, as a person would."""
        if key.kind == "Function":
            return builtins.list(dict.fromkeys((names.key_name(key, default_region=self._default_region), key.name)))
        parent = self._index.locate(_function_key(key))
        return [names.key_name(key, default_region=self._default_region, parent=None if parent is None else parent.name)]

    def _region_selector(self, region: Region | None) -> str:
        """Objects of the default region need not say so."""
        return "" if region is None or region == self._default_region else f"{labels.REGION}={region}"

    def _key(self, kind: Kind, obj: Object) -> Key | None:
        """None for what is not served or on its way out."""
        account = self._namespaces.account_of(obj["metadata"]["namespace"])
        if account is None or is_leaving(obj):
            return None
        return key_of(kind, obj, account=account, default_region=self._default_region)

    def _read(self, obj: Object) -> Resource:
        account = self._namespaces.account_of(obj["metadata"]["namespace"])
        if account is None:
            raise StoreUnavailable(f"namespace {obj['metadata']['namespace']} has just been taken from its account")
        return from_object(obj, account=account, default_region=self._default_region)

    async def _owner(self, resource: Resource) -> names.Owner | None:
        """The object of the Function that a new child belongs to."""
        if not isinstance(resource, FunctionVersion | Alias | EventInvokeConfig):
            return None
        uid = resource.function_uid
        place = self._index.function_place(uid)
        if place is not None:
            return names.Owner(name=place.name, uid=uid)
        function = await self._find(_function_key(resource.key))
        if function is None or function["metadata"]["uid"] != uid:
            return None
        return names.Owner(name=function["metadata"]["name"], uid=uid)

    async def _create_object(self, key: Key, body: Object) -> Object | None:
        """None where the object's name belongs to something else. Raises AlreadyExists."""
        metadata = body["metadata"]
        path = _collection(key.kind, namespace=metadata["namespace"], name=metadata["name"])
        # An apply that must not find anything: for a custom resource, version 0 is refused as an update but not as a creation
        # (registry/generic/registry/store.go, AllowUnconditionalUpdate). A POST would make kappa-api two owners, Update and Apply.
        creation = {**body, "metadata": {**metadata, "resourceVersion": "0"}}
        try:
            return await self._api.apply(path, creation, field_manager=names.API_MANAGER)
        except (kubernetes.Invalid, kubernetes.Conflict) as error:
            refusal = error
        except ApiError as error:
            raise store_error(error) from error
        # Refused for itself, or because something is there: that other managers own it or that it cannot be changed is said first.
        with translated():
            try:
                found = await self._api.get(path)
            except kubernetes.NotFound:
                raise store_error(refusal) from refusal
        if self._key(key.kind, found) == key or is_leaving(found):
            raise AlreadyExists(f"{_name(key)} exists")
        return None

    async def _write_spec(self, resource: Resource, current: Object) -> Object:
        wanted = to_object(
            resource, namespace=current["metadata"]["namespace"], default_region=self._default_region, current=current
        )
        body = to_apply(current, wanted, manager=names.API_MANAGER)
        if body is None:
            return current
        others = held_by_others(current, wanted, manager=names.API_MANAGER)
        if others:
            raise owned_elsewhere(others)
        with translated():
            return await self._api.apply(_path(current), body, field_manager=names.API_MANAGER)

    async def _write_status(self, resource: Any, written: Object, *, spec_written: bool) -> Object:
        """``written`` is the object with the spec that the status is about; with ``spec_written`` there is no way back."""
        for _ in range(_ATTEMPTS):
            status = to_status(resource, written=written, now_ms=self._clock_ms())
            if not status:
                return written
            metadata = {name: written["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
            body = {"apiVersion": names.API_VERSION, "kind": written["kind"], "metadata": metadata, "status": status}
            try:
                with translated():
                    return await self._api.apply(
                        f"{_path(written)}/status", body, field_manager=names.GATEWAY_MANAGER, force=True
                    )
            except Conflict:
                if not spec_written:
                    raise
            # Somebody, such as the settler, has come in between. The spec is ours: what they found about it stays.
            with translated():
                now = await self._api.get(_path(written))
            if now["metadata"]["uid"] != written["metadata"]["uid"] or _generation(now) != _generation(written):
                raise Conflict(f"{written['kind']} {written['metadata']['name']} changed meanwhile")
            if not isinstance(resource, Function):
                return now
            found = self._read(now)
            assert isinstance(found, Function)
            resource = msgspec.structs.replace(
                found, publication=resource.publication, modified_ms=max(found.modified_ms, resource.modified_ms)
            )
            if resource == found:
                return now
            written = now
        raise Conflict(f"{written['kind']} {written['metadata']['name']} is changed by others all the time")

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")


_NAME_FIELDS: Final[dict[Kind, str]] = {
    "Function": "spec.functionName",
    "FunctionVersion": "spec.functionName",
    "Alias": "spec.functionName",
    "LayerVersion": "spec.layerName",
    "EventInvokeConfig": "spec.functionName",
}
"""Selectable fields (crds/*.yaml) that hold ``Key.name``. An event source mapping's is its object's name."""


def _collection(kind: Kind, *, namespace: str = "", name: str = "") -> str:
    return api_path(names.API_VERSION, names.PLURALS[kind], namespace=namespace, name=name)


def _path(obj: Object) -> str:
    return _collection(obj["kind"], namespace=obj["metadata"]["namespace"], name=obj["metadata"]["name"])


def _function_key(key: Key) -> Key:
    return Key("Function", key.account, key.region, key.name)


def _check_version(key: Key, current: Object, *, resource_version: str) -> None:
    found = current["metadata"]["resourceVersion"]
    if found != resource_version:
        raise Conflict(f"{_name(key)} changed: it is at {found}, not at {resource_version}")


def _generation(obj: Object) -> int:
    return int(obj["metadata"]["generation"])


def _name(key: Key) -> str:
    return f"{key.kind} {key.name}{':' + key.sub if key.sub else ''} of {key.account} in {key.region}"
