"""What an alias may point to, in the recorded words."""

from __future__ import annotations

import pytest

import made
from kappa_core.errors import InvalidParameterValueException, LambdaError, ValidationException
from kappa_core.resources import DeadLetter
from kappa_core.rules.routing import check_alike, check_routing

_MAP_VALUE = (
    "failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, "
    "Member must have value greater than or equal to 0.0, Member must not be null]"
)


@pytest.mark.parametrize(
    ("version", "weights", "error", "text"),
    [
        (
            "1",
            {"2": 0.1, "3": 0.2},
            InvalidParameterValueException,
            "Number of items in AdditionalVersionWeights cannot be greater than 1",
        ),
        (
            "1",
            {"2": 2.0},
            ValidationException,
            f"1 validation error detected: Value '{{2=2.0}}' at 'routingConfig.additionalVersionWeights' {_MAP_VALUE}",
        ),
        (
            "1",
            {"2": float("nan")},
            ValidationException,
            f"1 validation error detected: Value '{{2=nan}}' at 'routingConfig.additionalVersionWeights' {_MAP_VALUE}",
        ),
        (
            "1",
            {"1": 0.5},
            InvalidParameterValueException,
            "Invalid function version 1. Function version 1 is already included in routing configuration.",
        ),
        (
            "$LATEST",
            {"2": 0.5},
            InvalidParameterValueException,
            "$LATEST is not supported for an alias pointing to more than 1 version",
        ),
    ],
)
def test_routing_is_refused_in_aws_words(version: str, weights: dict[str, float], error: type[LambdaError], text: str) -> None:
    with pytest.raises(error) as caught:
        check_routing(version, weights)
    assert caught.value.message == text


def test_the_error_of_a_weighted_latest_carries_no_type() -> None:
    with pytest.raises(InvalidParameterValueException) as caught:
        check_routing("$LATEST", {"2": 0.5})
    assert caught.value.body() == {"message": "$LATEST is not supported for an alias pointing to more than 1 version"}


def test_only_numbers_carry_weight() -> None:
    with pytest.raises(ValidationException, match="Map keys must satisfy constraint"):
        check_routing("1", {"$LATEST": 0.5})


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_one_other_version_may_take_any_share(weight: float) -> None:
    check_routing("1", {"2": weight})
    check_routing("$LATEST", {})


def test_both_versions_share_role_and_dead_letter_queue() -> None:
    check_alike(made.configuration(), made.configuration(timeout=9))
    with pytest.raises(InvalidParameterValueException, match="same execution role"):
        check_alike(made.configuration(), made.configuration(role="arn:aws:iam::123456789012:role/other"))
    with pytest.raises(InvalidParameterValueException, match="same dead-letter queue"):
        check_alike(made.configuration(), made.configuration(dead_letter=DeadLetter(target_arn="arn:aws:sqs:::q")))
