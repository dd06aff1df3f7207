"""The objects behind resources: found by key, made, and written in two parts, spec and status.

Below :mod:`kappa_gateway.kubernetes.store`, which keeps the watches. Every read here is a request, so it is consistent; the index only
says where to look first. Writes name the uid and resourceVersion that were read, so nothing that somebody else wrote in between is
lost. It refuses to take a field from another manager.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from kappa_core.ports.store import AlreadyExists, Conflict, StoreUnavailable
from kappa_core.resources import (
    Alias,
    EventInvokeConfig,
    Function,
    FunctionVersion,
    Key,
    Kind,
    Region,
    Resource,
)
from kappa_core.rules.provisioned import requested
from kappa_crds import api as kubernetes
from kappa_crds import labels, names
from kappa_crds.api import ApiError, KubernetesApi, Object, api_path
from kappa_crds.convert import from_object, to_object, to_status
from kappa_crds.provisioned import FIELD
from kappa_gateway.kubernetes.store_errors import owned_elsewhere, store_error, translated
from kappa_gateway.kubernetes.store_fields import held_by_others, to_apply
from kappa_gateway.kubernetes.store_index import ClaimIndex, Place, is_leaving, key_of, place_of, precedence
from kappa_gateway.kubernetes.store_namespaces import Namespaces

_ATTEMPTS: Final = 10
"""Writes of others that may come between two own requests."""


class Objects:
    """``clock_ms`` is epoch milliseconds."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        namespaces: Namespaces,
        index: ClaimIndex,
        default_region: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self._api = api
        self._namespaces = namespaces
        self._index = index
        self._default_region = default_region
        self._clock_ms = clock_ms

    async def find(self, key: Key) -> Object | None:
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
                    obj = await self._api.get(collection_path(place.kind, namespace=place.namespace, name=place.name))
                except kubernetes.NotFound:
                    continue
            if self.key(key.kind, obj) == key:
                return obj
        # Made by kubectl under another name, a moment ago: what the index does not know yet, the API server finds.
        field = NAME_FIELDS.get(key.kind)
        found: list[Object] = []
        for namespace in namespaces:
            with translated():
                objects, _ = await self._api.list(
                    collection_path(key.kind, namespace=namespace),
                    label_selector=self.region_selector(key.region),
                    field_selector="" if field is None else f"{field}={key.name}",
                )
            found += [obj for obj in objects if self.key(key.kind, obj) == key]
        return min(found, key=precedence, default=None)

    def _expected_names(self, key: Key) -> list[str]:
        """Of the object: as the API would call it and, for a Function, as a person would."""
        if key.kind == "Function":
            return list(dict.fromkeys((names.key_name(key, default_region=self._default_region), key.name)))
        parent = self._index.locate(_function_key(key))
        return [names.key_name(key, default_region=self._default_region, parent=None if parent is None else parent.name)]

    def region_selector(self, region: Region | None) -> str:
        """Objects of the default region need not say so."""
        return "" if region is None or region == self._default_region else f"{labels.REGION}={region}"

    def key(self, kind: Kind, obj: Object) -> Key | None:
        """None for what is not served or on its way out."""
        account = self._namespaces.account_of(obj["metadata"]["namespace"])
        if account is None or is_leaving(obj):
            return None
        return key_of(kind, obj, account=account, default_region=self._default_region)

    def read(self, obj: Object) -> Resource:
        account = self._namespaces.account_of(obj["metadata"]["namespace"])
        if account is None:
            raise StoreUnavailable(f"namespace {obj['metadata']['namespace']} has just been taken from its account")
        return from_object(obj, account=account, default_region=self._default_region)

    async def function_place(self, resource: FunctionVersion | Alias | EventInvokeConfig) -> Place | None:
        """The object of the Function that a new child belongs to; the child has to be made beside it."""
        place = self._index.function_place(resource.function_uid)
        if place is not None:
            return place
        function = await self.find(_function_key(resource.key))
        if function is None or function["metadata"]["uid"] != resource.function_uid:
            return None
        return place_of("Function", function)

    async def create(self, key: Key, body: Object) -> Object | None:
        """None where the object's name belongs to something else. Raises AlreadyExists."""
        metadata = body["metadata"]
        path = collection_path(key.kind, namespace=metadata["namespace"], name=metadata["name"])
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
        if self.key(key.kind, found) == key or is_leaving(found):
            raise AlreadyExists(f"{key_text(key)} exists")
        return None

    async def write_spec(self, resource: Resource, current: Object) -> Object:
        if isinstance(resource, Alias):
            current = await self._write_scale(resource, current)
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
            return await self._api.apply(object_path(current), body, field_manager=names.API_MANAGER)

    async def _write_scale(self, resource: Alias, current: Object) -> Object:
        """The number of an Alias's provisioned environments is its scale, which ``kubectl scale`` and autoscalers write as well: the
        last one counts, unless the number is part of what somebody else applies."""
        number = requested(resource)
        if (current.get("spec") or {}).get(FIELD, 0) == number:
            return current
        others = held_by_others(current, {"spec": {}}, manager=names.API_MANAGER, fields=(FIELD,))
        if others:
            raise owned_elsewhere(others)
        body = {"metadata": {"resourceVersion": current["metadata"]["resourceVersion"]}, "spec": {"replicas": number}}
        with translated():
            await self._api.merge_patch(f"{object_path(current)}/scale", body, field_manager=names.API_MANAGER)
            scaled = await self._api.get(object_path(current))
        if scaled["metadata"]["uid"] != current["metadata"]["uid"]:
            raise Conflict(f"Alias {current['metadata']['name']} changed meanwhile")
        return scaled

    async def write_status(self, resource: Any, written: Object, *, spec_written: bool) -> Object:
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
                        f"{object_path(written)}/status", body, field_manager=names.GATEWAY_MANAGER, force=True
                    )
            except Conflict:
                if not spec_written:
                    raise
            # Somebody, such as the settler, has come in between. The spec is ours: what they found about it stays.
            with translated():
                now = await self._api.get(object_path(written))
            if now["metadata"]["uid"] != written["metadata"]["uid"] or _generation(now) != _generation(written):
                raise Conflict(f"{written['kind']} {written['metadata']['name']} changed meanwhile")
            if not isinstance(resource, Function):
                return now
            found = self.read(now)
            assert isinstance(found, Function)
            resource = msgspec.structs.replace(
                found, publication=resource.publication, modified_ms=max(found.modified_ms, resource.modified_ms)
            )
            if resource == found:
                return now
            written = now
        raise Conflict(f"{written['kind']} {written['metadata']['name']} is changed by others all the time")


NAME_FIELDS: Final[dict[Kind, str]] = {
    "Function": "spec.functionName",
    "FunctionVersion": "spec.functionName",
    "Alias": "spec.functionName",
    "LayerVersion": "spec.layerName",
    "EventInvokeConfig": "spec.functionName",
}
"""Selectable fields (crds/*.yaml) that hold ``Key.name``. An event source mapping's is its object's name."""


def collection_path(kind: Kind, *, namespace: str = "", name: str = "") -> str:
    return api_path(names.API_VERSION, names.PLURALS[kind], namespace=namespace, name=name)


def object_path(obj: Object) -> str:
    return collection_path(obj["kind"], namespace=obj["metadata"]["namespace"], name=obj["metadata"]["name"])


def _function_key(key: Key) -> Key:
    return Key("Function", key.account, key.region, key.name)


def _generation(obj: Object) -> int:
    return int(obj["metadata"]["generation"])


def key_text(key: Key) -> str:
    return f"{key.kind} {key.name}{':' + key.sub if key.sub else ''} of {key.account} in {key.region}"
