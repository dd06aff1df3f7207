"""Aliases: what they may point to, and which version an invocation of one runs.

A second version gets a share of the invocations by weight; the draw is the caller's, so that routing stays pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from kappa_core.constraints import summary, violation
from kappa_core.errors import InvalidParameterValueException, UntypedInvalidParameterValueException, ValidationException
from kappa_core.names import is_version
from kappa_core.resources import LATEST, Alias, Configuration

_WEIGHT = (
    "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, "
    "Member must have value greater than or equal to 0.0, Member must not be null]"
)
_KEY = (
    "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, "
    "Member must have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+, "
    "Member must not be null]"
)


def check_routing(version: str, weights: Mapping[str, float]) -> None:
    """Whether an alias on ``version`` may carry these additional weights; empty ones always may.

    Raises ValidationException and InvalidParameterValueException in the recorded words and order.
    """
    if not weights:
        return
    if len(weights) > 1:
        raise InvalidParameterValueException("Number of items in AdditionalVersionWeights cannot be greater than 1")
    for other, weight in weights.items():
        shown = f"{{{other}={float(weight)}}}"
        where = "routingConfig.additionalVersionWeights"
        if not is_version(other):
            raise ValidationException(summary([violation(shown, where, _KEY)]))
        if not 0.0 <= weight <= 1.0:
            raise ValidationException(summary([violation(shown, where, _WEIGHT)]))
        if other == version:
            raise InvalidParameterValueException(
                f"Invalid function version {other}. Function version {other} is already included in routing configuration."
            )
    if version == LATEST:
        raise UntypedInvalidParameterValueException("$LATEST is not supported for an alias pointing to more than 1 version")


def check_alike(primary: Configuration, additional: Configuration) -> None:
    """Both versions of a weighted alias must share what decides on whose behalf they run and where failures go."""
    if primary.role != additional.role:
        raise InvalidParameterValueException("Both versions of an alias with weights must have the same execution role.")
    if primary.dead_letter != additional.dead_letter:
        raise InvalidParameterValueException("Both versions of an alias with weights must have the same dead-letter queue.")


def choose(alias: Alias, draw: float) -> str:
    """The version that this invocation runs; ``draw`` is uniform in [0, 1)."""
    for version, weight in alias.additional_version_weights.items():
        if draw < weight:
            return version
    return alias.function_version
