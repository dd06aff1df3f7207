"""The sweeper: unused code goes after a day, everything that is used stays."""

from __future__ import annotations

from control_plane import ControlPlane, asynchronous, digest
from kappa_gateway.operations.sweep import SPARED_MS, Sweeper


def sweeper(plane: ControlPlane) -> Sweeper:
    return Sweeper(store=plane.store, blobs=plane.blobs, trees=plane.trees, clock=plane.clock)


async def blobs(plane: ControlPlane) -> set[str]:
    return {blob.sha256 async for blob in plane.blobs.all()}


@asynchronous
async def test_code_that_nothing_refers_to_goes_after_a_day_and_not_before() -> None:
    plane = ControlPlane()
    await plane.create(Publish=True)
    await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 2")
    await plane.settler.idle()
    await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 3")
    await plane.settler.idle()
    plane.clock.now_ms += SPARED_MS
    assert (await sweeper(plane).sweep()).blobs == 0
    plane.clock.now_ms += 1
    assert (await sweeper(plane).sweep()).blobs == 1
    assert await blobs(plane) == {digest(b"code 1"), digest(b"code 3")}
    assert plane.trees.kept == {digest(b"code 1"), digest(b"code 3")}


@asynchronous
async def test_code_that_still_serves_stays_while_its_update_has_failed() -> None:
    plane = ControlPlane()
    await plane.create()
    plane.trees.error = OSError("disk")
    await plane("UpdateFunctionCode", FunctionName="hello", ZipFile=b"code 2")
    await plane.settler.idle()
    plane.clock.now_ms += SPARED_MS + 1
    assert (await sweeper(plane).sweep()).blobs == 0
    assert await blobs(plane) == {digest(b"code 1"), digest(b"code 2")}


@asynchronous
async def test_code_that_was_uploaded_again_is_spared_again() -> None:
    plane = ControlPlane()
    await plane.create()
    await plane("DeleteFunction", FunctionName="hello")
    plane.clock.now_ms += SPARED_MS + 1
    await plane.intake.from_zip(b"code 1")  # by a creation that has not written its function yet
    assert (await sweeper(plane).sweep()).blobs == 0


@asynchronous
async def test_a_deleted_layer_version_goes_when_no_function_and_no_version_uses_it() -> None:
    plane = ControlPlane()
    arn = await plane.layer()
    await plane.create(Layers=[arn], Publish=True)
    await plane("UpdateFunctionConfiguration", FunctionName="hello", Layers=[])
    await plane.settler.idle()
    await plane("DeleteLayerVersion", LayerName="tools", VersionNumber=1)
    plane.clock.now_ms += SPARED_MS + 1
    assert (await sweeper(plane).sweep()).layers == 0
    assert (digest(b"layer"),) in plane.trees.kept
    await plane("DeleteFunction", FunctionName="hello")
    await plane.settler.idle()
    assert (await sweeper(plane).sweep()).layers == 1
    assert await plane.memory.list("LayerVersion") == []
    assert await blobs(plane) == set()
