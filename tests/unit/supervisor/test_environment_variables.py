"""The variables of a function: complete, exact, and the customer's where Lambda lets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kappa_core.spec import RESERVED_VARIABLES
from kappa_runtime.supervisor.environment_variables import Identity, Places, variables
from supervised import version_spec

IDENTITY = Identity(runtime_api="127.0.0.1:9001", log_stream="2026/01/02/[$LATEST]00", initialization_type="on-demand")


def made(places: Places | None = None, **changes: Any) -> dict[str, str]:
    return variables(version_spec(Path("/code"), **changes), places or Places(), IDENTITY)


def test_a_python_function_on_lambdas_paths() -> None:
    assert made(runtime="python3.12", handler="app.main", memory_mb=512) == {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.12",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_FUNCTION_NAME": "tried",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/tried",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/02/[$LATEST]00",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "AWS_REGION": "us-east-1",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LANG": "en_US.UTF-8",
        "LC_CTYPE": "C.UTF-8",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "PWD": "/var/task",
        "PYTHONPATH": "/var/runtime",
        "SHLVL": "0",
        "TZ": ":UTC",
        "_AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1",
        "_AWS_XRAY_DAEMON_PORT": "2000",
        "_HANDLER": "app.main",
    }


def test_a_node_function_finds_modules_in_layers_the_sdk_and_the_task() -> None:
    found = made(runtime="nodejs22.x")
    path = "/opt/nodejs/node22/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task"
    assert found["NODE_PATH"] == path
    assert "PYTHONPATH" not in found


def test_a_custom_runtime_has_no_execution_environment() -> None:
    assert not {"AWS_EXECUTION_ENV", "NODE_PATH", "PYTHONPATH", "LC_CTYPE"} & made(runtime="provided.al2023").keys()


def test_json_logging_brings_its_two_variables() -> None:
    found = made(log_format="JSON", application_log_level="DEBUG")
    assert (found["AWS_LAMBDA_LOG_FORMAT"], found["AWS_LAMBDA_LOG_LEVEL"]) == ("JSON", "DEBUG")
    assert made(log_format="JSON")["AWS_LAMBDA_LOG_LEVEL"] == "INFO"
    assert "AWS_LAMBDA_LOG_FORMAT" not in made()


@pytest.mark.parametrize("name", sorted(RESERVED_VARIABLES))
def test_reserved_names_stay_lambdas(name: str) -> None:
    assert made(variables={name: "the customer's"}).get(name) == made().get(name)


@pytest.mark.parametrize(
    "name", ["LANG", "PATH", "LD_LIBRARY_PATH", "TZ", "PYTHONPATH", "AWS_XRAY_CONTEXT_MISSING", "AWS_LAMBDA_LOG_LEVEL"]
)
def test_what_lambda_lets_the_customer_override_is_the_customers(name: str) -> None:
    assert made(variables={name: "mine"})[name] == "mine"


def test_the_customer_wins_over_the_platform_and_private_names_never_arrive() -> None:
    found = made(
        variables={"AWS_ENDPOINT_URL": "http://mine"},
        platform_variables={"AWS_ENDPOINT_URL": "http://kappa", "AWS_ENDPOINT_URL_S3": "http://s3", "KAPPA_SDK_PYTHON": "/x"},
    )
    assert (found["AWS_ENDPOINT_URL"], found["AWS_ENDPOINT_URL_S3"]) == ("http://mine", "http://s3")
    assert "KAPPA_SDK_PYTHON" not in found


def test_stand_in_paths_come_with_a_temporary_directory() -> None:
    places = Places(task="/code", opt="/layers", runtime="/sdk", language="/usr", temporary="/work/tmp", stand_in=True)
    found = made(places)
    assert (found["LAMBDA_TASK_ROOT"], found["PWD"], found["TMPDIR"]) == ("/code", "/code", "/work/tmp")
    assert found["PATH"] == "/usr/bin:/usr/local/bin:/usr/bin/:/bin:/layers/bin"
