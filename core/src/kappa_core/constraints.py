"""AWS's wording of a broken constraint, for the few that the service model does not express.

The framework in front of Lambda answers with one sentence per broken constraint, joined; :mod:`kappa_gateway.api` does so for what
the model says, the rules for what only Lambda itself knows.
"""

from __future__ import annotations

from collections.abc import Sequence

from kappa_core.errors import ValidationException


def violation(value: object, where: str, constraint: str) -> str:
    """``Value 'x' at 'where' failed to satisfy constraint: ...``, without the count in front."""
    return f"Value '{value}' at '{where}' failed to satisfy constraint: {constraint}"


def summary(violations: Sequence[str]) -> str:
    """All broken constraints of a request as one message."""
    word = "error" if len(violations) == 1 else "errors"
    return f"{len(violations)} validation {word} detected: {'; '.join(violations)}"


def at_most(value: int, limit: int, where: str) -> str | None:
    """The violation, if ``value`` is over ``limit``."""
    if value <= limit:
        return None
    return violation(value, where, f"Member must have value less than or equal to {limit}")


def refuse(violations: Sequence[str | None]) -> None:
    """Raises ValidationException if any constraint is broken."""
    broken = [one for one in violations if one is not None]
    if broken:
        raise ValidationException(summary(broken))
