"""Defaults of a new function, merging of an update, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import made
from kappa_core.errors import (
    CodeSigningConfigNotFoundException,
    InvalidParameterValueException,
    LambdaError,
    ValidationException,
)
from kappa_core.limits import Limits
from kappa_core.resources import Configuration, DeadLetter, Logging, VpcConfig
from kappa_core.rules import configuration

MANDATORY = {"Runtime": "python3.12", "Handler": "app.handler", "Role": "arn:aws:iam::123456789012:role/lambda"}


def created(**members: Any) -> Configuration:
    return configuration.created({**MANDATORY, **members}, name="hello", bounds=Limits())


def updated(current: Configuration, **members: Any) -> Configuration:
    return configuration.updated(current, members, bounds=Limits())


def test_a_new_function_has_aws_defaults() -> None:
    made_of = created()
    assert (made_of.timeout, made_of.memory_size, made_of.ephemeral_storage_mb) == (3, 128, 512)
    assert (made_of.description, made_of.environment, made_of.layers, made_of.vpc_config) == ("", None, (), None)
    assert (made_of.architectures, made_of.tracing_mode, made_of.snap_start) == (("x86_64",), "PassThrough", "None")
    assert made_of.logging == Logging(log_group="/aws/lambda/hello")


def test_what_an_update_leaves_out_stays() -> None:
    current = created(
        Description="d",
        EphemeralStorage={"Size": 1024},
        TracingConfig={"Mode": "Active"},
        Environment={"Variables": {"AB": "c"}},
        KMSKeyArn="arn:aws:kms:eu-central-1:123456789012:key/k",
        DeadLetterConfig={"TargetArn": "arn:aws:sqs:eu-central-1:123456789012:q"},
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        FileSystemConfigs=[{"Arn": "arn:fs", "LocalMountPath": "/mnt/x"}],
    )
    changed = updated(current, Timeout=9)
    assert changed.timeout == 9
    assert configuration.updated(changed, {"Timeout": 3}, bounds=Limits()) == current


def test_structures_are_replaced_whole_and_emptied_by_their_empty_form() -> None:
    current = created(
        Environment={"Variables": {"AB": "c", "DE": "f"}},
        Layers=["arn:1", "arn:2"],
        DeadLetterConfig={"TargetArn": "arn:aws:sqs:eu-central-1:123456789012:q"},
        KMSKeyArn="arn:aws:kms:eu-central-1:123456789012:key/k",
        VpcConfig={"SubnetIds": ["subnet-1"]},
    )
    assert updated(current, Environment={"Variables": {"AB": "x"}}).environment == {"AB": "x"}
    assert updated(current, Environment={}).environment == {}
    assert updated(current, Environment={"Variables": {}}).environment == {}
    assert updated(current, Layers=[]).layers == ()
    assert updated(current, DeadLetterConfig={"TargetArn": ""}).dead_letter is None
    assert updated(current, DeadLetterConfig={"TargetArn": "arn:x"}).dead_letter == DeadLetter(target_arn="arn:x")
    assert updated(current, KMSKeyArn="").kms_key_arn is None
    assert updated(current, VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}).vpc_config == VpcConfig()


def test_json_logging_gets_levels_and_text_drops_them() -> None:
    json_logging = updated(created(), LoggingConfig={"LogFormat": "JSON"})
    assert json_logging.logging == Logging(
        log_format="JSON", application_log_level="INFO", system_log_level="INFO", log_group="/aws/lambda/hello"
    )
    debug = updated(json_logging, LoggingConfig={"ApplicationLogLevel": "DEBUG", "LogGroup": "mine"})
    assert (debug.logging.application_log_level, debug.logging.system_log_level, debug.logging.log_group) == (
        "DEBUG",
        "INFO",
        "mine",
    )
    assert updated(debug, LoggingConfig={"LogFormat": "Text"}).logging == Logging(log_group="mine")


def test_levels_need_json() -> None:
    with pytest.raises(InvalidParameterValueException) as caught:
        created(LoggingConfig={"ApplicationLogLevel": "DEBUG"})
    assert caught.value.message == (
        'LogLevel is not supported when LogFormat is set to "Text". '
        'Remove LogLevel from your request or change the LogFormat to "JSON" and try again.'
    )


@pytest.mark.parametrize(
    ("members", "where", "limit"),
    [
        ({"MemorySize": 10241}, "memorySize", 10240),
        ({"Timeout": 901}, "timeout", 900),
        ({"EphemeralStorage": {"Size": 10241}}, "ephemeralStorage.size", 10240),
    ],
)
def test_numbers_over_the_limits_are_validation_errors(members: dict[str, Any], where: str, limit: int) -> None:
    with pytest.raises(ValidationException) as caught:
        created(**members)
    assert caught.value.message == (
        f"1 validation error detected: Value '{limit + 1}' at '{where}' failed to satisfy constraint: "
        f"Member must have value less than or equal to {limit}"
    )


def test_several_broken_limits_are_one_answer_and_an_administrator_may_raise_them() -> None:
    with pytest.raises(
        ValidationException, match=r"^2 validation errors detected: Value '10241' at 'memorySize' .*; Value '901' at"
    ):
        created(MemorySize=10241, Timeout=901)
    assert configuration.created({**MANDATORY, "Timeout": 3600}, name="hello", bounds=Limits(timeout_max=3600)).timeout == 3600


_IMAGE = "Container images cannot run here: provide the code as a zip archive, with package type Zip."


@pytest.mark.parametrize(
    ("members", "error", "text"),
    [
        ({"PackageType": "Image"}, InvalidParameterValueException, _IMAGE),
        ({"ImageConfig": {"Command": ["x"]}}, InvalidParameterValueException, _IMAGE),
        (
            {"Handler": ""},
            InvalidParameterValueException,
            "Runtime and Handler are mandatory parameters for functions created with deployment packages.",
        ),
        (
            {"CodeSigningConfigArn": "arn:csc"},
            CodeSigningConfigNotFoundException,
            "The code signing configuration cannot be found. Check that the provided configuration is not deleted: arn:csc.",
        ),
        (
            {"SnapStart": {"ApplyOn": "PublishedVersions"}, "Runtime": "nodejs22.x"},
            InvalidParameterValueException,
            "nodejs22.x is not supported for SnapStart enabled functions.",
        ),
        (
            {"DurableConfig": {"ExecutionTimeout": 1}},
            InvalidParameterValueException,
            "DurableConfig is not supported here: leave it out.",
        ),
    ],
)
def test_what_cannot_run_here_is_said_in_one_sentence(members: dict[str, Any], error: type[LambdaError], text: str) -> None:
    with pytest.raises(error) as caught:
        created(**members)
    assert caught.value.message == text


def test_a_snap_start_function_cannot_move_to_a_runtime_without_it() -> None:
    current = created(SnapStart={"ApplyOn": "PublishedVersions"})
    assert current.snap_start == "PublishedVersions"
    with pytest.raises(InvalidParameterValueException, match=r"nodejs22\.x is not supported for SnapStart"):
        updated(current, Runtime="nodejs22.x")


def test_every_configuration_member_counts_as_a_change() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"timeout": 4},
        {"environment": {}},
        {"layers": ("a",)},
        {"code": made.code("f" * 64)},
    ]
    assert len({made.configuration(**change).digest() for change in changes}) == len(changes)
