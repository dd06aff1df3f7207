"""What objects are called: group, kinds, and the name of the object that stands for each resource, Deployment and field owner.

Lambda's names (64 characters, upper case, underscores; aliases and layers up to 140) do not fit Kubernetes' (DNS labels). A name
that is a DNS label of at most 40 characters is kept, so that people find what they wrote; any other becomes a slug of it and ten
hex digits of its SHA-256. Pure: whether an object of that name exists, or belongs to somebody else, is not known here.

    hello                      Function, and EventInvokeConfig of $LATEST
    hello.3                    its version 3
    hello.live                 its alias, and the alias' EventInvokeConfig
    hello-0f1e2d3c4b5a6978     the Deployment of one revision
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from kappa_core.resources import LATEST, Key, Kind

GROUP: Final = "lambda.kappa.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
LAYER_KIND: Final = "Layer"
"""What people write; the settler makes LayerVersions of it, and the core knows those alone."""

PLURALS: Final[dict[Kind, str]] = {
    "Function": "functions",
    "FunctionVersion": "functionversions",
    "Alias": "aliases",
    "LayerVersion": "layerversions",
    "EventSourceMapping": "eventsourcemappings",
    "EventInvokeConfig": "eventinvokeconfigs",
}
"""The plural of every kind that the core knows."""
KINDS: Final[dict[str, str]] = {**{str(kind): plural for kind, plural in PLURALS.items()}, LAYER_KIND: "layers"}
"""The plural of every kind that there is a CustomResourceDefinition for."""

API_MANAGER: Final = "kappa-api"
"""Field owner of what callers of the Lambda API set: specs, applied without force."""
GATEWAY_MANAGER: Final = "kappa-gateway"
"""Field owner of status."""
OPERATOR_MANAGER: Final = "kappa-operator"
CRDS_MANAGER: Final = "kappa-crds"
"""Field owner of the CustomResourceDefinitions."""

OBJECT_NAME_LENGTH: Final = 40
"""Leaves room for ``-`` and a revision hash (57 of a DNS label's 63 characters) and makes every object name a label value."""
_SLUG_LENGTH: Final = 29
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Owner(msgspec.Struct, frozen=True):
    """The object of a Function, as its children refer to it."""

    name: str
    uid: str


def object_name(name: str, *, region: str, default_region: str) -> str:
    """Of the object for a function or layer: at most 40 characters, a DNS label.

    Two regions share a namespace: the region takes part in the name wherever it is not the default one.
    """
    if region == default_region:
        return _label(name, full=name)
    return _label(name, full=f"{region}/{name}", keep=False)


def child_name(parent: str, sub: str) -> str:
    """Of the object for a version, alias or configuration of the function object ``parent``, or a version of a layer object."""
    if sub == LATEST:  # "latest" is a legal alias
        return parent
    return f"{parent}.{_label(sub, full=sub)}"


def key_name(key: Key, *, default_region: str, parent: str | None = None) -> str:
    """Of the object that the API makes for a key; ``parent`` is its function's object where kubectl has called that otherwise."""
    if key.kind == "EventSourceMapping":
        return key.name
    parent = parent or object_name(key.name, region=key.region, default_region=default_region)
    return child_name(parent, key.sub) if key.sub else parent


def is_uuid(name: str) -> bool:
    """Whether an object is named by a UUID, as event source mappings are that the API makes."""
    return _UUID.fullmatch(name) is not None


def revision_hash(revision: str) -> str:
    """16 hex digits of a revision: a revision itself is too long for a label."""
    return hashlib.sha256(revision.encode()).hexdigest()[:16]


def deployment_name(function_object: str, revision: str) -> str:
    """Of the one Deployment of a revision: at most 63 characters."""
    return f"{function_object[:46].rstrip('-')}-{revision_hash(revision)}"


def _label(name: str, *, full: str, keep: bool = True) -> str:
    """``name`` if it may stay, else a slug of it with a digest of ``full``."""
    if keep and len(name) <= OBJECT_NAME_LENGTH and _LABEL.fullmatch(name):
        return name
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG_LENGTH].strip("-")
    digest = hashlib.sha256(full.encode()).hexdigest()[:10]
    return f"{slug}-{digest}" if slug else digest
