"""Layers: publishing, reading, listing, deleting, attaching, and their policies."""

from __future__ import annotations

import json

import pytest

from control_plane import ACCOUNT, ControlPlane, asynchronous, digest, layer_arn
from kappa_core.errors import (
    AccessDeniedException,
    InvalidParameterValueException,
    PreconditionFailedException,
    ResourceConflictException,
    ResourceNotFoundException,
)
from kappa_core.limits import Limits
from kappa_core.rules.publish import code_sha256

OTHER = "210987654321"
GONE = "The resource you requested does not exist."


@asynchronous
async def test_a_published_layer_version_shows_its_content() -> None:
    plane = ControlPlane()
    published = await plane(
        "PublishLayerVersion",
        LayerName="tools",
        Content={"ZipFile": b"layer"},
        CompatibleRuntimes=["python3.12"],
        LicenseInfo="MIT",
    )
    assert published == {
        "Content": {
            "Location": f"http://127.0.0.1:9000/code/tools/1/{digest(b'layer')}",
            "CodeSha256": code_sha256(digest(b"layer")),
            "CodeSize": 5,
        },
        "LayerArn": layer_arn("tools"),
        "LayerVersionArn": layer_arn("tools", 1),
        "Description": "",
        "CreatedDate": "2026-11-18T11:06:40.123+0000",
        "Version": 1,
        "CompatibleRuntimes": ["python3.12"],
        "LicenseInfo": "MIT",
    }
    assert await plane("GetLayerVersion", LayerName="tools", VersionNumber=1) == published
    assert await plane("GetLayerVersion", LayerName=layer_arn("tools"), VersionNumber=1) == published
    assert await plane("GetLayerVersionByArn", Arn=layer_arn("tools", 1)) == published


@asynchronous
async def test_unknown_layer_versions_have_recorded_answers() -> None:
    plane = ControlPlane()
    await plane.layer()
    for params in ({"LayerName": "tools", "VersionNumber": 2}, {"LayerName": "nothing", "VersionNumber": 1}):
        with pytest.raises(ResourceNotFoundException) as caught:
            await plane("GetLayerVersion", **params)
        assert caught.value.message == GONE
        assert await plane("DeleteLayerVersion", **params) == {}
    with pytest.raises(InvalidParameterValueException, match="Layer Version Cannot be less than 1"):
        await plane("GetLayerVersion", LayerName="tools", VersionNumber=0)
    with pytest.raises(ResourceNotFoundException):
        await plane("GetLayerVersionByArn", Arn="arn:aws:lambda:us-east-1:123456789012:layer:tools:1")
    assert (await plane("ListLayerVersions", LayerName="nothing"))["LayerVersions"] == []


@asynchronous
async def test_numbers_of_layer_versions_are_never_reused() -> None:
    plane = ControlPlane()
    await plane.layer()
    await plane("DeleteLayerVersion", LayerName="tools", VersionNumber=1)
    assert await plane.layer() == layer_arn("tools", 2)


@asynchronous
async def test_layer_versions_are_listed_newest_first_and_filtered() -> None:
    plane = ControlPlane()
    for runtimes in (["python3.12"], ["nodejs22.x"], ["python3.12"]):
        await plane("PublishLayerVersion", LayerName="tools", Content={"ZipFile": b"x"}, CompatibleRuntimes=runtimes)
    first = await plane("ListLayerVersions", LayerName="tools", MaxItems=2)
    second = await plane("ListLayerVersions", LayerName="tools", Marker=first["NextMarker"])
    assert [one["Version"] for one in first["LayerVersions"] + second["LayerVersions"]] == [3, 2, 1]
    node = await plane("ListLayerVersions", LayerName="tools", CompatibleRuntime="nodejs22.x")
    assert [one["Version"] for one in node["LayerVersions"]] == [2]
    with pytest.raises(InvalidParameterValueException, match="Marker"):
        await plane("ListLayerVersions", LayerName="tools", Marker="WyJ4Il0=")


@asynchronous
async def test_layers_are_listed_with_their_latest_matching_version() -> None:
    plane = ControlPlane()
    for name, architecture in (("b", "x86_64"), ("a", "arm64"), ("b", "arm64"), ("c", "x86_64")):
        await plane("PublishLayerVersion", LayerName=name, Content={"ZipFile": b"x"}, CompatibleArchitectures=[architecture])
    await plane("DeleteLayerVersion", LayerName="c", VersionNumber=1)
    first = await plane("ListLayers", MaxItems=1)
    second = await plane("ListLayers", Marker=first["NextMarker"])
    layers = first["Layers"] + second["Layers"]
    assert [(one["LayerName"], one["LatestMatchingVersion"]["Version"]) for one in layers] == [("a", 1), ("b", 2)]
    assert layers[0]["LayerArn"] == layer_arn("a")
    filtered = await plane("ListLayers", CompatibleArchitecture="x86_64")
    assert [(one["LayerName"], one["LatestMatchingVersion"]["Version"]) for one in filtered["Layers"]] == [("b", 1)]


@asynchronous
async def test_functions_show_their_layers_and_detach_them() -> None:
    plane = ControlPlane()
    first, second = await plane.layer("one", b"1"), await plane.layer("two", b"22")
    answer = await plane.create(Layers=[second, first])
    assert answer["Layers"] == [{"Arn": second, "CodeSize": 2}, {"Arn": first, "CodeSize": 1}]
    assert digest(b"1") in plane.trees.unpacked
    kept = await plane("UpdateFunctionConfiguration", FunctionName="hello", Timeout=9)
    assert kept["Layers"] == answer["Layers"]
    assert "Layers" not in await plane("UpdateFunctionConfiguration", FunctionName="hello", Layers=[])


@asynchronous
async def test_a_deleted_layer_version_is_hidden_but_goes_on_working_where_it_is_used() -> None:
    plane = ControlPlane()
    arn = await plane.layer()
    await plane.create(Layers=[arn])
    await plane("DeleteLayerVersion", LayerName="tools", VersionNumber=1)
    with pytest.raises(ResourceNotFoundException):
        await plane("GetLayerVersion", LayerName="tools", VersionNumber=1)
    assert (await plane("ListLayers"))["Layers"] == []
    updated = await plane("UpdateFunctionConfiguration", FunctionName="hello", Layers=[arn], Timeout=9)
    assert updated["Layers"] == [{"Arn": arn, "CodeSize": 5}]
    await plane.settler.idle()
    assert (await plane.configuration())["LastUpdateStatus"] == "Successful"
    with pytest.raises(InvalidParameterValueException, match="does not exist"):
        await plane.create("another", Layers=[arn])


@asynchronous
async def test_code_and_layers_are_bounded_together_on_every_way() -> None:
    plane = ControlPlane(limits=Limits(unzipped_bytes=100))
    arn = await plane.layer(data=b"12345")  # unpacks to 50
    await plane.create()  # unpacks to 60
    text = "Layers consume more than the available size of 100 bytes"
    with pytest.raises(InvalidParameterValueException, match=text):
        await plane("UpdateFunctionConfiguration", FunctionName="hello", Layers=[arn])
    with pytest.raises(InvalidParameterValueException, match=text):
        await plane.create("another", Layers=[arn])
    await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"1")
    await plane("UpdateFunctionConfiguration", FunctionName="hello", Layers=[arn])
    with pytest.raises(InvalidParameterValueException, match=text):
        await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 2")


@asynchronous
async def test_a_layer_policy_opens_a_version_to_another_account() -> None:
    plane = ControlPlane()
    arn = await plane.layer()
    with pytest.raises(AccessDeniedException, match=r"no resource-based policy allows the lambda:GetLayerVersion action$"):
        await plane.call_as(OTHER, "GetLayerVersionByArn", Arn=arn)
    added = await plane(
        "AddLayerVersionPermission",
        LayerName="tools",
        VersionNumber=1,
        StatementId="s1",
        Action="lambda:GetLayerVersion",
        Principal=OTHER,
    )
    assert json.loads(added["Statement"]) == {
        "Sid": "s1",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{OTHER}:root"},
        "Action": "lambda:GetLayerVersion",
        "Resource": arn,
    }
    assert (await plane.call_as(OTHER, "GetLayerVersionByArn", Arn=arn))["LayerVersionArn"] == arn
    policy = await plane("GetLayerVersionPolicy", LayerName="tools", VersionNumber=1)
    assert policy["RevisionId"] == added["RevisionId"]
    assert json.loads(policy["Policy"])["Id"] == "default"


@asynchronous
async def test_layer_policies_are_refused_in_aws_words() -> None:
    plane = ControlPlane()
    arn = await plane.layer()
    statement = {"StatementId": "s1", "Action": "lambda:GetLayerVersion", "Principal": "*"}
    version = {"LayerName": "tools", "VersionNumber": 1}
    with pytest.raises(ResourceNotFoundException, match=r"^No policy is associated with the given resource\.$"):
        await plane("GetLayerVersionPolicy", **version)
    with pytest.raises(ResourceNotFoundException, match=r"^Layer version .*:layer:tools:9 does not exist\.$"):
        await plane("AddLayerVersionPermission", LayerName="tools", VersionNumber=9, **statement)
    first = await plane("AddLayerVersionPermission", **version, **statement)
    with pytest.raises(ResourceConflictException, match=r"^The statement id \(s1\) provided already exists\."):
        await plane("AddLayerVersionPermission", **version, **statement)
    await plane("AddLayerVersionPermission", **version, **{**statement, "StatementId": "s2"})
    with pytest.raises(PreconditionFailedException, match="Call the GetLayerPolicy API"):
        await plane("RemoveLayerVersionPermission", **version, StatementId="s1", RevisionId=first["RevisionId"])
    with pytest.raises(ResourceNotFoundException, match=r"^Statement s3 is not found in resource policy\.$"):
        await plane("RemoveLayerVersionPermission", **version, StatementId="s3")
    for sid in ("s1", "s2"):
        await plane("RemoveLayerVersionPermission", **version, StatementId=sid)
    with pytest.raises(ResourceNotFoundException, match="No policy is associated"):
        await plane("GetLayerVersionPolicy", **version)
    assert arn.split(":")[4] == ACCOUNT


@asynchronous
async def test_nobody_changes_the_layers_of_another_account() -> None:
    plane = ControlPlane()
    await plane.layer()
    foreign = {"LayerName": layer_arn("tools"), "VersionNumber": 1}
    with pytest.raises(AccessDeniedException):
        await plane.call_as(OTHER, "DeleteLayerVersion", **foreign)
    with pytest.raises(AccessDeniedException):
        await plane.call_as(OTHER, "PublishLayerVersion", LayerName=layer_arn("tools"), Content={"ZipFile": b"x"})
    with pytest.raises(ResourceNotFoundException):
        await plane.call_as(
            OTHER, "AddLayerVersionPermission", **foreign, StatementId="s", Action="lambda:GetLayerVersion", Principal="*"
        )
    assert (await plane("GetLayerVersion", LayerName="tools", VersionNumber=1))["Version"] == 1
