"""Requests at the same time, in one process and in two over one store: all succeed that would at AWS, nothing is lost."""

from __future__ import annotations

import asyncio
import json

import pytest

from control_plane import ACCOUNT, REGION, ControlPlane, arn, asynchronous, settling
from kappa_core.errors import LambdaError, ResourceConflictException, ResourceNotFoundException
from kappa_core.resources import AccountId, Key, Region

FUNCTION = Key("Function", AccountId(ACCOUNT), Region(REGION), "hello")


def planes() -> list[ControlPlane]:
    """Two gateways over one store."""
    first = ControlPlane()
    return [first, ControlPlane(on=first)]


@asynchronous
async def test_of_many_creations_at_once_exactly_one_wins() -> None:
    both = planes()
    outcomes = await asyncio.gather(*(both[number % 2].create(settle=False) for number in range(8)), return_exceptions=True)
    lost = [one for one in outcomes if isinstance(one, BaseException)]
    assert len(lost) == 7
    assert {str(one) for one in lost} == {"Function already exist: hello"}
    assert all(isinstance(one, ResourceConflictException) for one in lost)


@asynchronous
async def test_parallel_tags_are_all_kept() -> None:
    both = planes()
    await both[0].create()
    await asyncio.gather(*(both[n % 2]("TagResource", Resource=arn("hello"), Tags={f"k{n}": str(n)}) for n in range(16)))
    assert (await both[0]("ListTags", Resource=arn("hello")))["Tags"] == {f"k{n}": str(n) for n in range(16)}


@asynchronous
async def test_parallel_layer_permissions_are_all_kept() -> None:
    both = planes()
    await both[0].layer()
    await asyncio.gather(
        *(
            both[n % 2](
                "AddLayerVersionPermission",
                LayerName="tools",
                VersionNumber=1,
                StatementId=f"s{n}",
                Action="lambda:GetLayerVersion",
                Principal="*",
            )
            for n in range(16)
        )
    )
    policy = json.loads((await both[1]("GetLayerVersionPolicy", LayerName="tools", VersionNumber=1))["Policy"])
    assert {one["Sid"] for one in policy["Statement"]} == {f"s{n}" for n in range(16)}


@asynchronous
async def test_parallel_publishes_of_one_state_make_one_version() -> None:
    both = planes()
    await both[0].create()
    answers = await asyncio.gather(*(both[n % 2]("PublishVersion", FunctionName="hello") for n in range(8)))
    assert len({answer["Version"] for answer in answers}) == 1
    listed = (await both[0]("ListVersionsByFunction", FunctionName="hello"))["Versions"]
    assert len(listed) == 2


@asynchronous
async def test_parallel_updates_all_succeed_one_after_the_other() -> None:
    both = planes()
    await both[0].create()
    members = [("Timeout", 9), ("MemorySize", 256), ("Description", "d"), ("Handler", "b.c")]
    async with settling(both[0]), settling(both[1]):
        await asyncio.gather(
            *(
                both[n % 2]("UpdateFunctionConfiguration", FunctionName="hello", **{name: value})
                for n, (name, value) in enumerate(members)
            )
        )
    configuration = await both[0].configuration()
    assert all(configuration[name] == value for name, value in members)


@asynchronous
async def test_parallel_reservations_never_exceed_the_account() -> None:
    plane = ControlPlane()
    for n in range(4):
        await plane.create(f"f{n}")
    outcomes = await asyncio.gather(
        *(plane("PutFunctionConcurrency", FunctionName=f"f{n}", ReservedConcurrentExecutions=300) for n in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, LambdaError) for one in outcomes) == 1
    assert (await plane("GetAccountSettings"))["AccountLimit"]["UnreservedConcurrentExecutions"] == 100


@asynchronous
async def test_one_alias_name_is_given_once_and_updates_are_serialised() -> None:
    both = planes()
    await both[0].create(Publish=True)
    outcomes = await asyncio.gather(
        *(both[n % 2]("CreateAlias", FunctionName="hello", Name="live", FunctionVersion="1") for n in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, ResourceConflictException) for one in outcomes) == 3
    answers = await asyncio.gather(
        *(both[n % 2]("UpdateAlias", FunctionName="hello", Name="live", Description=str(n)) for n in range(8))
    )
    assert len({answer["RevisionId"] for answer in answers}) == 8


@asynchronous
async def test_deleting_during_a_publish_leaves_nothing_behind() -> None:
    both = planes()
    for _ in range(10):
        await both[0].create(settle=False)
        outcomes = await asyncio.gather(
            both[0]("PublishVersion", FunctionName="hello"),
            both[1]("DeleteFunction", FunctionName="hello"),
            both[1]("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 2", Publish=True),
            return_exceptions=True,
        )
        for outcome in outcomes:
            assert isinstance(outcome, dict | ResourceNotFoundException), outcome
        for plane in both:
            await plane.settler.idle()
        with pytest.raises(ResourceNotFoundException):
            await both[0].configuration()
        both[0].settler.changed(FUNCTION)
        await both[0].settler.idle()
        assert await both[0].memory.list("FunctionVersion") == []


@asynchronous
async def test_locks_are_forgotten_when_nobody_holds_them() -> None:
    plane = ControlPlane()
    await plane.create()
    await asyncio.gather(*(plane("TagResource", Resource=arn("hello"), Tags={f"k{n}": ""}) for n in range(5)))
    await plane("PutFunctionConcurrency", FunctionName="hello", ReservedConcurrentExecutions=1)
    assert len(plane.deps.locks) == 0
