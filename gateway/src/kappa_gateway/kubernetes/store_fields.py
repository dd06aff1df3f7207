"""Which fields of an object the API applies, and which it may not touch.

Server-side apply gives a manager every field that its configuration names and takes away what it named before and names no more. To
own as little as possible, the API's configuration holds what it owns already and what it changes now: a Function that GitOps
wrote stays GitOps' in all other fields. What apply would silently leave standing, because another manager set it and this one only
leaves it out, is found here beforehand. Pure functions over ``managedFields``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from kappa_crds.api import FieldOwner, Object

Fields = Mapping[str, Any]


def to_apply(current: Object, wanted: Object, /, *, manager: str) -> Object | None:
    """The configuration that ``manager`` applies so that ``current`` becomes ``wanted``; None where nothing changes.

    Of the metadata only labels, annotations and owners are compared; those that ``wanted`` does not name stay as they are. A field of
    the spec is applied whole: whether a map is one value or many is known to the schema alone.
    """
    owned = _owned(current, manager=manager)
    spec, changed = _chosen(current.get("spec") or {}, wanted["spec"], owned.get("f:spec") or {})
    changed = changed or any(True for _ in removed(current.get("spec") or {}, wanted["spec"]))
    before, after = current["metadata"], wanted["metadata"]
    metadata: Object = {name: before[name] for name in ("name", "namespace", "uid", "resourceVersion")}
    owned_metadata = owned.get("f:metadata") or {}
    for name in ("labels", "annotations"):
        chosen, differs = _chosen(before.get(name) or {}, after.get(name) or {}, owned_metadata.get(f"f:{name}") or {})
        changed = changed or differs
        if chosen:
            metadata[name] = chosen
    if "f:ownerReferences" in owned_metadata and after.get("ownerReferences"):
        metadata["ownerReferences"] = after["ownerReferences"]
    if not changed:
        return None
    return {"apiVersion": wanted["apiVersion"], "kind": wanted["kind"], "metadata": metadata, "spec": spec}


def held_by_others(current: Object, wanted: Object, /, *, manager: str, fields: Collection[str] = ()) -> tuple[FieldOwner, ...]:
    """Owners of fields of the spec that ``wanted`` leaves out and that applying it would not remove; of ``fields`` alone, where such are
    named. Who has written through a subresource owns nothing."""
    found = []
    for path in removed(current.get("spec") or {}, wanted["spec"]):
        if fields and path[0] not in fields:
            continue
        for entry in current["metadata"].get("managedFields") or ():
            if entry.get("subresource") or (entry["manager"] == manager and entry["operation"] == "Apply"):
                continue
            if _holds(entry.get("fieldsV1") or {}, ("spec", *path)):
                found.append(FieldOwner(entry["manager"], "." + ".".join(("spec", *path))))
    return tuple(found)


def removed(current: Fields, wanted: Fields, /) -> Iterator[tuple[str, ...]]:
    """Paths of what ``current`` has and ``wanted`` has not; lists count as one value."""
    for name, value in current.items():
        if name not in wanted:
            yield (name,)
        elif isinstance(value, Mapping) and isinstance(wanted[name], Mapping):
            for rest in removed(value, wanted[name]):
                yield (name, *rest)


def _chosen(current: Fields, wanted: Fields, owned: Fields) -> tuple[dict[str, Any], bool]:
    chosen, changed = {}, False
    for name, value in wanted.items():
        differs = name not in current or current[name] != value
        changed = changed or differs
        if differs or f"f:{name}" in owned:
            chosen[name] = value
    return chosen, changed


def _owned(obj: Object, *, manager: str) -> Fields:
    for entry in obj["metadata"].get("managedFields") or ():
        if entry["manager"] == manager and entry["operation"] == "Apply" and not entry.get("subresource"):
            fields: Fields = entry.get("fieldsV1") or {}
            return fields
    return {}


def _holds(fields: Fields, path: tuple[str, ...]) -> bool:
    for name in path:
        if f"f:{name}" not in fields:
            return False
        fields = fields[f"f:{name}"]
    return True
