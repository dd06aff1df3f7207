"""Publishing: one version per change, numbers that only rise, and the preconditions."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane import ControlPlane, arn, asynchronous
from kappa_core.errors import InvalidParameterValueException


@asynchronous
async def test_create_with_publish_answers_version_one_unqualified_and_pending() -> None:
    plane = ControlPlane()
    answer = await plane.create(Publish=True, settle=False)
    assert (answer["Version"], answer["FunctionArn"], answer["State"]) == ("1", arn("hello"), "Pending")
    await plane.settler.idle()
    version = await plane.configuration(Qualifier="1")
    assert (version["State"], version["LastUpdateStatus"]) == ("Active", "Successful")


@asynchronous
async def test_updating_code_with_publish_answers_the_version() -> None:
    plane = ControlPlane()
    await plane.create()
    answer = await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 2", Publish=True)
    assert (answer["Version"], answer["FunctionArn"]) == ("1", arn("hello", "1"))
    await plane.settler.idle()
    same = await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 2", Publish=True)
    assert same["Version"] == "1"


@asynchronous
async def test_publishing_without_a_change_returns_the_newest_version_again() -> None:
    plane = ControlPlane()
    await plane.create()
    first = await plane("PublishVersion", FunctionName="hello", Description="one")
    assert (first["Version"], first["Description"], first["FunctionArn"]) == ("1", "one", arn("hello", "1"))
    await plane("TagResource", Resource=arn("hello"), Tags={"a": "b"})
    await plane("PutFunctionConcurrency", FunctionName="hello", ReservedConcurrentExecutions=1)
    await plane.settler.idle()
    again = await plane("PublishVersion", FunctionName="hello", Description="two")
    assert (again["Version"], again["Description"], again["RevisionId"]) == ("1", "one", first["RevisionId"])
    await plane("UpdateFunctionConfiguration", FunctionName="hello", Description="changed")
    await plane.settler.idle()
    assert (await plane("PublishVersion", FunctionName="hello"))["Version"] == "2"


@asynchronous
async def test_publishing_changes_the_revision_of_latest_only() -> None:
    plane = ControlPlane()
    await plane.create()
    before = (await plane.configuration())["RevisionId"]
    version = await plane("PublishVersion", FunctionName="hello")
    after = (await plane.configuration())["RevisionId"]
    assert len({before, after, version["RevisionId"]}) == 3
    await plane.settler.idle()
    assert (await plane.configuration(Qualifier="1"))["RevisionId"] == version["RevisionId"]


@asynchronous
async def test_numbers_are_never_reused_not_even_by_a_new_function_of_the_name() -> None:
    plane = ControlPlane()
    await plane.create(Publish=True)
    await plane("DeleteFunction", FunctionName="hello", Qualifier="1")
    assert (await plane("PublishVersion", FunctionName="hello"))["Version"] == "2"
    await plane("DeleteFunction", FunctionName="hello")
    await plane.create()
    assert (await plane("PublishVersion", FunctionName="hello"))["Version"] == "3"


@asynchronous
async def test_a_version_keeps_what_it_froze() -> None:
    plane = ControlPlane()
    await plane.create(Publish=True, Environment={"Variables": {"AB": "1"}})
    await plane("UpdateFunctionConfiguration", FunctionName="hello", Environment={"Variables": {"AB": "2"}})
    await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code two")
    version = await plane.configuration(Qualifier="1")
    assert (version["Environment"], version["CodeSize"]) == ({"Variables": {"AB": "1"}}, 6)


@asynchronous
async def test_the_code_precondition_is_checked() -> None:
    plane = ControlPlane()
    created = await plane.create()
    with pytest.raises(
        InvalidParameterValueException, match=r"^CodeSHA256 \(x\) is different from current CodeSHA256 in \$LATEST"
    ):
        await plane("PublishVersion", FunctionName="hello", CodeSha256="x")
    assert (await plane("PublishVersion", FunctionName="hello", CodeSha256=created["CodeSha256"]))["Version"] == "1"


@asynchronous
async def test_versions_are_listed_by_number_behind_latest() -> None:
    plane = ControlPlane()
    await plane.create()
    for number in range(1, 12):
        await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=f"code {number}".encode(), Publish=True)
    found: list[dict[str, Any]] = []
    marker: dict[str, str] = {}
    while True:
        page = await plane("ListVersionsByFunction", FunctionName="hello", MaxItems=5, **marker)
        found += page["Versions"]
        if "NextMarker" not in page:
            break
        marker = {"Marker": page["NextMarker"]}
    assert [one["FunctionArn"] for one in found] == [arn("hello", q) for q in ("$LATEST", *map(str, range(1, 12)))]
    assert not any({"State", "LastUpdateStatus"} & set(one) for one in found)
