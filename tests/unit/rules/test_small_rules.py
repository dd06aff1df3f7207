"""Runtimes, environment variables, tags, concurrency, publishing, deletion and code sources."""

from __future__ import annotations

from typing import Any

import botocore.session
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import made
from kappa_core.errors import InvalidParameterValueException, ResourceConflictException
from kappa_core.limits import Limits
from kappa_core.rules import concurrency, deletion, environment, publish, runtimes, source, tags

# -- runtimes ---------------------------------------------------------------------------------------------------------------


def test_every_runtime_of_the_service_model_is_known() -> None:
    model = botocore.session.get_session().get_service_model("lambda")
    listed = set(model.shape_for("Runtime").enum) - {"custom"}  # for the runtimes of RuntimeConfig, which is refused
    assert listed <= set(runtimes.CREATABLE) | set(runtimes.DEPRECATED)


def test_unknown_and_deprecated_runtimes_have_texts_of_their_own() -> None:
    runtimes.check_runtime("nodejs18.x")
    with pytest.raises(InvalidParameterValueException) as deprecated:
        runtimes.check_runtime("python3.7")
    assert deprecated.value.message == (
        "The runtime parameter of python3.7 is no longer supported for creating or updating AWS Lambda functions. "
        "We recommend you use a supported runtime while creating or updating functions."
    )
    with pytest.raises(InvalidParameterValueException) as unknown:
        runtimes.check_runtime("cobol85")
    assert unknown.value.message is not None
    assert unknown.value.message.startswith(
        "Value cobol85 at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: ["
    )
    assert unknown.value.message.endswith("] or be a valid ARN")


# -- environment ------------------------------------------------------------------------------------------------------------


def test_reserved_names_are_refused_by_name() -> None:
    with pytest.raises(InvalidParameterValueException) as caught:
        environment.check_variables({"AWS_REGION": "x", "OK": "y", "LAMBDA_TASK_ROOT": "z"})
    assert caught.value.message == (
        "Lambda was unable to configure your environment variables because the environment variables you have provided "
        "contains reserved keys that are currently not supported for modification. "
        "Reserved keys used in this request: AWS_REGION, LAMBDA_TASK_ROOT"
    )


def test_a_null_character_is_refused_because_no_process_could_be_given_it() -> None:
    with pytest.raises(InvalidParameterValueException, match=r"contains a null character. Variables: B$"):
        environment.check_variables({"A": "x", "B": "y\0z"})


def test_four_kilobytes_of_compact_json_are_allowed_and_not_one_more() -> None:
    fits = {"KEY": "x" * (4096 - len('{"KEY":""}'))}
    environment.check_variables(fits)
    with pytest.raises(InvalidParameterValueException) as caught:
        environment.check_variables({"KEY": fits["KEY"] + "x"})
    assert caught.value.message is not None
    assert caught.value.message.startswith(
        "Lambda was unable to configure your environment variables because the environment variables you have provided exceeded "
        'the 4KB limit. String measured: {"KEY":"xxx'
    )


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=2000), max_size=3))
def test_any_variables_are_accepted_or_refused_with_an_error_of_the_api(variables: dict[str, str]) -> None:
    try:
        environment.check_variables(variables)
    except InvalidParameterValueException as error:
        assert error.message  # noqa: PT017 - both outcomes are allowed


# -- tags -------------------------------------------------------------------------------------------------------------------


def test_tags_are_added_by_key_up_to_fifty() -> None:
    full = {f"k{n}": "v" for n in range(50)}
    assert tags.add_tags(full, {"k1": "new"})["k1"] == "new"
    with pytest.raises(InvalidParameterValueException, match=r"^Number of tags exceeds resource tag limit\.$"):
        tags.add_tags(full, {"one": "more"})
    with pytest.raises(InvalidParameterValueException, match=r"^An error occurred and the request cannot be processed\.$"):
        tags.add_tags(full, {})
    assert tags.remove_tags({"a": "1", "b": "2"}, ["a", "z"]) == {"b": "2"}


# -- concurrency ------------------------------------------------------------------------------------------------------------


def test_a_hundred_must_stay_unreserved() -> None:
    limits = Limits()
    concurrency.check_reservation(limits, wanted=800, others=[100, None])
    with pytest.raises(InvalidParameterValueException) as caught:
        concurrency.check_reservation(limits, wanted=801, others=[100, None])
    assert caught.value.body() == {
        "message": "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
        "minimum value of [100]."
    }
    assert concurrency.unreserved(limits, [100, None, 0]) == 900


def test_zero_can_always_be_reserved() -> None:
    concurrency.check_reservation(Limits(account_concurrency=50), wanted=0, others=[40])


# -- publish ----------------------------------------------------------------------------------------------------------------


def test_the_same_configuration_is_published_once_whatever_the_description_of_the_version() -> None:
    function = made.function()
    assert publish.unchanged(function) is None
    published = publish.complete(publish.begin(function, version=3, description="mine"))
    assert publish.unchanged(published) == 3
    tagged = msgspec.structs.replace(published, tags={"a": "b"}, reserved_concurrency=1)
    assert publish.unchanged(tagged) == 3
    changed = msgspec.structs.replace(published, configuration=made.configuration(description="other"))
    assert publish.unchanged(changed) is None


def test_a_publication_is_pending_until_it_is_complete() -> None:
    begun = publish.begin(made.function(), version=1, description=None)
    assert publish.pending(begun) is not None
    assert publish.pending(publish.complete(begun)) is None
    assert publish.pending(made.function()) is None


def test_a_version_freezes_latest_and_takes_the_description_of_the_request() -> None:
    function = made.function(configuration=made.configuration(description="latest"))
    for given_description, expected in ((None, "latest"), ("", ""), ("mine", "mine")):
        begun = publish.begin(function, version=4, description=given_description)
        assert begun.publication is not None
        version = publish.version_of(begun, begun.publication)
        assert (version.version, version.function_uid, version.configuration.description) == (4, "uid-1", expected)
        assert version.status.state == "Pending"


def test_the_code_precondition_names_both_digests() -> None:
    function = made.function()
    current = publish.code_sha256(function.configuration.code.sha256)
    publish.check_code(function, None)
    publish.check_code(function, current)
    with pytest.raises(InvalidParameterValueException) as caught:
        publish.check_code(function, "other")
    assert caught.value.message == (
        f"CodeSHA256 (other) is different from current CodeSHA256 in $LATEST ({current}). "
        "Please try again with the CodeSHA256 in $LATEST."
    )


# -- deletion ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("qualifier", "text"),
    [
        ("$LATEST", "$LATEST version cannot be deleted without deleting the function."),
        ("live", "Deletion of aliases is not currently supported."),
    ],
)
def test_only_numbers_can_be_deleted(qualifier: str, text: str) -> None:
    with pytest.raises(InvalidParameterValueException) as caught:
        deletion.check_version_deletion(qualifier, [])
    assert caught.value.message == text


def test_a_version_under_an_alias_stays_also_when_it_has_only_a_share() -> None:
    shared = made.alias("canary", to="1", additional_version_weights={"2": 0.1})
    deletion.check_version_deletion("3", [shared])
    for qualifier in ("1", "2"):
        with pytest.raises(ResourceConflictException) as caught:
            deletion.check_version_deletion(qualifier, [shared])
        assert caught.value.message == "Unable to delete version because the following aliases reference it: [canary]"


# -- source -----------------------------------------------------------------------------------------------------------------


def test_code_comes_from_the_request_or_from_s3() -> None:
    assert source.source_of({"ZipFile": b"x"}) == source.ZipSource(b"x")
    assert source.source_of({"S3Bucket": "b", "S3Key": "k", "S3ObjectVersion": "v"}) == source.S3Source("b", "k", "v")


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, "Please provide a source for function code."),
        ({"ZipFile": b"x", "S3Bucket": "b"}, "Please do not provide other FunctionCode parameters when providing a ZipFile."),
        ({"S3Bucket": "b"}, "Please provide both S3Bucket and S3Key."),
        ({"ImageUri": "i"}, source.NO_IMAGES),
        (
            {"S3Bucket": "b", "S3Key": "k", "S3ObjectStorageMode": "REFERENCE"},
            "Code is always copied here: S3ObjectStorageMode must be COPY or left out.",
        ),
    ],
)
def test_anything_else_is_refused(members: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidParameterValueException) as caught:
        source.source_of(members)
    assert caught.value.message == text
