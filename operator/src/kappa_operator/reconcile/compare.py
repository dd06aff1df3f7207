"""Whether an object is as it should be already: the difference between a resync that writes nothing and one that writes everything."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec


def satisfies(there: Any, wanted: Any) -> bool:
    """Whether ``there`` says everything that ``wanted`` says. Objects may say more (the API server adds fields); lists may not."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(name in there and satisfies(there[name], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(satisfies(one, other) for one, other in zip(there, wanted, strict=True))
        )
    return bool(there == wanted)


def digest(value: object) -> str:
    """16 hex digits that change with any part of ``value``."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:16]
