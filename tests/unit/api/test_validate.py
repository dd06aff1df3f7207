"""The words of ValidationException, constraint by constraint, and the departures of Lambda from its model."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kappa_core.errors import InvalidParameterValueException, LambdaError, ValidationException
from kappa_core.limits import Limits
from kappa_gateway.api import departures, validate
from kappa_gateway.api.model import OperationName, load_model
from kappa_gateway.api.parse import parse_request

ROLE = "arn:aws:iam::000000000000:role/r"
FUNCTION = {"FunctionName": "f", "Role": ROLE, "Code": {"ZipFile": "AAAA"}, "Runtime": "python3.12", "Handler": "a.b"}
ALIAS = {"Name": "live", "FunctionVersion": "1"}
LAYER_PATTERN = load_model().operations[OperationName("CreateFunction")].input.members["Layers"].shape.element.pattern  # type: ignore[union-attr]
NAME_PATTERN = load_model().operations[OperationName("CreateFunction")].input.members["FunctionName"].shape.pattern  # type: ignore[union-attr]


def judge(name: str, body: dict[str, Any], *, labels: dict[str, str] | None = None, limits: Limits | None = None) -> None:
    """What the control plane does with a JSON body before the operation sees it."""
    operation = load_model().operations[OperationName(name)]
    params = parse_request(operation, labels=labels or {}, query=[], headers={}, body=msgspec.json.encode(body))
    unchecked = departures.left_to_departures(operation)
    validate.check(operation.input, params, maxima=departures.maxima(limits or Limits()), unchecked=unchecked)
    departures.check(operation, params)


def refuse(name: str, body: dict[str, Any], *, labels: dict[str, str] | None = None, limits: Limits | None = None) -> LambdaError:
    """The error that a JSON body gets from an operation."""
    with pytest.raises(LambdaError) as caught:
        judge(name, body, labels=labels, limits=limits)
    return caught.value


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param({"Role": None}, "Value null at 'role' failed to satisfy constraint: Member must not be null", id="null"),
        pytest.param(
            {"MemorySize": 127},
            "Value '127' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128",
            id="memory-low",
        ),
        pytest.param(
            {"MemorySize": 10241},
            "Value '10241' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to 10240",
            id="memory-high-by-policy",
        ),
        pytest.param(
            {"Timeout": 901},
            "Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900",
            id="timeout-high-by-policy",
        ),
        pytest.param(
            {"EphemeralStorage": {"Size": 10241}},
            "Value '10241' at 'ephemeralStorage.size' failed to satisfy constraint: "
            "Member must have value less than or equal to 10240",
            id="nested",
        ),
        pytest.param(
            {"EphemeralStorage": {}},
            "Value null at 'ephemeralStorage.size' failed to satisfy constraint: Member must not be null",
            id="nested-null",
        ),
        pytest.param(
            {"Architectures": ["x86_64", "arm64"]},
            "Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: Member must have length less than or equal to 1",
            id="list-length",
        ),
        pytest.param(
            {"Architectures": ["foo"]},
            "Value '[foo]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: "
            "[Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
            id="list-enum",
        ),
        pytest.param(
            {"Architectures": [None]},
            "Value '[null]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: "
            "[Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
            id="list-null",
        ),
        pytest.param(
            {"Layers": ["not an arn"]},
            "Value '[not an arn]' at 'layers' failed to satisfy constraint: Member must satisfy constraint: "
            "[Member must have length less than or equal to 2048, Member must have length greater than or equal to 1, "
            f"Member must satisfy regular expression pattern: {LAYER_PATTERN}, Member must not be null]",
            id="list-pattern",
        ),
        pytest.param(
            {"Environment": {"Variables": {"1A": "secret"}}},
            "Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: "
            "[Member must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+, Member must not be null]",
            id="sensitive-map-keys",
        ),
        pytest.param(
            {"TracingConfig": {"Mode": "On"}},
            "Value 'On' at 'tracingConfig.mode' failed to satisfy constraint: "
            "Member must satisfy enum value set: [Active, PassThrough]",
            id="enum",
        ),
        pytest.param(
            {"KMSKeyArn": "k"},
            "Value 'k' at 'kMSKeyArn' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()",
            id="path-of-an-acronym",
        ),
        pytest.param(
            {"FunctionName": "a b"},
            f"Value 'a b' at 'functionName' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {NAME_PATTERN}",
            id="pattern",
        ),
        pytest.param(
            {"FunctionName": "f\n"},
            f"Value 'f\n' at 'functionName' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {NAME_PATTERN}",
            id="pattern-is-a-full-match",
        ),
        pytest.param(
            {"FileSystemConfigs": [{"Arn": "x", "LocalMountPath": "/mnt/a"}, {"Arn": "arn", "LocalMountPath": "/tmp"}]},
            None,
            id="structures-in-a-list",
        ),
    ],
)
def test_one_violation(change: dict[str, Any], sentence: str | None) -> None:
    error = refuse("CreateFunction", FUNCTION | change)
    assert isinstance(error, ValidationException)
    if sentence is not None:
        assert error.message == f"1 validation error detected: {sentence}"
    else:
        assert "at 'fileSystemConfigs.2.member.localMountPath'" in str(error.message)
    assert error.body() == {"message": error.message}


def test_several_violations_are_counted_and_joined() -> None:
    error = refuse("CreateFunction", {"FunctionName": "f", "MemorySize": 1})
    assert error.message == (
        "3 validation errors detected: "
        "Value null at 'role' failed to satisfy constraint: Member must not be null; "
        "Value null at 'code' failed to satisfy constraint: Member must not be null; "
        "Value '1' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128"
    )


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        pytest.param(
            {"2": 2},
            "Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy "
            "constraint: [Member must have value less than or equal to 1.0, Member must have value greater than or equal to 0.0, "
            "Member must not be null]",
            id="value",
        ),
        pytest.param(
            {"live": 0.5},
            "Value '{live=0.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must satisfy "
            "constraint: [Member must have length less than or equal to 1024, Member must have length greater than or equal to 1, "
            "Member must satisfy regular expression pattern: [0-9]+, Member must not be null]",
            id="key",
        ),
    ],
)
def test_maps_as_recorded_for_alias_routing(weights: dict[str, float], sentence: str) -> None:
    body = ALIAS | {"RoutingConfig": {"AdditionalVersionWeights": weights}}
    error = refuse("CreateAlias", body, labels={"FunctionName": "f"})
    assert error.message == f"1 validation error detected: {sentence}"


@pytest.mark.parametrize("value", ["a", "Größe", "名前", "a b", "x\u00a0y", "٣", "k:/=+-@_."])
def test_unicode_categories_of_java_patterns_are_honoured(value: str) -> None:
    operation = load_model().operations[OperationName("TagResource")]
    validate.check(
        operation.input, {"Resource": "arn:aws:lambda:eu-west-1:111122223333:function:f", "Tags": {value: value}}, maxima={}
    )


@pytest.mark.parametrize("value", ["a!", "1€", "😀", "a\nb", "a\n"])
def test_what_is_in_no_category_is_refused(value: str) -> None:
    error = refuse("TagResource", {"Tags": {value: "v"}}, labels={"Resource": "arn:aws:lambda:eu-west-1:111122223333:function:f"})
    assert isinstance(error, ValidationException)
    assert "at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: [" in str(error.message)


def test_java_classes_are_ascii() -> None:
    matches = validate.java_pattern(r"\d{2}")
    assert matches is not None
    assert matches("12")
    assert not matches("٣٣")


def test_an_alternation_is_matched_as_a_whole() -> None:
    matches = validate.java_pattern(r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+")
    assert matches is not None
    assert matches("$LATEST")
    assert not matches("$LATEST x")


def test_a_pattern_python_cannot_read_is_not_enforced_but_said(caplog: pytest.LogCaptureFixture) -> None:
    assert validate.java_pattern(r"\p{Sc}[") is None
    assert "is not enforced" in caplog.text


def test_a_huge_value_does_not_make_a_huge_answer() -> None:
    error = refuse("CreateFunction", FUNCTION | {"Handler": "a b" * 1_000_000})
    assert len(str(error.message)) < 20_000


def test_an_administrators_bounds_replace_the_models_in_both_directions() -> None:
    wide = Limits(timeout_max=9000)
    assert "less than or equal to 9000" in str(refuse("CreateFunction", FUNCTION | {"Timeout": 9001}, limits=wide).message)
    narrow = Limits(memory_max_mb=512)
    assert "less than or equal to 512" in str(refuse("CreateFunction", FUNCTION | {"MemorySize": 513}, limits=narrow).message)


def test_a_bare_name_over_64_characters_is_an_invalid_parameter_at_create() -> None:
    error = refuse("CreateFunction", FUNCTION | {"FunctionName": "f" * 65})
    assert isinstance(error, InvalidParameterValueException)
    assert error.message == (
        f"1 validation error detected: Value '{'f' * 65}' at 'functionName' failed to satisfy constraint: "
        "Member must have length less than or equal to 64"
    )


def test_over_140_characters_the_model_speaks_first() -> None:
    error = refuse("CreateFunction", FUNCTION | {"FunctionName": "f" * 141})
    assert isinstance(error, ValidationException)
    assert "less than or equal to 140" in str(error.message)


@pytest.mark.parametrize("runtime", ["cobol", pytest.param("custom", id="in the model for other uses")])
def test_an_unknown_runtime_is_an_invalid_parameter(runtime: str) -> None:
    error = refuse("CreateFunction", FUNCTION | {"Runtime": runtime})
    assert isinstance(error, InvalidParameterValueException)
    assert str(error.message).startswith(
        f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: ["
    )
    assert str(error.message).endswith("] or be a valid ARN")


def test_a_closed_runtime_is_named_as_such() -> None:
    error = refuse("UpdateFunctionConfiguration", {"Runtime": "python3.7"}, labels={"FunctionName": "f"})
    assert isinstance(error, InvalidParameterValueException)
    assert error.message == (
        "The runtime parameter of python3.7 is no longer supported for creating or updating AWS Lambda functions. "
        "We recommend you use a supported runtime while creating or updating functions."
    )


@pytest.mark.parametrize(
    "runtime", ["nodejs16.x", "nodejs18.x", "python3.8", "python3.14", "provided", "provided.al2023", "java8.al2"]
)
def test_a_deprecated_runtime_stays_creatable(runtime: str) -> None:
    operation = load_model().operations[OperationName("CreateFunction")]
    departures.check(operation, {"FunctionName": "f", "Runtime": runtime})
