"""Event invoke configurations: put, update, get, delete, list, in AWS's recorded words."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane import ACCOUNT, REGION, ControlPlane, arn, asynchronous
from kappa_core.errors import InvalidParameterValueException, ResourceNotFoundException

QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:results"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:failures"
BUCKET = "arn:aws:s3:::records"
NOTHING = {"OnSuccess": {}, "OnFailure": {}}


def to(success: str | None = None, failure: str | None = None) -> dict[str, Any]:
    sides = {"OnSuccess": success, "OnFailure": failure}
    return {side: {"Destination": destination} for side, destination in sides.items() if destination is not None}


async def plane_with_alias() -> ControlPlane:
    plane = ControlPlane()
    await plane.create()
    await plane("PublishVersion", FunctionName="hello")
    await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1")
    return plane


@asynchronous
async def test_put_replaces_everything_and_update_keeps_what_it_does_not_name() -> None:
    plane = await plane_with_alias()
    put = await plane(
        "PutFunctionEventInvokeConfig", FunctionName="hello", MaximumRetryAttempts=1, DestinationConfig=to(QUEUE, TOPIC)
    )
    assert put == {
        "LastModified": plane.clock.now_ms / 1000,
        "FunctionArn": arn("hello", "$LATEST"),
        "MaximumRetryAttempts": 1,
        "DestinationConfig": to(QUEUE, TOPIC),
    }
    plane.clock.now_ms += 1000
    updated = await plane(
        "UpdateFunctionEventInvokeConfig", FunctionName="hello", MaximumEventAgeInSeconds=60, DestinationConfig=to(failure="")
    )
    assert updated == put | {
        "LastModified": plane.clock.now_ms / 1000,
        "MaximumEventAgeInSeconds": 60,
        "DestinationConfig": to(QUEUE) | {"OnFailure": {}},
    }
    assert await plane("GetFunctionEventInvokeConfig", FunctionName="hello", Qualifier="$LATEST") == updated
    replaced = await plane("PutFunctionEventInvokeConfig", FunctionName="hello", MaximumRetryAttempts=0)
    assert replaced["DestinationConfig"] == NOTHING
    assert "MaximumEventAgeInSeconds" not in replaced


@asynchronous
async def test_every_qualifier_has_a_configuration_of_its_own() -> None:
    plane = await plane_with_alias()
    for attempts, qualifier in enumerate(("$LATEST", "1", "live")):
        await plane("PutFunctionEventInvokeConfig", FunctionName="hello", Qualifier=qualifier, MaximumRetryAttempts=attempts)
    listed = await plane("ListFunctionEventInvokeConfigs", FunctionName="hello")
    assert {one["FunctionArn"]: one["MaximumRetryAttempts"] for one in listed["FunctionEventInvokeConfigs"]} == {
        arn("hello", "$LATEST"): 0,
        arn("hello", "1"): 1,
        arn("hello", "live"): 2,
    }
    paged: list[Any] = []
    marker: dict[str, str] = {}
    while True:
        page = await plane("ListFunctionEventInvokeConfigs", FunctionName="hello", MaxItems=1, **marker)
        paged += page["FunctionEventInvokeConfigs"]
        if "NextMarker" not in page:
            break
        marker = {"Marker": page["NextMarker"]}
    assert paged == listed["FunctionEventInvokeConfigs"]


@pytest.mark.parametrize("operation", ["PutFunctionEventInvokeConfig", "UpdateFunctionEventInvokeConfig"])
@asynchronous
async def test_a_configuration_of_nothing_is_refused(operation: str) -> None:
    plane = await plane_with_alias()
    with pytest.raises(InvalidParameterValueException) as caught:
        await plane(operation, FunctionName="hello")
    assert caught.value.message == "You must specify at least one of error handling or destination setting."


@pytest.mark.parametrize(
    ("operation", "members", "text"),
    [
        ("PutFunctionEventInvokeConfig", {"FunctionName": "nobody", "MaximumRetryAttempts": 1}, "The function doesn't exist."),
        (
            "PutFunctionEventInvokeConfig",
            {"FunctionName": "hello", "Qualifier": "dead", "MaximumRetryAttempts": 1},
            "The function doesn't exist.",
        ),
        (
            "PutFunctionEventInvokeConfig",
            {"FunctionName": "hello", "Qualifier": "7", "MaximumRetryAttempts": 1},
            "The function doesn't exist.",
        ),
        ("ListFunctionEventInvokeConfigs", {"FunctionName": "nobody"}, "The function doesn't exist."),
        (
            "UpdateFunctionEventInvokeConfig",
            {"FunctionName": "hello", "MaximumRetryAttempts": 1},
            f"The function {arn('hello', '$LATEST')} doesn't have an EventInvokeConfig",
        ),
        (
            "GetFunctionEventInvokeConfig",
            {"FunctionName": "nobody", "Qualifier": "live"},
            f"The function {arn('nobody', 'live')} doesn't have an EventInvokeConfig",
        ),
        (
            "DeleteFunctionEventInvokeConfig",
            {"FunctionName": "hello"},
            f"The function {arn('hello', '$LATEST')} doesn't have an EventInvokeConfig",
        ),
    ],
)
@asynchronous
async def test_what_is_not_there_is_said_in_awss_words(operation: str, members: dict[str, Any], text: str) -> None:
    plane = await plane_with_alias()
    with pytest.raises(ResourceNotFoundException) as caught:
        await plane(operation, **members)
    assert caught.value.message == text


@pytest.mark.parametrize(
    ("destinations", "text"),
    [
        pytest.param(to(arn("hello")), "You can't specify the function as a destination for itself.", id="itself"),
        pytest.param(
            to(failure=arn("hello", "live")), "You can't specify the function as a destination for itself.", id="its alias"
        ),
        pytest.param(to(arn("nobody")), f"The destination ARN {arn('nobody')} is invalid.", id="unknown function"),
        pytest.param(
            to("arn:aws:lambda:us-west-2:111122223333:function:f"),
            "The destination ARN arn:aws:lambda:us-west-2:111122223333:function:f is invalid.",
            id="function elsewhere",
        ),
        pytest.param(
            to(f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/t"),
            "The provided destination config DestinationConfig(onSuccess=OnSuccess(destination="
            f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/t), onFailure=null) is invalid.",
            id="another service",
        ),
        pytest.param(
            to(BUCKET, TOPIC),
            f"The provided destination config DestinationConfig(onSuccess=OnSuccess(destination={BUCKET}), "
            f"onFailure=OnFailure(destination={TOPIC})) is invalid.",
            id="a bucket for successes",
        ),
        pytest.param(
            to(failure="kafka://topic"),
            "The provided destination config DestinationConfig(onSuccess=null, onFailure=OnFailure(destination=kafka://topic)) "
            "is invalid.",
            id="a topic of event source mappings",
        ),
    ],
)
@asynchronous
async def test_destinations_that_cannot_be_are_refused(destinations: dict[str, Any], text: str) -> None:
    plane = await plane_with_alias()
    with pytest.raises(InvalidParameterValueException) as caught:
        await plane("PutFunctionEventInvokeConfig", FunctionName="hello", DestinationConfig=destinations)
    assert caught.value.message == text


@asynchronous
async def test_another_function_and_a_bucket_for_failures_are_destinations() -> None:
    plane = await plane_with_alias()
    await plane.create("next")
    wanted = to(arn("next"), BUCKET)
    put = await plane("PutFunctionEventInvokeConfig", FunctionName="hello", DestinationConfig=wanted)
    assert put["DestinationConfig"] == wanted


@pytest.mark.parametrize("qualifier", ["1", "live", None])
@asynchronous
async def test_a_configuration_goes_with_its_version_alias_or_function(qualifier: str | None) -> None:
    plane = await plane_with_alias()
    named = {} if qualifier is None else {"Qualifier": qualifier}
    await plane("PutFunctionEventInvokeConfig", FunctionName="hello", **named, MaximumRetryAttempts=1)
    await plane("DeleteAlias", FunctionName="hello", Name="live")
    if qualifier == "1":
        await plane("DeleteFunction", FunctionName="hello", Qualifier="1")
    elif qualifier is None:
        await plane("DeleteFunction", FunctionName="hello")
        await plane.settler.idle()
        await plane.create()
    with pytest.raises(ResourceNotFoundException):
        await plane("GetFunctionEventInvokeConfig", FunctionName="hello", **named)
    assert await plane("ListFunctionEventInvokeConfigs", FunctionName="hello") == {"FunctionEventInvokeConfigs": []}
    assert await plane.store.list("EventInvokeConfig") == []


@asynchronous
async def test_a_deleted_configuration_is_gone() -> None:
    plane = await plane_with_alias()
    await plane("PutFunctionEventInvokeConfig", FunctionName="hello", MaximumRetryAttempts=1)
    assert await plane("DeleteFunctionEventInvokeConfig", FunctionName="hello") == {}
    with pytest.raises(ResourceNotFoundException):
        await plane("DeleteFunctionEventInvokeConfig", FunctionName="hello")
