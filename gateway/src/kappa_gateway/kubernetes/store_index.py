"""Which resource each object stands for, and which object has each key: what the store's watches tell, and where it looks first.

Objects may have any name, so two of them can claim one function. The oldest has it, the operator marks the others (NameConflict), and
here they count as absent until the oldest is gone. Fed by informers and, before a write returns, by the store's own writes: whatever
comes twice or late changes nothing. An object that is being deleted has left already. Pure: nothing here talks to anybody.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from kappa_core.ports.store import Change, key_order
from kappa_core.resources import AccountId, Key, Kind, Region, Resource
from kappa_crds import labels
from kappa_crds.api import Object
from kappa_crds.code import ConfigMapCode, code_source
from kappa_crds.convert import from_object, function_name
from kappa_crds.names import is_uuid

_BURIED: Final = 4096
"""Uids of deleted objects that are remembered, so that a late event does not bring one back."""

log = logging.getLogger(__name__)

Precedence = tuple[str, str]


class Place(NamedTuple):
    """An object."""

    kind: Kind
    namespace: str
    name: str


class _Claim(NamedTuple):
    precedence: Precedence
    resource: Resource


def place_of(kind: Kind, obj: Object) -> Place:
    return Place(kind, obj["metadata"]["namespace"], obj["metadata"]["name"])


def precedence(obj: Object) -> Precedence:
    """Of several objects that claim one key the least has it; the operator goes by the same."""
    return obj["metadata"].get("creationTimestamp") or "", obj["metadata"]["uid"]


def is_leaving(obj: Object) -> bool:
    """Deleted, and kept only by finalizers."""
    return "deletionTimestamp" in obj["metadata"]


def key_of(kind: Kind, obj: Object, *, account: AccountId, default_region: str) -> Key:
    """The key of the resource that an object stands for, without reading all of it."""
    region = Region((obj["metadata"].get("labels") or {}).get(labels.REGION) or default_region)
    spec, metadata = obj.get("spec") or {}, obj["metadata"]
    match kind:
        case "Function":
            return Key(kind, account, region, function_name(obj))
        case "FunctionVersion":
            return Key(kind, account, region, spec["functionName"], str(spec["version"]))
        case "Alias":
            return Key(kind, account, region, spec["functionName"], spec["name"])
        case "LayerVersion":
            return Key(kind, account, region, spec["layerName"], str(spec["version"]))
        case "EventSourceMapping":
            return Key(kind, account, region, metadata["name"] if is_uuid(metadata["name"]) else metadata["uid"])
        case "EventInvokeConfig":
            return Key(kind, account, region, spec["functionName"], spec.get("qualifier", "$LATEST"))


class ClaimIndex:
    """``account_of`` says whose a namespace is. Each change answers with what watchers are to be told, in order."""

    def __init__(self, *, account_of: Callable[[str], AccountId | None], default_region: str) -> None:
        self._account_of = account_of
        self._default_region = default_region
        self._objects: dict[Place, Object] = {}
        self._claims: dict[Key, dict[Place, _Claim]] = {}
        self._key_at: dict[Place, Key] = {}
        self._functions: dict[str, Place] = {}
        self._made_of: dict[tuple[str, str], set[Place]] = {}
        """Functions by namespace and name of the ConfigMap that their code comes from."""
        self._told: dict[Key, Resource] = {}
        self._buried: OrderedDict[str, None] = OrderedDict()

    # -- questions -----------------------------------------------------------------------------------------------------
    def locate(self, key: Key) -> Place | None:
        """The object that has a key."""
        claims = self._claims.get(key)
        return min(claims, key=lambda place: claims[place].precedence) if claims else None

    def function_place(self, uid: str) -> Place | None:
        """The object of the Function with this uid."""
        return self._functions.get(uid)

    def made_of(self, namespace: str, config_map: str) -> list[Key]:
        """The functions whose code comes from a ConfigMap."""
        places = self._made_of.get((namespace, config_map), ())
        return [key for place in places if (key := self._key_at.get(place)) is not None and self.locate(key) == place]

    def resources(self, kind: Kind | None = None) -> list[Resource]:
        """Everything, or everything of a kind, in key order."""
        return [self._told[key] for key in sorted(self._told if kind is None else self._of_kind(kind), key=key_order)]

    def _of_kind(self, kind: Kind) -> Iterator[Key]:
        return (key for key in self._told if key.kind == kind)

    # -- changes -------------------------------------------------------------------------------------------------------
    def put(self, place: Place, obj: Object) -> list[Change]:
        """An object as it is, or was: an older state than the one known changes nothing."""
        uid = obj["metadata"]["uid"]
        if uid in self._buried:
            return []
        known = self._objects.get(place)
        if known is not None:
            if known["metadata"]["uid"] != uid:
                return [*self.remove(place, known["metadata"]["uid"]), *self.put(place, obj)]
            if int(known["metadata"]["resourceVersion"]) >= int(obj["metadata"]["resourceVersion"]):
                return []
        self._forget_source(place)
        self._objects[place] = obj
        if place.kind == "Function":
            self._functions[uid] = place
            source = _config_map(obj)
            if source is not None:
                self._made_of.setdefault(source, set()).add(place)
        return self._evaluate(place)

    def remove(self, place: Place, uid: str) -> list[Change]:
        """The object of this uid is gone for good."""
        self._buried[uid] = None
        if len(self._buried) > _BURIED:
            self._buried.popitem(last=False)
        self._functions.pop(uid, None)
        known = self._objects.get(place)
        if known is None or known["metadata"]["uid"] != uid:
            return []
        self._forget_source(place)
        del self._objects[place]
        return self._evaluate(place)

    def reassign(self, namespace: str) -> list[Change]:
        """A namespace belongs to another account than before, or to none."""
        changes = [change for place in list(self._objects) if place.namespace == namespace for change in self._evaluate(place)]
        return sorted(changes, key=lambda change: change.type)  # what left one account is gone before it appears in another

    def _forget_source(self, place: Place) -> None:
        source = _config_map(self._objects[place]) if place.kind == "Function" and place in self._objects else None
        if source is not None:
            places = self._made_of[source]
            places.discard(place)
            if not places:
                del self._made_of[source]

    def _evaluate(self, place: Place) -> list[Change]:
        claim = self._claim(place)
        before, after = self._key_at.pop(place, None), None if claim is None else claim.resource.key
        if before is not None and before != after:
            self._withdraw(before, place)
        if claim is not None:
            self._key_at[place] = claim.resource.key
            self._claims.setdefault(claim.resource.key, {})[place] = claim
        return [change for key in dict.fromkeys((before, after)) if key is not None for change in self._settle(key)]

    def _claim(self, place: Place) -> _Claim | None:
        obj, account = self._objects.get(place), self._account_of(place.namespace)
        if obj is None or account is None or is_leaving(obj):
            return None
        try:
            return _Claim(precedence(obj), from_object(obj, account=account, default_region=self._default_region))
        except Exception:  # an object that slipped through the schema must not end the watch over all others
            log.exception("%s %s/%s cannot be read and is not served", *place)
            return None

    def _withdraw(self, key: Key, place: Place) -> None:
        claims = self._claims.get(key, {})
        claims.pop(place, None)
        if not claims:
            self._claims.pop(key, None)

    def _settle(self, key: Key) -> Iterable[Change]:
        """From what was told about a key to what is."""
        told, claims = self._told.get(key), self._claims.get(key)
        now = min(claims.values(), key=lambda claim: claim.precedence).resource if claims else None
        changes = []
        if told is not None and (now is None or now.meta.uid != told.meta.uid):
            changes.append(Change("DELETE", key, self._told.pop(key)))
        if now is not None and now != told:
            self._told[key] = now
            changes.append(Change("PUT", key, now))
        return changes


def _config_map(function: Object) -> tuple[str, str] | None:
    """Namespace and name of the ConfigMap that a Function's code comes from; None where it comes from elsewhere."""
    source = code_source(function.get("spec") or {})
    return (function["metadata"]["namespace"], source.name) if isinstance(source, ConfigMapCode) else None
