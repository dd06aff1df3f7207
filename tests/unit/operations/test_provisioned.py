"""Provisioned concurrency as the API sees it: who may have it, how much, and what is said of it before and after the scaler has."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from control_plane import ControlPlane, arn, asynchronous
from kappa_core.errors import (
    InvalidParameterValueException,
    LambdaError,
    ProvisionedConcurrencyConfigNotFoundException,
    ResourceConflictException,
    ResourceNotFoundException,
)
from kappa_core.resources import Alias, FunctionVersion, Key, ProvisionedState

FRESH = {
    "RequestedProvisionedConcurrentExecutions": 2,
    "AvailableProvisionedConcurrentExecutions": 0,
    "AllocatedProvisionedConcurrentExecutions": 0,
    "Status": "IN_PROGRESS",
    "LastModified": "2026-11-18T11:06:40+0000",
}


async def plane_with_versions() -> ControlPlane:
    """A function with two versions; `live` is an alias of the first."""
    plane = ControlPlane()
    await plane.create()
    for number in (1, 2):
        await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=f"code {number}".encode(), Publish=True)
    await plane.settler.idle()
    await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1")
    return plane


async def put(plane: ControlPlane, qualifier: str, number: int, *, function: str = "hello") -> Any:
    return await plane(
        "PutProvisionedConcurrencyConfig", FunctionName=function, Qualifier=qualifier, ProvisionedConcurrentExecutions=number
    )


async def get(plane: ControlPlane, qualifier: str) -> Any:
    return await plane("GetProvisionedConcurrencyConfig", FunctionName="hello", Qualifier=qualifier)


async def note(plane: ControlPlane, key: Key, state: ProvisionedState) -> None:
    """As the holder of the scaler does it."""
    stored = await plane.store.get(key)
    assert isinstance(stored, Alias | FunctionVersion)
    assert stored.provisioned is not None
    await plane.store.update(replace(stored, provisioned=replace(stored.provisioned, state=state)))


async def alias(plane: ControlPlane) -> Alias:
    found = await plane.store.list("Alias")
    assert isinstance(found[0], Alias)
    return found[0]


@asynchronous
@pytest.mark.parametrize("qualifier", ["1", "live"])
async def test_a_configuration_is_put_shown_and_deleted(qualifier: str) -> None:
    plane = await plane_with_versions()
    assert await put(plane, qualifier, 2) == FRESH
    assert await get(plane, qualifier) == FRESH
    for _ in range(2):  # the second time it is gone already
        assert await plane("DeleteProvisionedConcurrencyConfig", FunctionName="hello", Qualifier=qualifier) == {}
    with pytest.raises(ProvisionedConcurrencyConfigNotFoundException) as caught:
        await get(plane, qualifier)
    assert caught.value.message == "No Provisioned Concurrency Config found for this function"


@asynchronous
@pytest.mark.parametrize(
    ("operation", "qualifier", "error", "text"),
    [
        (
            "Put",
            "$LATEST",
            InvalidParameterValueException,
            "Provisioned Concurrency Configs cannot be applied to unpublished function versions.",
        ),
        (
            "Get",
            "$LATEST",
            InvalidParameterValueException,
            "The function resource provided must be an alias or a published version.",
        ),
        (
            "Delete",
            "$LATEST",
            InvalidParameterValueException,
            "The function resource provided must be an alias or a published version.",
        ),
        ("Put", "7", ResourceNotFoundException, f"Function not found: {arn('hello', '7')}"),
        ("Get", "no", ResourceNotFoundException, f"Cannot find alias arn: {arn('hello', 'no')}"),
        ("Delete", "no", ResourceNotFoundException, f"Cannot find alias arn: {arn('hello', 'no')}"),
    ],
)
async def test_only_published_versions_and_aliases_that_exist_have_one(
    operation: str, qualifier: str, error: type[LambdaError], text: str
) -> None:
    plane = await plane_with_versions()
    with pytest.raises(error) as caught:
        await plane(
            f"{operation}ProvisionedConcurrencyConfig",
            FunctionName="hello",
            Qualifier=qualifier,
            ProvisionedConcurrentExecutions=1,
        )
    assert caught.value.message == text


@asynchronous
async def test_a_version_has_one_configuration_its_own_or_an_aliass() -> None:
    plane = await plane_with_versions()
    await put(plane, "1", 1)
    with pytest.raises(ResourceConflictException) as caught:
        await put(plane, "live", 1)
    assert (
        caught.value.message == "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
    )
    await plane("DeleteProvisionedConcurrencyConfig", FunctionName="hello", Qualifier="1")
    await put(plane, "live", 1)
    await put(plane, "live", 2)  # its own is no obstacle
    with pytest.raises(ResourceConflictException) as caught:
        await put(plane, "1", 1)
    assert caught.value.message == "Version is pointed by a Provisioned Concurrency alias"
    await put(plane, "2", 1)


@asynchronous
async def test_an_alias_with_weights_cannot_have_one() -> None:
    plane = await plane_with_versions()
    routing = {"AdditionalVersionWeights": {"2": 0.5}}
    await plane("UpdateAlias", FunctionName="hello", Name="live", RoutingConfig=routing)
    with pytest.raises(InvalidParameterValueException) as caught:
        await put(plane, "live", 1)
    assert caught.value.message == "Alias with weights can not be used with Provisioned Concurrency"


@asynchronous
async def test_it_stays_within_the_reservation_and_the_reservation_above_it() -> None:
    plane = await plane_with_versions()
    await plane("PutFunctionConcurrency", FunctionName="hello", ReservedConcurrentExecutions=3)
    with pytest.raises(InvalidParameterValueException) as caught:
        await put(plane, "1", 4)
    assert (
        caught.value.message
        == "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
    )
    await put(plane, "1", 2)
    with pytest.raises(InvalidParameterValueException):
        await put(plane, "2", 2)
    with pytest.raises(InvalidParameterValueException) as caught:
        await plane("PutFunctionConcurrency", FunctionName="hello", ReservedConcurrentExecutions=1)
    assert caught.value.message == (
        " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."
    )


@asynchronous
async def test_it_comes_out_of_the_account_unless_the_function_has_a_reservation() -> None:
    plane = await plane_with_versions()
    await plane.create("other")

    async def unreserved() -> int:
        number: int = (await plane("GetAccountSettings"))["AccountLimit"]["UnreservedConcurrentExecutions"]
        return number

    with pytest.raises(InvalidParameterValueException) as caught:
        await put(plane, "1", 1001)
    assert caught.value.message == (
        "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [1000]."
    )
    with pytest.raises(InvalidParameterValueException) as caught:
        await put(plane, "1", 901)
    assert caught.value.message == (
        "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of "
        "[100]."
    )
    assert "Type" not in caught.value.body()
    await put(plane, "1", 300)
    assert await unreserved() == 700
    await put(plane, "2", 100)
    assert await unreserved() == 600
    with pytest.raises(InvalidParameterValueException):
        await plane("PutFunctionConcurrency", FunctionName="other", ReservedConcurrentExecutions=501)
    await plane("PutFunctionConcurrency", FunctionName="hello", ReservedConcurrentExecutions=500)
    assert await unreserved() == 500


@asynchronous
async def test_the_noted_state_is_shown_until_something_else_is_asked_for() -> None:
    plane = await plane_with_versions()
    await put(plane, "live", 2)
    key = (await alias(plane)).key
    await note(plane, key, ProvisionedState(requested=2, function_version="1", ready=2, allocated=2, status="READY"))
    ready = FRESH | {
        "AvailableProvisionedConcurrentExecutions": 2,
        "AllocatedProvisionedConcurrentExecutions": 2,
        "Status": "READY",
    }
    assert await get(plane, "live") == ready
    await put(plane, "live", 3)
    assert await get(plane, "live") == ready | {"RequestedProvisionedConcurrentExecutions": 3, "Status": "IN_PROGRESS"}
    await put(plane, "live", 2)
    await plane("UpdateAlias", FunctionName="hello", Name="live", FunctionVersion="2")
    assert await get(plane, "live") == FRESH


@asynchronous
async def test_a_state_that_is_noted_outdates_nobodys_revision_id() -> None:
    plane = await plane_with_versions()
    await put(plane, "live", 2)
    before = await plane("GetAlias", FunctionName="hello", Name="live")
    for ready in (1, 2):
        await note(plane, (await alias(plane)).key, ProvisionedState(requested=2, function_version="1", ready=ready))
    assert await plane("GetAlias", FunctionName="hello", Name="live") == before
    after = await plane("UpdateAlias", FunctionName="hello", Name="live", RevisionId=before["RevisionId"])
    assert after["RevisionId"] != before["RevisionId"]


@asynchronous
async def test_what_failed_says_why() -> None:
    plane = await plane_with_versions()
    await put(plane, "1", 2)
    found = await plane.store.list("FunctionVersion")
    failed = ProvisionedState(requested=2, function_version="1", status="FAILED", reason="FUNCTION_ERROR_INIT_FAILURE")
    await note(plane, found[0].key, failed)
    assert await get(plane, "1") == FRESH | {"Status": "FAILED", "StatusReason": "FUNCTION_ERROR_INIT_FAILURE"}


@asynchronous
async def test_all_of_a_function_are_listed_page_by_page() -> None:
    plane = await plane_with_versions()
    assert await plane("ListProvisionedConcurrencyConfigs", FunctionName="hello") == {"ProvisionedConcurrencyConfigs": []}
    await put(plane, "live", 2)
    await put(plane, "2", 2)
    shown: list[str] = []
    members: dict[str, Any] = {}
    while "NextMarker" in members or not shown:
        members = await plane(
            "ListProvisionedConcurrencyConfigs",
            FunctionName="hello",
            MaxItems=1,
            **({"Marker": members["NextMarker"]} if members else {}),
        )
        shown += [one.pop("FunctionArn") for one in members["ProvisionedConcurrencyConfigs"]]
        assert members["ProvisionedConcurrencyConfigs"] == [FRESH]
    assert shown == [arn("hello", "2"), arn("hello", "live")]
    with pytest.raises(ResourceNotFoundException):
        await plane("ListProvisionedConcurrencyConfigs", FunctionName="nobody")


@asynchronous
async def test_it_goes_with_its_alias_and_comes_not_back_with_the_next_of_its_name() -> None:
    plane = await plane_with_versions()
    await put(plane, "live", 2)
    await plane("DeleteAlias", FunctionName="hello", Name="live")
    await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1")
    with pytest.raises(ProvisionedConcurrencyConfigNotFoundException):
        await get(plane, "live")
