"""Everything the operator watches, in memory: the only thing that reconciling reads.

Watch handlers put in what they hear; what is older than what is known is refused (answers to the operator's own writes come in as
well, and are often first). What is not needed is left out: inline source code and managed fields are most of an object's bytes. The
indexes answer what a change concerns without a look at everything. Nothing here decides or writes.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from kappa_crds import labels
from kappa_crds.api import Object
from kappa_crds.configuration import DEFAULT_ROLE
from kappa_crds.convert import function_name

NAMED_KINDS: Final = ("Function", "FunctionVersion", "Alias", "EventInvokeConfig")
"""Kinds that belong to a function's name."""

_REMEMBERED: Final = 10_000

Indexer = Callable[[Object], Iterable[Hashable]]


class Ref(NamedTuple):
    """One object; also the key of the work queue."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def ref_of(kind: str, thing: Object) -> Ref:
    metadata = thing["metadata"]
    return Ref(kind, metadata.get("namespace", ""), metadata["name"])


class Cache:
    """Objects by kind, namespace and name. An indexer makes the keys under which :meth:`lookup` finds objects of its kind."""

    def __init__(self, indexers: Mapping[str, Indexer]) -> None:
        self._indexers = indexers
        self._objects: dict[str, dict[Ref, Object]] = defaultdict(dict)
        self._indexes: dict[str, dict[Hashable, dict[Ref, None]]] = defaultdict(lambda: defaultdict(dict))
        self._gone: OrderedDict[str, None] = OrderedDict()
        """Uids of the objects that went last: an answer or a list that was under way then must not bring them back."""

    def put(self, kind: str, thing: Object) -> bool:
        """Keep a state of an object. False where that state or a newer one is known, or the object is known to be gone."""
        if thing["metadata"]["uid"] in self._gone:
            return False
        ref, before = ref_of(kind, thing), self._objects[kind].get(ref_of(kind, thing))
        if before is not None:
            if version_of(before) >= version_of(thing):
                return False
            self._unindex(ref, before)
        slim = _trimmed(thing)
        self._objects[kind][ref] = slim
        for key in self._keys(kind, slim):
            self._indexes[kind][key][ref] = None
        return True

    def drop(self, kind: str, thing: Object) -> bool:
        """Forget an object that is gone. False where another one of its name has taken its place."""
        ref = ref_of(kind, thing)
        self._gone[thing["metadata"]["uid"]] = None
        if len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)
        before = self._objects[kind].get(ref)
        if before is None or before["metadata"]["uid"] != thing["metadata"]["uid"]:
            return False
        self._unindex(ref, before)
        del self._objects[kind][ref]
        return True

    def get(self, ref: Ref) -> Object | None:
        return self._objects[ref.kind].get(ref)

    def of_kind(self, kind: str) -> Iterator[Object]:
        return iter(list(self._objects[kind].values()))

    def count(self, kind: str) -> int:
        return len(self._objects[kind])

    def lookup(self, kind: str, key: Hashable) -> list[Object]:
        """The objects of a kind that its indexer gave this key."""
        objects = self._objects[kind]
        return [objects[ref] for ref in self._indexes[kind].get(key, ())]

    def _keys(self, kind: str, thing: Object) -> Iterable[Hashable]:
        indexer = self._indexers.get(kind)
        return set(indexer(thing)) if indexer is not None else ()

    def _unindex(self, ref: Ref, thing: Object) -> None:
        index = self._indexes[ref.kind]
        for key in self._keys(ref.kind, thing):
            index[key].pop(ref, None)
            if not index[key]:
                del index[key]


def version_of(thing: Object) -> int:
    """Its resourceVersion, comparable by order (KEP-5504)."""
    return int(thing["metadata"].get("resourceVersion") or 0)


# -- keys of the indexes -----------------------------------------------------------------------------------------------------
class Named(NamedTuple):
    """Of what belongs to a function's name, in whichever namespace."""

    region: str
    function: str


class Within(NamedTuple):
    """Of what lies in a namespace."""

    namespace: str


class UsesLayer(NamedTuple):
    """Of functions and versions that refer to a layer."""

    region: str
    layer: str


class HasRole(NamedTuple):
    """Of functions and versions in a namespace, by the last part of their role's ARN."""

    namespace: str
    role: str


class OwnedBy(NamedTuple):
    """Of Deployments, by the Function object that their label names."""

    namespace: str
    function_object: str


def indexers(*, default_region: str) -> dict[str, Indexer]:
    """What the operator looks things up by."""

    def named(thing: Object) -> Iterable[Hashable]:
        yield Named(region_of(thing, default_region=default_region), function_of(thing))
        yield Within(thing["metadata"]["namespace"])

    def configured(thing: Object) -> Iterable[Hashable]:
        yield from named(thing)
        for spec in (thing["spec"], (thing.get("status") or {}).get("serving") or {}):
            yield HasRole(thing["metadata"]["namespace"], role_name(spec.get("role") or DEFAULT_ROLE))
        for arn in layers_of(thing, default_region=default_region):
            tokens = arn.split(":")
            if len(tokens) == 8:
                yield UsesLayer(tokens[3], tokens[6])

    def layer(thing: Object) -> Iterable[Hashable]:
        name = thing["spec"].get("layerName") or thing["metadata"]["name"]
        yield Named(region_of(thing, default_region=default_region), name)
        yield Within(thing["metadata"]["namespace"])

    def within(thing: Object) -> Iterable[Hashable]:
        yield Within(thing["metadata"]["namespace"])

    def owned(thing: Object) -> Iterable[Hashable]:
        owner = (thing["metadata"].get("labels") or {}).get(labels.FUNCTION)
        if owner:
            yield OwnedBy(thing["metadata"]["namespace"], owner)

    return {
        "Function": configured,
        "FunctionVersion": configured,
        "Alias": named,
        "EventInvokeConfig": named,
        "LayerVersion": layer,
        "Layer": layer,
        "EventSourceMapping": within,
        "Deployment": owned,
        "ServiceAccount": within,
        "NetworkPolicy": within,
    }


def region_of(thing: Object, *, default_region: str) -> str:
    region: str = (thing["metadata"].get("labels") or {}).get(labels.REGION) or default_region
    return region


def function_of(thing: Object) -> str:
    """The function's name that an object of NAMED_KINDS says."""
    return function_name(thing)


def role_name(role: str) -> str:
    """Of a role's ARN or name."""
    return role.rpartition("/")[2]


def layers_of(thing: Object, *, default_region: str) -> tuple[str, ...]:
    """Layer version ARNs that a spec refers to, in whichever account its namespace is."""
    spec = thing.get("spec") or {}
    if not spec.get("layers"):
        return ()
    region = region_of(thing, default_region=default_region)
    return tuple(each if each.startswith("arn:") else f"arn:aws:lambda:{region}::layer:{each}" for each in spec["layers"])


def _trimmed(thing: Object) -> Object:
    slim = {**thing, "metadata": {name: value for name, value in thing["metadata"].items() if name != "managedFields"}}
    code = (thing.get("spec") or {}).get("code") or {}
    if "inline" in code:
        slim["spec"] = {**thing["spec"], "code": {**code, "inline": ""}}
    return slim
