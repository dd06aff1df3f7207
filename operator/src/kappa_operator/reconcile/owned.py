"""How what the operator makes is marked: by labels for lists and people, by an owner where it has one to be collected with."""

from __future__ import annotations

from typing import Final

from kappa_crds.api import Object

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED: Final[dict[str, str]] = {MANAGED_BY: "kappa-operator", "app.kubernetes.io/part-of": "kappa"}


def owner_reference(owner: Object) -> Object:
    """Kubernetes deletes the child after its owner. It does not block the owner's deletion: that needs a right of its own."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def is_managed(thing: Object) -> bool:
    """Whether the operator made it."""
    found: dict[str, str] = thing["metadata"].get("labels") or {}
    return found.get(MANAGED_BY) == MANAGED[MANAGED_BY]
