"""Configuration, tags, concurrency, recursion and runtime updates of a function, and the account's settings."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane import ControlPlane, arn, asynchronous
from kappa_core.errors import (
    InvalidParameterValueException,
    LambdaError,
    ResourceNotFoundException,
    ValidationException,
)

ESM = "arn:aws:lambda:eu-central-1:123456789012:event-source-mapping:01234567-89ab-cdef-0123-456789abcdef"
UNQUALIFIED = "This operation is permitted on Lambda functions only."


@asynchronous
async def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    plane = ControlPlane()
    await plane.create(Environment={"Variables": {"AB": "c"}}, EphemeralStorage={"Size": 1024}, TracingConfig={"Mode": "Active"})
    before = await plane.configuration()
    answer = await plane("UpdateFunctionConfiguration", FunctionName=arn("hello"), Timeout=9)
    assert (answer["Timeout"], answer["LastUpdateStatus"]) == (9, "InProgress")
    await plane.settler.idle()
    after = await plane.configuration()
    assert after | {"Timeout": 3, "RevisionId": before["RevisionId"]} == before


@asynchronous
async def test_a_cleared_environment_still_appears() -> None:
    plane = ControlPlane()
    assert "Environment" not in await plane.create()
    cleared = await plane("UpdateFunctionConfiguration", FunctionName="hello", Environment={"Variables": {}})
    assert cleared["Environment"] == {"Variables": {}}


@asynchronous
async def test_a_refused_update_changes_nothing() -> None:
    plane = ControlPlane()
    await plane.create()
    before = await plane.configuration()
    refused: list[dict[str, Any]] = [
        {"Runtime": "cobol85"},
        {"MemorySize": 20000},
        {"Layers": ["arn:aws:lambda:eu-central-1:123456789012:layer:x:1"]},
    ]
    for params in refused:
        with pytest.raises((InvalidParameterValueException, ValidationException)):
            await plane("UpdateFunctionConfiguration", FunctionName="hello", Timeout=9, **params)
    assert await plane.configuration() == before


@asynchronous
async def test_tags_are_added_listed_and_removed() -> None:
    plane = ControlPlane()
    await plane.create(Tags={"a": "1"})
    await plane("TagResource", Resource=arn("hello"), Tags={"b": "2", "a": "3"})
    assert await plane("ListTags", Resource=arn("hello")) == {"Tags": {"a": "3", "b": "2"}}
    await plane("UntagResource", Resource=arn("hello"), TagKeys=["a", "zzz"])
    assert await plane("ListTags", Resource=arn("hello")) == {"Tags": {"b": "2"}}


@pytest.mark.parametrize(
    ("operation", "params", "error", "text"),
    [
        (
            "TagResource",
            {"Resource": arn("hello", "1"), "Tags": {"a": "b"}},
            InvalidParameterValueException,
            "Tags on function aliases and versions are not supported. Please specify a function ARN.",
        ),
        (
            "TagResource",
            {"Resource": arn("hello"), "Tags": {}},
            InvalidParameterValueException,
            "An error occurred and the request cannot be processed.",
        ),
        (
            "TagResource",
            {"Resource": arn("hello"), "Tags": {f"k{n}": "" for n in range(51)}},
            InvalidParameterValueException,
            "Number of tags exceeds resource tag limit.",
        ),
        ("ListTags", {"Resource": arn("nobody")}, ResourceNotFoundException, f"Function not found: {arn('nobody')}"),
        ("ListTags", {"Resource": ESM}, ResourceNotFoundException, f"Event source mapping not found: {ESM}"),
        (
            "UntagResource",
            {"Resource": arn("hello"), "TagKeys": []},
            ValidationException,
            "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null",
        ),
    ],
)
def test_tags_are_refused_in_aws_words(operation: str, params: dict[str, Any], error: type[LambdaError], text: str) -> None:
    @asynchronous
    async def scenario() -> None:
        plane = ControlPlane()
        await plane.create()
        with pytest.raises(error) as caught:
            await plane(operation, **params)
        assert caught.value.message == text

    scenario()


@asynchronous
async def test_concurrency_is_reserved_shown_and_given_back() -> None:
    plane = ControlPlane()
    await plane.create()
    assert await plane("GetFunctionConcurrency", FunctionName="hello") == {}
    assert await plane("PutFunctionConcurrency", FunctionName="hello", ReservedConcurrentExecutions=900) == {
        "ReservedConcurrentExecutions": 900
    }
    assert await plane("GetFunctionConcurrency", FunctionName="hello") == {"ReservedConcurrentExecutions": 900}
    limit = (await plane("GetAccountSettings"))["AccountLimit"]
    assert (limit["ConcurrentExecutions"], limit["UnreservedConcurrentExecutions"]) == (1000, 100)
    await plane("PutFunctionConcurrency", FunctionName="hello", ReservedConcurrentExecutions=899)  # its own is credited back
    await plane.create("other")
    with pytest.raises(InvalidParameterValueException, match=r"below its minimum value of \[100\]\.$"):
        await plane("PutFunctionConcurrency", FunctionName="other", ReservedConcurrentExecutions=2)
    for _ in range(2):
        assert await plane("DeleteFunctionConcurrency", FunctionName="hello") == {}
    assert await plane("GetFunctionConcurrency", FunctionName="hello") == {}


@asynchronous
async def test_concurrency_is_for_functions_only_and_each_operation_has_its_404() -> None:
    plane = ControlPlane()
    await plane.create()
    for operation in ("PutFunctionConcurrency", "GetFunctionConcurrency", "DeleteFunctionConcurrency"):
        shown = arn("nobody", "$LATEST") if operation.startswith("Put") else arn("nobody")
        with pytest.raises(ResourceNotFoundException) as caught:
            await plane(operation, FunctionName="nobody", ReservedConcurrentExecutions=1)
        assert caught.value.message == f"Function not found: {shown}"
        with pytest.raises(InvalidParameterValueException, match=UNQUALIFIED):
            await plane(operation, FunctionName="hello:$LATEST", ReservedConcurrentExecutions=1)


@asynchronous
async def test_recursion_is_terminated_unless_allowed() -> None:
    plane = ControlPlane()
    await plane.create()
    assert await plane("GetFunctionRecursionConfig", FunctionName="hello") == {"RecursiveLoop": "Terminate"}
    await plane("PutFunctionRecursionConfig", FunctionName="hello", RecursiveLoop="Allow")
    assert await plane("GetFunctionRecursionConfig", FunctionName="hello") == {"RecursiveLoop": "Allow"}


@asynchronous
async def test_runtimes_are_updated_with_the_machine_and_cannot_be_held_back() -> None:
    plane = ControlPlane()
    await plane.create()
    auto = {"UpdateRuntimeOn": "Auto", "FunctionArn": arn("hello")}
    assert await plane("GetRuntimeManagementConfig", FunctionName="hello") == auto
    assert await plane("PutRuntimeManagementConfig", FunctionName="hello", UpdateRuntimeOn="Auto") == auto
    with pytest.raises(InvalidParameterValueException, match="cannot be held back"):
        await plane("PutRuntimeManagementConfig", FunctionName="hello", UpdateRuntimeOn="FunctionUpdate")
