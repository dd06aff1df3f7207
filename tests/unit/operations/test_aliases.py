"""Aliases: create, read, update, delete, list."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane import ControlPlane, arn, asynchronous
from kappa_core.errors import (
    InvalidParameterValueException,
    PreconditionFailedException,
    ResourceConflictException,
    ResourceNotFoundException,
)

EXISTS = f"Alias already exists: {arn('hello', 'live')}"


async def plane_with_versions(count: int = 2) -> ControlPlane:
    plane = ControlPlane()
    await plane.create()
    for number in range(1, count + 1):
        await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=f"code {number}".encode(), Publish=True)
    await plane.settler.idle()
    return plane


@asynchronous
async def test_an_alias_is_created_shown_and_deleted() -> None:
    plane = await plane_with_versions()
    created = await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1", Description="d")
    assert created | {"RevisionId": ""} == {
        "AliasArn": arn("hello", "live"),
        "Name": "live",
        "FunctionVersion": "1",
        "Description": "d",
        "RevisionId": "",
    }
    assert await plane("GetAlias", FunctionName=arn("hello"), Name="live") == created
    for _ in range(2):  # the second time it is gone already
        assert await plane("DeleteAlias", FunctionName="hello", Name="live") == {}
    with pytest.raises(ResourceNotFoundException) as caught:
        await plane("GetAlias", FunctionName="hello", Name="live")
    assert caught.value.message == f"Cannot find alias arn: {arn('hello', 'live')}"


@asynchronous
async def test_every_update_gives_another_revision_and_keeps_what_it_does_not_name() -> None:
    plane = await plane_with_versions()
    weights = {"AdditionalVersionWeights": {"2": 0.25}}
    created = await plane(
        "CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1", Description="d", RoutingConfig=weights
    )
    assert created["RoutingConfig"] == weights
    same = await plane("UpdateAlias", FunctionName="hello", Name="live")
    assert same | {"RevisionId": created["RevisionId"]} == created
    assert same["RevisionId"] != created["RevisionId"]
    cleared = await plane("UpdateAlias", FunctionName="hello", Name="live", RoutingConfig={"AdditionalVersionWeights": {}})
    assert "RoutingConfig" not in cleared
    moved = await plane("UpdateAlias", FunctionName="hello", Name="live", FunctionVersion="2", Description="")
    assert (moved["FunctionVersion"], moved["Description"]) == ("2", "")


@asynchronous
async def test_a_stale_revision_is_refused() -> None:
    plane = await plane_with_versions()
    created = await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1")
    await plane("UpdateAlias", FunctionName="hello", Name="live", RevisionId=created["RevisionId"])
    with pytest.raises(PreconditionFailedException, match="Call the GetFunction/GetAlias API"):
        await plane("UpdateAlias", FunctionName="hello", Name="live", RevisionId=created["RevisionId"])


@pytest.mark.parametrize(
    ("operation", "params", "error", "text"),
    [
        ("CreateAlias", {"Name": "live", "FunctionVersion": "1"}, ResourceConflictException, EXISTS),
        ("CreateAlias", {"Name": "a", "FunctionVersion": "10"}, ResourceNotFoundException, f"Function not found: {arn('hello', '10')}"),
        ("UpdateAlias", {"Name": "nobody"}, ResourceNotFoundException, f"Alias not found: {arn('hello', 'nobody')}"),
        ("UpdateAlias", {"Name": "live", "FunctionVersion": "9"}, ResourceNotFoundException, f"Function not found: {arn('hello', '9')}"),
        (
            "UpdateAlias",
            {"Name": "live", "RoutingConfig": {"AdditionalVersionWeights": {"9": 0.1}}},
            ResourceNotFoundException,
            f"Function not found: {arn('hello', '9')}",
        ),
        (
            "UpdateAlias",
            {"Name": "live", "RoutingConfig": {"AdditionalVersionWeights": {"1": 0.1}}},
            InvalidParameterValueException,
            "Invalid function version 1. Function version 1 is already included in routing configuration.",
        ),
        (
            "CreateAlias",
            {"Name": "a", "FunctionVersion": "$LATEST", "RoutingConfig": {"AdditionalVersionWeights": {"1": 0.1}}},
            InvalidParameterValueException,
            "$LATEST is not supported for an alias pointing to more than 1 version",
        ),
    ],
)  # fmt: skip
def test_aliases_are_refused_in_aws_words(operation: str, params: dict[str, Any], error: type[Exception], text: str) -> None:
    @asynchronous
    async def scenario() -> None:
        plane = await plane_with_versions(1)
        before = await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1")
        with pytest.raises(error) as caught:
            await plane(operation, FunctionName="hello", **params)
        assert str(caught.value) == text
        assert (await plane("ListAliases", FunctionName="hello"))["Aliases"] == [before]

    scenario()


@asynchronous
async def test_the_versions_of_a_weighted_alias_must_share_their_role() -> None:
    plane = await plane_with_versions(1)
    await plane("UpdateFunctionConfiguration", FunctionName="hello", Role="arn:aws:iam::123456789012:role/other")
    await plane("PublishVersion", FunctionName="hello")
    with pytest.raises(InvalidParameterValueException, match="same execution role"):
        await plane(
            "CreateAlias",
            FunctionName="hello",
            Name="live",
            FunctionVersion="1",
            RoutingConfig={"AdditionalVersionWeights": {"2": 0.1}},
        )


@asynchronous
async def test_aliases_are_listed_by_name_in_pages_and_by_version() -> None:
    plane = await plane_with_versions()
    weights = {"AdditionalVersionWeights": {"2": 0.1}}
    await plane("CreateAlias", FunctionName="hello", Name="b", FunctionVersion="1")
    await plane("CreateAlias", FunctionName="hello", Name="a", FunctionVersion="2")
    await plane("CreateAlias", FunctionName="hello", Name="c", FunctionVersion="1", RoutingConfig=weights)
    first = await plane("ListAliases", FunctionName="hello", MaxItems=2)
    second = await plane("ListAliases", FunctionName="hello", Marker=first["NextMarker"])
    assert [one["Name"] for one in first["Aliases"] + second["Aliases"]] == ["a", "b", "c"]
    assert "NextMarker" not in second
    by_version = await plane("ListAliases", FunctionName="hello", FunctionVersion="2")
    assert [one["Name"] for one in by_version["Aliases"]] == ["a", "c"]


@asynchronous
async def test_an_alias_left_behind_by_an_earlier_function_is_invisible_and_in_nobodys_way() -> None:
    plane = await plane_with_versions(1)
    await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1")
    function = await plane.memory.list("Function")
    await plane.memory.delete(function[0].key)  # as by a gateway that died right afterwards
    await plane.create(settle=False)
    with pytest.raises(ResourceNotFoundException):
        await plane("GetAlias", FunctionName="hello", Name="live")
    assert (await plane("ListAliases", FunctionName="hello"))["Aliases"] == []
    assert (await plane("ListVersionsByFunction", FunctionName="hello"))["Versions"][1:] == []
    created = await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="$LATEST")
    assert created["FunctionVersion"] == "$LATEST"
