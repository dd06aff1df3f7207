"""Every form of a function's name is read as the service model's pattern reads it, and nothing else is accepted."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_core import names
from kappa_core.errors import (
    AccessDeniedException,
    InvalidParameterValueException,
    LambdaError,
    ResourceNotFoundException,
    ValidationException,
)
from kappa_core.resources import AccountId, Region

ACCOUNT = AccountId("123456789012")
REGION = Region("eu-central-1")
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:hello"


def parse(text: str, qualifier: str | None = None) -> names.FunctionName:
    return names.parse_function(text, qualifier, account=ACCOUNT, region=REGION)


@pytest.mark.parametrize(
    "text",
    ["hello", "function:hello", f"{ACCOUNT}:function:hello", f"{ACCOUNT}:hello", f"{REGION}:{ACCOUNT}:function:hello", ARN],
)
@pytest.mark.parametrize("qualifier", [None, "$LATEST", "7", "live", "$LATEST.PUBLISHED"])
def test_every_form_names_the_same_function_with_or_without_qualifier(text: str, qualifier: str | None) -> None:
    given_text = text if qualifier is None else f"{text}:{qualifier}"
    assert parse(given_text) == names.FunctionName(ACCOUNT, REGION, "hello", qualifier)


def test_a_name_that_looks_like_a_prefix_is_still_a_name() -> None:
    assert parse("function").name == "function"
    assert parse("arn").name == "arn"
    assert parse(ACCOUNT).name == ACCOUNT
    assert parse("function:$LATEST") == names.FunctionName(ACCOUNT, REGION, "function", "$LATEST")


def test_the_same_qualifier_in_both_places_is_fine_and_different_ones_are_refused() -> None:
    assert parse(f"{ARN}:live", "live").qualifier == "live"
    assert parse(ARN, "live").given_arn == f"{ARN}:live"
    with pytest.raises(InvalidParameterValueException) as caught:
        parse(f"{ARN}:live", "1")
    assert caught.value.message == "The derived qualifier from the function name does not match the specified qualifier."


def test_another_region_is_not_found_in_aws_words() -> None:
    with pytest.raises(ResourceNotFoundException) as caught:
        parse(ARN.replace(REGION, "us-east-1"))
    assert caught.value.message == "Functions from 'us-east-1' are not reachable in this region ('eu-central-1')"


def test_another_account_is_denied_with_an_empty_message() -> None:
    with pytest.raises(AccessDeniedException) as caught:
        parse(ARN.replace(ACCOUNT, "210987654321"))
    assert caught.value.message is None


@pytest.mark.parametrize(
    "text", ["", "a b", "he/llo", "hello:", ":hello", "arn:aws:s3:::bucket", f"{ARN}:1:2", "hello:$latest", "ä"]
)
def test_what_is_no_name_is_a_validation_error_that_quotes_it(text: str) -> None:
    with pytest.raises(ValidationException) as caught:
        parse(text)
    assert caught.value.message is not None
    assert caught.value.message.startswith(
        f"1 validation error detected: Value '{text}' at 'functionName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: (arn:"
    )


def test_dots_are_read_but_cannot_be_created() -> None:
    assert parse("a.b").name == "a.b"
    with pytest.raises(ValidationException):
        names.parse_new_function("a.b", account=ACCOUNT, region=REGION)


def test_lengths_are_bounded_per_operation() -> None:
    with pytest.raises(ValidationException, match="length less than or equal to 170"):
        parse("x" * 171)
    with pytest.raises(ValidationException, match="length less than or equal to 140"):
        names.parse_function("x" * 141, account=ACCOUNT, region=REGION, rule=names.DELETE)
    assert names.parse_new_function("x" * 64, account=ACCOUNT, region=REGION).name == "x" * 64
    with pytest.raises(InvalidParameterValueException) as caught:
        names.parse_new_function("x" * 65, account=ACCOUNT, region=REGION)
    assert caught.value.message == (
        f"1 validation error detected: Value '{'x' * 65}' at 'functionName' failed to satisfy constraint: "
        "Member must have length less than or equal to 64"
    )


def test_a_function_cannot_be_created_under_a_qualifier() -> None:
    with pytest.raises(InvalidParameterValueException, match="permitted on Lambda functions only"):
        names.parse_new_function("hello:1", account=ACCOUNT, region=REGION)


@pytest.mark.parametrize("qualifier", ["a b", "ä", "x" * 129, ""])
def test_a_bad_qualifier_is_a_validation_error_at_qualifier(qualifier: str) -> None:
    with pytest.raises(ValidationException, match="at 'qualifier' failed to satisfy constraint"):
        parse("hello", qualifier)


def test_unqualified_operations_accept_latest_at_most() -> None:
    assert names.require_unqualified(parse("hello:$LATEST")).name == "hello"
    for text, latest in (("hello:1", True), ("hello:live", True), ("hello:$LATEST", False)):
        with pytest.raises(InvalidParameterValueException, match="permitted on Lambda functions only"):
            names.require_unqualified(parse(text), latest=latest)


def test_arns_carry_the_partition_of_the_region() -> None:
    assert names.function_arn(ACCOUNT, "cn-north-1", "f").startswith("arn:aws-cn:lambda:cn-north-1:")
    assert names.function_arn(ACCOUNT, "us-gov-west-1", "f").startswith("arn:aws-us-gov:lambda:")


_names = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
_qualifiers = (
    st.none() | st.sampled_from(["$LATEST", "$LATEST.PUBLISHED"]) | st.from_regex(r"[a-zA-Z0-9_-]{1,32}", fullmatch=True)
)


@given(name=_names, qualifier=_qualifiers)
def test_a_formatted_arn_parses_to_what_it_was_made_of(name: str, qualifier: str | None) -> None:
    made = names.FunctionName(ACCOUNT, REGION, name, qualifier)
    assert parse(made.given_arn) == made


_tokens = st.sampled_from(
    ["arn", "aws", "", "aws-cn", "lambda", REGION, "us-gov-east-1", ACCOUNT, "function", "$LATEST", "a.b", "x", "9"]
)


@given(st.lists(_tokens, min_size=1, max_size=9).map(":".join) | st.text(max_size=40))
def test_exactly_what_the_model_pattern_accepts_is_accepted(text: str) -> None:
    pattern = names.NAMESPACED_FUNCTION_NAME_PATTERN.replace(r"\d", "[0-9]")
    match = re.fullmatch(pattern, text)
    found = names.split_function(text)
    assert (found is not None) == (match is not None)
    if match is not None and found is not None:
        assert found[2] == match.group(11)
        assert found[3] == match.group(13)


@given(text=st.text(max_size=200), qualifier=st.none() | st.text(max_size=140))
def test_any_text_is_parsed_or_refused_with_an_error_of_the_api(text: str, qualifier: str | None) -> None:
    try:
        name = parse(text, qualifier)
    except LambdaError as error:
        assert error.status in {400, 403, 404}  # noqa: PT017 - both outcomes are allowed
    else:
        assert name.arn.endswith(f":function:{name.name}")
