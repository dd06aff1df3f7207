"""Which objects have to be looked at again because another one has changed. Pure but for the cache that it looks things up in."""

from __future__ import annotations

from collections.abc import Iterator

from kappa_crds import labels
from kappa_crds.api import Object
from kappa_operator.cache import (
    NAMED_KINDS,
    Cache,
    HasRole,
    Named,
    Ref,
    UsesLayer,
    Within,
    function_of,
    ref_of,
    region_of,
    role_name,
)
from kappa_operator.reconcile.roles import role_of

CONDITIONED: tuple[str, ...] = (*NAMED_KINDS, "LayerVersion", "Layer", "EventSourceMapping")
"""Kinds that carry conditions."""


def concerned(cache: Cache, kind: str, before: Object | None, after: Object | None, *, default_region: str) -> Iterator[Ref]:
    """``before`` and ``after`` are the states of one object, None where it was not or is not there."""
    thing = after if after is not None else before
    assert thing is not None, "a change has at least one state"
    came_or_went = before is None or after is None or before["metadata"]["uid"] != after["metadata"]["uid"]
    namespace = thing["metadata"].get("namespace", "")
    if kind in CONDITIONED and after is not None:
        yield ref_of(kind, thing)
    match kind:
        case "Function":
            if came_or_went:
                yield Ref("Namespace", "", namespace)
                yield from _same_name(cache, thing, default_region=default_region)
        case "FunctionVersion" | "Alias" | "EventInvokeConfig":
            others = came_or_went or _adopted(before) != _adopted(after)
            yield from _same_name(cache, thing, default_region=default_region, kinds=NAMED_KINDS if others else ("Function",))
        case "LayerVersion" | "Layer":
            if came_or_went or _deleted(before) != _deleted(after):
                yield from _around_layer(cache, thing, default_region=default_region)
        case "Deployment":
            owner = (thing["metadata"].get("labels") or {}).get(labels.FUNCTION)
            if owner:
                yield Ref("Function", namespace, owner)
        case "ServiceAccount":
            if came_or_went or _role(before) != _role(after):
                for role in {_role(before), _role(after)} - {None}:
                    yield from _with_role(cache, namespace, str(role))
        case "NetworkPolicy":
            yield Ref("Namespace", "", namespace)
        case "Namespace":
            yield Ref("Namespace", "", thing["metadata"]["name"])
            if came_or_went or _served_as(before) != _served_as(after):
                yield from _inside(cache, thing["metadata"]["name"])
        case _:
            pass  # an EventSourceMapping concerns itself alone


def _same_name(cache: Cache, thing: Object, *, default_region: str, kinds: tuple[str, ...] = NAMED_KINDS) -> Iterator[Ref]:
    key = Named(region_of(thing, default_region=default_region), function_of(thing))
    for kind in kinds:
        yield from (ref_of(kind, each) for each in cache.lookup(kind, key))


def _around_layer(cache: Cache, thing: Object, *, default_region: str) -> Iterator[Ref]:
    region = region_of(thing, default_region=default_region)
    name = thing["spec"].get("layerName") or thing["metadata"]["name"]
    for kind in ("Function", "FunctionVersion"):
        yield from (ref_of(kind, each) for each in cache.lookup(kind, UsesLayer(region, name)))
    yield from (ref_of("Layer", each) for each in cache.lookup("Layer", Named(region, name)))


def _with_role(cache: Cache, namespace: str, role: str) -> Iterator[Ref]:
    key = HasRole(namespace, role_name(role))
    yield from (ref_of("Function", each) for each in cache.lookup("Function", key))
    for version in cache.lookup("FunctionVersion", key):
        owner = (version["metadata"].get("labels") or {}).get(labels.FUNCTION)
        if owner:
            yield Ref("Function", namespace, owner)


def _inside(cache: Cache, namespace: str) -> Iterator[Ref]:
    for kind in CONDITIONED:
        yield from (ref_of(kind, each) for each in cache.lookup(kind, Within(namespace)))


def _adopted(thing: Object | None) -> bool:
    return thing is not None and bool(thing["metadata"].get("ownerReferences"))


def _deleted(thing: Object | None) -> object:
    return (thing or {}).get("status", {}).get("deleted")


def _role(thing: Object | None) -> str | None:
    return None if thing is None else role_of(thing)


def _served_as(thing: Object | None) -> object:
    if thing is None:
        return None
    metadata = thing["metadata"]
    return (metadata.get("labels") or {}).get(labels.ACCOUNT_ID), metadata.get("deletionTimestamp")
