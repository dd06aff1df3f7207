"""The settler: everything that is accepted ends as Active or Failed, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from control_plane import ControlPlane, arn, asynchronous, digest, settling
from kappa_core.errors import InvalidParameterValueException, ResourceConflictException
from kappa_core.names import FunctionName
from kappa_core.ports.blobs import BlobNotFound
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import AccountId, Configuration, Function, FunctionVersion, Key, Kind, Region, Resource
from kappa_core.rules.resolve import resolve
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.preparing import Unready
from kappa_gateway.operations.settle import PASSING_SECONDS, Settler

KEY = Key("Function", AccountId("123456789012"), Region("eu-central-1"), "hello")


async def stored(plane: ControlPlane) -> Function:
    function = await plane.memory.get(KEY)
    assert isinstance(function, Function)
    return function


@asynchronous
async def test_settling_unpacks_code_and_layers_before_anything_is_active() -> None:
    plane = ControlPlane()
    layer = await plane.layer(data=b"layer")
    plane.trees.gate.clear()
    await plane.create(settle=False, Layers=[layer])
    waiting = asyncio.create_task(plane.settler.await_settled(KEY, 5))
    await asyncio.sleep(0)
    assert (await stored(plane)).status.state == "Pending"
    assert not waiting.done()
    plane.trees.gate.set()
    assert await waiting
    assert (await stored(plane)).status.state == "Active"
    assert plane.trees.unpacked == [digest(b"code 1"), digest(b"layer")]


@asynchronous
async def test_a_missing_runtime_fails_the_function_and_says_what_was_found() -> None:
    plane = ControlPlane()
    plane.runtimes.missing = {"python3.12"}
    await plane.create()
    configuration = await plane.configuration()
    assert (configuration["State"], configuration["StateReasonCode"]) == ("Failed", "InvalidRuntime")
    assert configuration["StateReason"] == "python3.12 is not installed; found python3.11."
    assert configuration["LastUpdateStatus"] == "Failed"


@asynchronous
async def test_a_failed_function_is_repaired_by_an_update() -> None:
    plane = ControlPlane()
    plane.runtimes.missing = {"python3.12"}
    await plane.create()
    answer = await plane("UpdateFunctionConfiguration", FunctionName="hello", Runtime="python3.11")
    assert answer["State"] == "Pending"
    await plane.settler.idle()
    assert (await plane.configuration())["State"] == "Active"


@asynchronous
async def test_a_failed_update_leaves_the_old_configuration_serving() -> None:
    plane = ControlPlane()
    await plane.create()
    plane.runtimes.missing = {"nodejs22.x"}
    await plane("UpdateFunctionConfiguration", FunctionName="hello", Runtime="nodejs22.x", Timeout=9)
    await plane.settler.idle()
    configuration = await plane.configuration()
    assert (configuration["State"], configuration["LastUpdateStatus"]) == ("Active", "Failed")
    assert configuration["LastUpdateStatusReasonCode"] == "InvalidRuntime"
    assert configuration["Runtime"] == "nodejs22.x"
    name = FunctionName(KEY.account, KEY.region, "hello")
    serving = resolve({KEY: await stored(plane)}, name).runnable()
    assert (serving.runtime, serving.timeout) == ("python3.12", 3)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InvalidParameterValueException("Could not unzip."), "InvalidZipFileException", "Could not unzip."),
        (BlobNotFound("no blob"), "InternalError", "The code of the function is no longer there. Upload it again."),
        (OSError(28, "No space left on device"), "InternalError", "could not be unpacked: [Errno 28] No space left on device"),
        (RuntimeError("a bug"), "InternalError", "could not be unpacked: RuntimeError('a bug')"),
    ],
)
def test_whatever_unpacking_raises_ends_as_failed_with_its_reason(error: Exception, code: str, reason: str) -> None:
    @asynchronous
    async def scenario() -> None:
        plane = ControlPlane()
        plane.trees.error = error
        await plane.create()
        configuration = await plane.configuration()
        assert (configuration["State"], configuration["StateReasonCode"]) == ("Failed", code)
        assert reason in configuration["StateReason"]

    scenario()


@asynchronous
async def test_a_start_finishes_what_was_pending_and_retries_runtimes_that_are_installed_by_now() -> None:
    before = ControlPlane()
    before.trees.gate.clear()
    await before.create("pending", settle=False, Publish=True)
    before.runtimes.missing = {"nodejs22.x"}
    before.trees.gate.set()
    await before.create("failed", Runtime="nodejs22.x", Publish=True)
    before.trees.gate.clear()
    await before.create("stuck", settle=False)
    await before.settler.stop()

    after = ControlPlane(on=before)
    async with settling(after):
        for name, qualifier in (
            ("pending", "$LATEST"),
            ("pending", "1"),
            ("failed", "$LATEST"),
            ("failed", "1"),
            ("stuck", "$LATEST"),
        ):
            while (await after.configuration(name, Qualifier=qualifier))["State"] != "Active":
                await asyncio.sleep(0)


@asynchronous
async def test_a_start_retries_a_failure_once_and_writes_nothing_where_it_fails_again() -> None:
    before = ControlPlane()
    before.runtimes.missing = {"python3.12"}
    await before.create()
    failed = await stored(before)
    after = ControlPlane(on=before)
    after.runtimes.missing = {"python3.12"}
    async with settling(after):
        for _ in range(50):
            await asyncio.sleep(0)
        await after.settler.idle()
    assert await stored(after) == failed


class Meanwhile:
    """A store in which another gateway creates and publishes a function whenever one kind has just been listed."""

    def __init__(self, store: ResourceStore, create: Callable[[str], Awaitable[object]]) -> None:
        self._store = store
        self._create = create

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def list(self, kind: Kind, **selection: Any) -> list[Resource]:
        found = await self._store.list(kind, **selection)
        await self._create(f"after-{kind}")
        return found


@asynchronous
async def test_a_start_takes_nothing_for_a_leftover_that_another_gateway_creates_meanwhile() -> None:
    other = ControlPlane()
    created: set[str] = set()

    async def create(name: str) -> None:
        if name not in created:
            created.add(name)
            await other.create(name, Publish=True)

    starting = ControlPlane(on=other, wrap=lambda store: Meanwhile(store, create))
    async with settling(starting):
        while len(created) < 3:
            await asyncio.sleep(0)
        for _ in range(200):  # what follows the last list
            await asyncio.sleep(0)
        await starting.settler.idle()
        for name in created:
            assert (await other.configuration(name, Qualifier="1"))["Version"] == "1"


@asynchronous
async def test_by_default_a_change_waits_for_what_is_under_way() -> None:
    plane = ControlPlane()
    plane.trees.gate.clear()
    await plane.create(settle=False)
    update = asyncio.create_task(plane("UpdateFunctionConfiguration", FunctionName="hello", Timeout=9))
    publish = asyncio.create_task(plane("PublishVersion", FunctionName="hello"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not update.done()
    assert not publish.done()
    plane.trees.gate.set()
    assert (await update)["Timeout"] == 9
    assert (await publish)["Version"] == "1"


@asynchronous
async def test_strict_states_refuse_at_once_in_aws_words() -> None:
    plane = ControlPlane(strict=True)
    plane.trees.gate.clear()
    await plane.create(settle=False)
    for operation, params in (
        ("UpdateFunctionCode", {"ZipFile": b"x"}),
        ("UpdateFunctionConfiguration", {"Timeout": 9}),
        ("PublishVersion", {}),
    ):
        with pytest.raises(ResourceConflictException, match=r"currently in the following state: Pending$"):
            await plane(operation, FunctionName="hello", **params)
    plane.trees.gate.set()
    await plane.settler.idle()
    plane.trees.gate.clear()
    await plane("UpdateFunctionConfiguration", FunctionName="hello", Timeout=9)
    with pytest.raises(ResourceConflictException) as caught:
        await plane("TagResource", Resource=arn("hello"), Tags={"a": "b"})
    assert caught.value.message == (
        f"The operation cannot be performed at this time. An update is in progress for resource: {arn('hello')}"
    )
    plane.trees.gate.set()


@asynchronous
async def test_settling_takes_at_least_the_delay() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    plane = ControlPlane(delay=0.5, sleep=sleep)
    await plane.create()
    assert slept == [0.5]


@asynchronous
async def test_waiting_ends_with_the_deadline_or_with_the_function() -> None:
    plane = ControlPlane()
    plane.trees.gate.clear()
    await plane.create(settle=False)
    assert not await plane.settler.await_settled(KEY, 0.0)
    async with settling(plane):
        waiting = asyncio.create_task(plane.settler.await_settled(KEY, 5))
        await asyncio.sleep(0)
        await plane("DeleteFunction", FunctionName="hello")
        assert await waiting
        plane.trees.gate.set()


@asynchronous
async def test_a_function_deleted_while_it_settles_stays_deleted() -> None:
    plane = ControlPlane()
    plane.trees.gate.clear()
    await plane.create(settle=False)
    await asyncio.sleep(0)
    await plane("DeleteFunction", FunctionName="hello")
    plane.trees.gate.set()
    await plane.settler.idle()
    assert await plane.memory.list("Function") == []


@asynchronous
async def test_a_settling_update_never_overwrites_what_came_after_it() -> None:
    plane = ControlPlane()
    plane.trees.gate.clear()
    await plane.create(settle=False)
    await asyncio.sleep(0)
    await plane("DeleteFunction", FunctionName="hello")
    await plane.create(settle=False, Code={"ZipFile": b"another"})
    plane.trees.gate.set()
    await plane.settler.idle()
    function = await stored(plane)
    assert function.status.serving == function.configuration
    assert function.configuration.code.sha256 == digest(b"another")


@asynchronous
async def test_what_another_process_changes_is_settled_too() -> None:
    ours = ControlPlane()
    theirs = ControlPlane(on=ours)
    theirs.trees.gate.clear()  # it accepts the change and never gets to settling it
    async with settling(ours):
        await theirs.create(settle=False)
        assert await ours.settler.await_settled(KEY, 5)
        assert (await ours.configuration())["State"] == "Active"
    await theirs.settler.stop()


# -- several gateways, one of which settles --------------------------------------------------------------------------------
class Prepared:
    """A preparation that tests let fail."""

    def __init__(self) -> None:
        self.failure: Unready | None = None
        self.asked = 0

    async def prepare(self, resource: Function | FunctionVersion, /) -> Configuration:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return resource.configuration


async def plane_without_settler() -> ControlPlane:
    """One whose own settler has stopped: another gateway settles."""
    plane = ControlPlane()
    await plane.settler.stop()
    return plane


def settler_of(plane: ControlPlane, prepared: Prepared, **options: Any) -> Settler:
    return Settler(store=plane.memory, preparation=prepared, locks=KeyedLocks(), **options)


@asynchronous
async def test_a_gateway_that_does_not_hold_settles_nothing_until_it_takes_over() -> None:
    plane, prepared, holds = await plane_without_settler(), Prepared(), False
    settler = settler_of(plane, prepared, holds=lambda: holds)
    running = asyncio.create_task(settler.run())
    await plane.create(settle=False)
    settler.changed(KEY)
    await settler.idle()
    assert prepared.asked == 0
    waiting = asyncio.create_task(settler.await_settled(KEY, 5))
    holds = True
    settler.take_over()
    assert await waiting
    assert (await stored(plane)).status.state == "Active"
    await settler.stop()
    running.cancel()


@asynchronous
async def test_code_that_was_taken_in_is_part_of_what_is_written() -> None:
    class TakesIn(Prepared):
        async def prepare(self, resource: Function | FunctionVersion, /) -> Configuration:
            taken = msgspec.structs.replace(resource.configuration.code, source="inline")
            return msgspec.structs.replace(resource.configuration, code=taken)

    plane = await plane_without_settler()
    settler = settler_of(plane, TakesIn())
    await plane.create(settle=False)
    settler.changed(KEY)
    await settler.idle()
    function = await stored(plane)
    assert function.configuration.code.source == "inline"
    assert function.status.serving == function.configuration
    await settler.stop()


@asynchronous
async def test_what_changed_outside_of_a_function_is_prepared_anew_and_counts_as_an_update_where_it_is_other_code() -> None:
    plane = await plane_without_settler()

    class Source(Prepared):
        content = b"code 1"

        async def prepare(self, resource: Function | FunctionVersion, /) -> Configuration:
            await super().prepare(resource)
            return msgspec.structs.replace(resource.configuration, code=await plane.intake.from_zip(self.content))

    source = Source()
    settler = settler_of(plane, source, clock_ms=lambda: 1_800_000_000_000)
    await plane.create(settle=False)
    settler.changed(KEY)
    await settler.idle()
    before = await stored(plane)
    settler.renew(KEY)
    await settler.idle()
    assert await stored(plane) == before
    source.content = b"code 2"
    settler.renew(KEY)
    await settler.idle()
    after = await stored(plane)
    assert source.asked == 3
    assert after.status.serving == after.configuration
    assert (after.configuration.code.sha256, after.modified_ms) == (digest(b"code 2"), 1_800_000_000_000)
    source.failure = Unready("The ConfigMap has no entry x.", "InvalidZipFileException")
    settler.renew(KEY)
    await settler.idle()
    failed = await stored(plane)
    assert (failed.status.last_update_status, failed.status.serving) == ("Failed", after.configuration)
    await settler.stop()


@asynchronous
async def test_a_gateway_that_does_not_hold_renews_nothing() -> None:
    plane, prepared = await plane_without_settler(), Prepared()
    settler = settler_of(plane, prepared, holds=lambda: False)
    await plane.create(settle=False)
    settler.renew(KEY)
    await settler.idle()
    assert prepared.asked == 0


@asynchronous
async def test_a_failure_that_may_pass_is_looked_at_again_and_one_that_will_not_is_left() -> None:
    slept: list[float] = []
    later = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await later.wait()

    plane, prepared = await plane_without_settler(), Prepared()
    prepared.failure = Unready("The ConfigMap is not there.", "InvalidZipFileException", passing=True)
    settler = settler_of(plane, prepared, sleep=sleep)
    await plane.create(settle=False)
    settler.changed(KEY)
    await settler.idle()
    assert (await stored(plane)).status.state_reason == "The ConfigMap is not there."
    prepared.failure = None
    later.set()
    assert await settler.await_settled(KEY, 5)
    while (await stored(plane)).status.state != "Active":
        await asyncio.sleep(0)
    assert slept == [PASSING_SECONDS]
    prepared.failure = Unready("It is no archive.", "InvalidZipFileException")
    await plane("UpdateFunctionConfiguration", FunctionName="hello", Description="x")
    settler.changed(KEY)
    await settler.idle()
    assert slept == [PASSING_SECONDS]
    await settler.stop()


@asynchronous
async def test_where_owner_references_collect_nothing_is_deleted_here() -> None:
    plane = ControlPlane()
    await plane.create()
    await plane("PublishVersion", FunctionName="hello")
    await plane.settler.idle()
    function = await stored(plane)
    await plane.memory.delete(function.key)
    settler = settler_of(plane, Prepared(), collects=False)
    settler.take_over()
    version = Key("FunctionVersion", KEY.account, KEY.region, "hello", "1")
    settler.changed(version)
    await settler.idle()
    assert await plane.memory.get(version) is not None
    await settler.stop()
