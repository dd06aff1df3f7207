"""Conditions: what the operator says about a resource, and whether saying it again would be news.

The gateway has conditions of its own in the same list; those are never touched here. A condition's transition time moves with its
status alone, and where nothing has changed there is nothing to write.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from kappa_crds.api import Object
from kappa_crds.status import condition

READY: Final = "Ready"
NAME_CONFLICT: Final = "NameConflict"
"""There, and True, only while somebody else has the name."""
STORED_ONLY: Final = "StoredOnly"
"""There, and True, only while settings are given that are kept and shown but change nothing."""
OWN_TYPES: Final = frozenset({READY, NAME_CONFLICT, STORED_ONLY})

Status = Literal["True", "False", "Unknown"]


class Condition(msgspec.Struct, frozen=True):
    """One thing to say about one generation of a resource."""

    type: str
    status: Status
    reason: str
    """CamelCase; stable, programs go by it."""
    message: str


class Transition(msgspec.Struct, frozen=True):
    """A condition whose status or reason is another one than before: worth an event."""

    condition: Condition
    first: bool
    """There was none before."""


def ready(message: str, reason: str = "Ready") -> Condition:
    return Condition(READY, "True", reason, message)


def not_ready(reason: str, message: str, *, status: Status = "False") -> Condition:
    return Condition(READY, status, reason, message)


def written(thing: Object, wanted: Iterable[Condition], *, now_ms: int) -> list[Object] | None:
    """The operator's conditions as they should stand in ``status.conditions``; None where they stand so already."""
    before = _own(thing)
    after = [
        condition(
            list(before.values()),
            type=each.type,
            status=each.status,
            reason=each.reason,
            message=each.message,
            generation=thing["metadata"].get("generation", 0),
            now_ms=now_ms,
        )
        for each in wanted
    ]
    return None if {each["type"]: each for each in after} == before else after


def transitions(thing: Object, wanted: Iterable[Condition]) -> list[Transition]:
    """Which of the conditions are news."""
    before = _own(thing)
    found = []
    for each in wanted:
        old = before.get(each.type)
        if old is None or (old["status"], old["reason"]) != (each.status, each.reason):
            found.append(Transition(each, old is None))
    return found


def _own(thing: Object) -> dict[str, Object]:
    conditions: list[Object] = (thing.get("status") or {}).get("conditions") or []
    return {each["type"]: each for each in conditions if each["type"] in OWN_TYPES}
