"""Creating, reading, updating, listing and deleting functions, in AWS's words."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane import ROLE, ControlPlane, arn, asynchronous, digest, layer_arn
from kappa_core.errors import (
    CodeStorageExceededException,
    InvalidParameterValueException,
    LambdaError,
    PreconditionFailedException,
    ResourceConflictException,
    ResourceNotFoundException,
    ValidationException,
)
from kappa_core.limits import Limits
from kappa_core.rules.publish import code_sha256


@asynchronous
async def test_a_new_function_is_pending_and_then_active() -> None:
    plane = ControlPlane()
    answer = await plane.create(settle=False)
    assert answer | {"RevisionId": ""} == {
        "FunctionName": "hello",
        "FunctionArn": arn("hello"),
        "Runtime": "python3.12",
        "Role": ROLE,
        "Handler": "app.handler",
        "CodeSize": 6,
        "Description": "",
        "Timeout": 3,
        "MemorySize": 128,
        "LastModified": "2026-11-18T11:06:40.123+0000",
        "CodeSha256": code_sha256(digest(b"code 1")),
        "Version": "$LATEST",
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": "",
        "State": "Pending",
        "StateReason": "The function is being created.",
        "StateReasonCode": "Creating",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/hello"},
    }
    await plane.settler.idle()
    configuration = await plane.configuration()
    assert (configuration["State"], configuration["LastUpdateStatus"]) == ("Active", "Successful")
    assert "StateReason" not in configuration


@asynchronous
async def test_get_function_shows_code_tags_and_reservation_only_where_there_are_any() -> None:
    plane = ControlPlane()
    await plane.create()
    plain = await plane("GetFunction", FunctionName="hello")
    assert set(plain) == {"Configuration", "Code"}
    assert plain["Code"] == {
        "RepositoryType": "S3",
        "Location": f"http://127.0.0.1:9000/code/hello/-/{digest(b'code 1')}",
    }
    await plane("TagResource", Resource=arn("hello"), Tags={"team": "a"})
    await plane("PutFunctionConcurrency", FunctionName="hello", ReservedConcurrentExecutions=0)
    full = await plane("GetFunction", FunctionName=arn("hello", "$LATEST"))
    assert full["Tags"] == {"team": "a"}
    assert full["Concurrency"] == {"ReservedConcurrentExecutions": 0}
    assert full["Configuration"]["FunctionArn"] == arn("hello", "$LATEST")


@asynchronous
async def test_a_function_reached_by_version_or_alias_shows_how_it_was_reached() -> None:
    plane = ControlPlane()
    await plane.create(Publish=True)
    await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1")
    for qualifier in ("1", "live"):
        configuration = (await plane("GetFunction", FunctionName="hello", Qualifier=qualifier))["Configuration"]
        assert (configuration["FunctionArn"], configuration["Version"]) == (arn("hello", qualifier), "1")
        assert configuration == await plane.configuration(Qualifier=qualifier)


@pytest.mark.parametrize(
    ("operation", "params", "text"),
    [
        ("GetFunction", {"FunctionName": "nobody"}, f"Function not found: {arn('nobody')}"),
        ("GetFunction", {"FunctionName": "nobody", "Qualifier": "1"}, f"Function not found: {arn('nobody', '1')}"),
        ("GetFunction", {"FunctionName": "hello", "Qualifier": "1"}, f"Function not found: {arn('hello', '1')}"),
        ("GetFunction", {"FunctionName": "hello:live"}, f"Function not found: {arn('hello', 'live')}"),
        ("GetFunctionConfiguration", {"FunctionName": "nobody"}, f"Function not found: {arn('nobody')}"),
        ("DeleteFunction", {"FunctionName": "nobody"}, f"Function not found: {arn('nobody')}"),
        ("DeleteFunction", {"FunctionName": "nobody", "Qualifier": "1"}, f"Function not found: {arn('nobody', '1')}"),
        ("UpdateFunctionCode", {"FunctionName": "nobody", "ZipFile": b"x"}, f"Function not found: {arn('nobody')}"),
        ("UpdateFunctionConfiguration", {"FunctionName": "nobody"}, f"Function not found: {arn('nobody')}"),
        ("PublishVersion", {"FunctionName": "nobody"}, f"Function not found: {arn('nobody')}"),
        ("ListVersionsByFunction", {"FunctionName": "nobody"}, f"Function not found: {arn('nobody')}"),
    ],
)
def test_what_is_not_there_is_not_found(operation: str, params: dict[str, Any], text: str) -> None:
    @asynchronous
    async def scenario() -> None:
        plane = ControlPlane()
        await plane.create()
        with pytest.raises(ResourceNotFoundException) as caught:
            await plane(operation, **params)
        assert caught.value.message == text

    scenario()


@asynchronous
async def test_a_name_is_taken_once() -> None:
    plane = ControlPlane()
    await plane.create()
    with pytest.raises(ResourceConflictException) as caught:
        await plane.create()
    assert caught.value.message == "Function already exist: hello"


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"FunctionName": "x" * 65}, InvalidParameterValueException),
        ({"FunctionName": "he.llo"}, ValidationException),
        ({"Runtime": "cobol85"}, InvalidParameterValueException),
        ({"Runtime": "python2.7"}, InvalidParameterValueException),
        ({"Handler": ""}, InvalidParameterValueException),
        ({"MemorySize": 20000}, ValidationException),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, InvalidParameterValueException),
        ({"Layers": [layer_arn("nothing", 1)]}, InvalidParameterValueException),
        ({"Tags": {f"k{n}": "" for n in range(51)}}, InvalidParameterValueException),
        ({"Code": {}}, InvalidParameterValueException),
        ({"Code": {"ZipFile": b"bad"}}, InvalidParameterValueException),
        ({"PackageType": "Image", "Code": {"ImageUri": "i"}}, InvalidParameterValueException),
    ],
)
def test_a_refused_creation_leaves_no_trace(params: dict[str, Any], error: type[LambdaError]) -> None:
    @asynchronous
    async def scenario() -> None:
        plane = ControlPlane()
        with pytest.raises(error):
            await plane.create(**{"name": "hello"} | ({"name": params["FunctionName"]} if "FunctionName" in params else params))
        assert (await plane("ListFunctions"))["Functions"] == []
        assert [blob async for blob in plane.blobs.all()] == []

    scenario()


@asynchronous
async def test_code_may_come_from_s3() -> None:
    plane = ControlPlane()
    plane.intake.objects["bucket", "key", "v1"] = b"from s3"
    answer = await plane.create(Code={"S3Bucket": "bucket", "S3Key": "key", "S3ObjectVersion": "v1"})
    assert answer["CodeSha256"] == code_sha256(digest(b"from s3"))


@asynchronous
async def test_updating_code_goes_through_in_progress_and_serves_the_old_code_meanwhile() -> None:
    plane = ControlPlane()
    created = await plane.create()
    plane.clock.now_ms += 1000
    answer = await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 2", Architectures=["arm64"])
    assert answer["CodeSha256"] == code_sha256(digest(b"code 2"))
    assert answer["Architectures"] == ["arm64"]
    assert answer["LastModified"] == "2026-11-18T11:06:41.123+0000"
    assert (answer["State"], answer["LastUpdateStatus"], answer["LastUpdateStatusReasonCode"]) == (
        "Active",
        "InProgress",
        "Creating",
    )
    assert answer["RevisionId"] != created["RevisionId"]
    await plane.settler.idle()
    assert (await plane.configuration())["LastUpdateStatus"] == "Successful"


@asynchronous
async def test_revisions_change_as_recorded() -> None:
    plane = ControlPlane()
    revisions = [(await plane.create(settle=False))["RevisionId"]]
    await plane.settler.idle()
    revisions.append((await plane.configuration())["RevisionId"])
    revisions.append((await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 2"))["RevisionId"])
    await plane.settler.idle()
    revisions.append((await plane.configuration())["RevisionId"])
    revisions.append((await plane("UpdateFunctionConfiguration", FunctionName="hello", Timeout=9))["RevisionId"])
    await plane.settler.idle()
    revisions.append((await plane.configuration())["RevisionId"])
    assert len(set(revisions)) == 6
    assert (await plane.configuration())["RevisionId"] == revisions[-1]
    await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="$LATEST")
    assert (await plane.configuration())["RevisionId"] == revisions[-1]


@asynchronous
async def test_a_stale_revision_changes_nothing() -> None:
    plane = ControlPlane()
    stale = (await plane.create(settle=False))["RevisionId"]
    await plane.settler.idle()
    for operation, params in (
        ("UpdateFunctionCode", {"ZipFile": b"code 2"}),
        ("UpdateFunctionConfiguration", {"Timeout": 9}),
        ("PublishVersion", {}),
    ):
        before = await plane.configuration()
        with pytest.raises(PreconditionFailedException, match="does not match the latest Revision Id"):
            await plane(operation, FunctionName="hello", RevisionId=stale, **params)
        assert await plane.configuration() == before
        await plane(operation, FunctionName="hello", RevisionId=before["RevisionId"], **params)
        await plane.settler.idle()


@asynchronous
async def test_a_dry_run_checks_and_shows_but_changes_nothing() -> None:
    plane = ControlPlane()
    await plane.create()
    before = await plane.configuration()
    answer = await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 2", DryRun=True)
    assert answer["CodeSha256"] == code_sha256(digest(b"code 2"))
    assert answer["LastUpdateStatus"] == "Successful"
    assert await plane.configuration() == before
    with pytest.raises(InvalidParameterValueException, match="Could not unzip uploaded file"):
        await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"bad", DryRun=True)


@asynchronous
async def test_an_image_for_a_zip_function_is_refused_in_aws_words() -> None:
    plane = ControlPlane()
    await plane.create()
    with pytest.raises(InvalidParameterValueException) as caught:
        await plane("UpdateFunctionCode", FunctionName="hello", ImageUri="image")
    assert caught.value.message == "Please don't provide ImageUri when updating a function with packageType Zip."


@asynchronous
async def test_only_the_function_itself_can_be_changed() -> None:
    plane = ControlPlane()
    await plane.create(Publish=True)
    for operation, params in (
        ("UpdateFunctionCode", {"ZipFile": b"x"}),
        ("UpdateFunctionConfiguration", {}),
        ("PublishVersion", {}),
    ):
        with pytest.raises(InvalidParameterValueException, match="permitted on Lambda functions only"):
            await plane(operation, FunctionName=arn("hello", "1"), **params)


@asynchronous
async def test_deleting_a_function_takes_its_versions_and_aliases_with_it() -> None:
    plane = ControlPlane()
    await plane.create(Publish=True)
    await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1")
    assert await plane("DeleteFunction", FunctionName="hello") == {"StatusCode": 204}
    for qualifier in ({}, {"Qualifier": "1"}, {"Qualifier": "live"}):
        with pytest.raises(ResourceNotFoundException):
            await plane("GetFunction", FunctionName="hello", **qualifier)
    await plane.settler.idle()
    assert await plane.memory.list("FunctionVersion") == []
    assert await plane.memory.list("Alias") == []


@asynchronous
async def test_versions_are_deleted_unless_an_alias_needs_them() -> None:
    plane = ControlPlane()
    await plane.create(Publish=True)
    await plane("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1")
    with pytest.raises(ResourceConflictException) as caught:
        await plane("DeleteFunction", FunctionName="hello", Qualifier="1")
    assert caught.value.message == "Unable to delete version because the following aliases reference it: [live]"
    with pytest.raises(InvalidParameterValueException, match="Deletion of aliases is not currently supported"):
        await plane("DeleteFunction", FunctionName="hello", Qualifier="live")
    with pytest.raises(InvalidParameterValueException, match="cannot be deleted without deleting the function"):
        await plane("DeleteFunction", FunctionName="hello", Qualifier="$LATEST")
    await plane("DeleteAlias", FunctionName="hello", Name="live")
    for _ in range(2):  # the second time it is gone already
        assert await plane("DeleteFunction", FunctionName="hello", Qualifier="1") == {"StatusCode": 204}
    with pytest.raises(ResourceNotFoundException):
        await plane("GetFunction", FunctionName="hello", Qualifier="1")
    assert (await plane.configuration())["State"] == "Active"


@asynchronous
async def test_functions_are_listed_by_name_in_pages_without_states() -> None:
    plane = ControlPlane()
    for number in range(52):
        await plane.create(f"f{number:02}", Publish=number < 2)
    first = await plane("ListFunctions")
    assert [one["FunctionName"] for one in first["Functions"]] == [f"f{n:02}" for n in range(50)]
    assert not {"State", "StateReason", "LastUpdateStatus"} & set(first["Functions"][0])
    await plane("DeleteFunction", FunctionName="f49")  # a marker outlives the item it was made of
    second = await plane("ListFunctions", Marker=first["NextMarker"], MaxItems=10_000)
    assert [one["FunctionName"] for one in second["Functions"]] == ["f50", "f51"]
    assert "NextMarker" not in second


@asynchronous
async def test_all_versions_are_listed_with_qualified_arns_over_any_page_size() -> None:
    plane = ControlPlane()
    for name in ("a", "b", "c"):
        await plane.create(name, Publish=True)
    await plane("UpdateFunctionCode", FunctionName="b", ZipFile=b"code 2", Publish=True)
    expected = [
        arn("a", "$LATEST"),
        arn("a", "1"),
        arn("b", "$LATEST"),
        arn("b", "1"),
        arn("b", "2"),
        arn("c", "$LATEST"),
        arn("c", "1"),
    ]
    for size in range(1, 9):
        found: list[str] = []
        marker: dict[str, str] = {}
        while True:
            page = await plane("ListFunctions", FunctionVersion="ALL", MaxItems=size, **marker)
            found += [one["FunctionArn"] for one in page["Functions"]]
            if "NextMarker" not in page:
                break
            marker = {"Marker": page["NextMarker"]}
        assert found == expected


@pytest.mark.parametrize("marker", ["x", "bm90IGpzb24=", "WyJhIl0=", "ä", "e30="])
def test_a_made_up_marker_is_refused(marker: str) -> None:
    @asynchronous
    async def scenario() -> None:
        plane = ControlPlane()
        with pytest.raises(InvalidParameterValueException, match="Marker"):
            await plane("ListFunctions", Marker=marker)

    scenario()


@asynchronous
async def test_accounts_do_not_see_each_other() -> None:
    plane = ControlPlane()
    await plane.create()
    assert (
        await plane.call_as(
            "210987654321",
            "ListFunctions",
        )
    )["Functions"] == []
    with pytest.raises(ResourceNotFoundException):
        await plane.call_as("210987654321", "GetFunction", FunctionName="hello")


@asynchronous
async def test_code_storage_is_bounded_over_functions_versions_and_layers() -> None:
    plane = ControlPlane(limits=Limits(code_storage_bytes=20))
    await plane.create(Publish=True)  # 6 bytes twice
    await plane.layer(data=b"12345678")
    usage = (await plane("GetAccountSettings"))["AccountUsage"]
    assert usage == {"TotalCodeSize": 20, "FunctionCount": 1}
    with pytest.raises(CodeStorageExceededException):
        await plane.create("another", Code={"ZipFile": b"1"})
    await plane("DeleteFunction", FunctionName="hello")
    await plane.create("another", Code={"ZipFile": b"1"})
