"""Who has a function's name: of several objects that claim the same account, region and name, the oldest, and no other is served."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kappa_crds.api import Object


class Claim(msgspec.Struct, frozen=True, order=True):
    """Claims sort by who comes first. The rule is the gateway's as well: both must come to the same answer."""

    created: str
    """RFC 3339 with seconds, as the API server writes it."""
    uid: str
    place: str
    """``<namespace>/<name>`` of the object."""


def claim(thing: Object) -> Claim:
    metadata = thing["metadata"]
    return Claim(metadata.get("creationTimestamp") or "", metadata["uid"], f"{metadata['namespace']}/{metadata['name']}")


def holder(claims: Iterable[Claim]) -> Claim:
    """The one that has the name."""
    return min(claims)
