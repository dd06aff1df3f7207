"""Layer, layer version and event source mapping ARNs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_core import names
from kappa_core.errors import InvalidParameterValueException, LambdaError, ResourceNotFoundException, ValidationException
from kappa_core.resources import AccountId, Key, Region

ACCOUNT = AccountId("123456789012")
REGION = Region("eu-central-1")
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:tools"


def test_a_layer_is_named_plainly_or_by_arn() -> None:
    expected = names.LayerName(ACCOUNT, REGION, "tools", 3)
    assert names.parse_layer("tools", account=ACCOUNT, region=REGION, version=3) == expected
    assert names.parse_layer(ARN, account=ACCOUNT, region=REGION, version=3) == expected
    assert expected.arn == f"{ARN}:3"
    assert expected.key == Key("LayerVersion", ACCOUNT, REGION, "tools", "3")


def test_a_layer_of_another_account_keeps_its_account() -> None:
    found = names.parse_layer(ARN, account=AccountId("210987654321"), region=REGION)
    assert found.account == ACCOUNT


def test_versions_below_one_are_refused_in_aws_words() -> None:
    with pytest.raises(InvalidParameterValueException) as caught:
        names.parse_layer("tools", account=ACCOUNT, region=REGION, version=0)
    assert caught.value.message == "Layer Version Cannot be less than 1"


@pytest.mark.parametrize("text", [f"{ARN}:3", "to ols", "", "x" * 141, "arn:aws:lambda:::awslayer:Tools"])
def test_what_is_no_layer_is_a_validation_error(text: str) -> None:
    with pytest.raises(ValidationException, match="at 'layerName' failed to satisfy constraint"):
        names.parse_layer(text, account=ACCOUNT, region=REGION)


def test_a_layer_of_another_region_does_not_exist_here() -> None:
    with pytest.raises(ResourceNotFoundException):
        names.parse_layer(ARN, account=ACCOUNT, region=Region("us-east-1"))


@pytest.mark.parametrize(
    "text", [ARN, f"{ARN}:x", f"{ARN}:1:2", "tools:1", "arn:aws:lambda:::awslayer:Tools", f"{ARN}:{'9' * 5000}"]
)
def test_only_a_whole_layer_version_arn_is_one(text: str) -> None:
    assert names.parse_layer_version_arn(text) is None


@given(name=st.from_regex(r"[a-zA-Z0-9_-]{1,140}", fullmatch=True), version=st.integers(1, 10**17))
def test_a_formatted_layer_version_arn_parses_to_what_it_was_made_of(name: str, version: int) -> None:
    made = names.LayerName(ACCOUNT, REGION, name, version)
    assert names.parse_layer_version_arn(made.arn) == made


@given(st.text(max_size=200))
def test_any_text_is_a_layer_or_an_error_of_the_api(text: str) -> None:
    try:
        assert names.parse_layer(text, account=ACCOUNT, region=REGION).name
    except LambdaError as error:
        assert error.status in {400, 404}  # noqa: PT017 - both outcomes are allowed


def test_event_source_mapping_arns_round_trip() -> None:
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    arn = names.event_source_mapping_arn(ACCOUNT, REGION, uuid)
    assert names.parse_event_source_mapping_arn(arn) == Key("EventSourceMapping", ACCOUNT, REGION, uuid)
    assert names.parse_event_source_mapping_arn(arn + "0") is None
    assert names.parse_event_source_mapping_arn(ARN) is None
