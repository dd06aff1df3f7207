"""Small code goes to a pod with its function: read while the pod comes up, never waited for, never kept."""

from __future__ import annotations

import msgspec
import pytest

from kappa_core.link.frames import CODE_ALONG
from kappa_core.memory.blobs import MemoryBlobStore
from kappa_core.spec import Archive
from kappa_gateway.code.downloads import code_along
from provider_scene import REVISION, scene, spec_of
from virtual_time import virtual


@virtual
async def test_code_is_read_while_pods_come_up_goes_along_and_is_not_kept() -> None:
    async with scene() as it:
        await it.provider.start(spec_of(), ["e0"])
        first, second, _ = await it.come_up("e1", "e2")
        assert [it.links.code[supervisor] for supervisor in (first, second)] == [b"the zip"] * 2
        assert it.brought == [REVISION]
        await it.environment_ends(first, "e0")
        await it.start("e3")
        assert it.links.code[first] == b""  # the pod is there and waits for nothing: it fetches what it does not have


@virtual
async def test_a_pod_that_greets_before_its_code_was_read_does_not_wait_for_it() -> None:
    async with scene() as it:
        it.bring_seconds = 5.0
        (supervisor,) = await it.come_up("e1")
        assert it.running() == {supervisor: ["e1"]}
        assert it.links.code[supervisor] == b""
        await it.quiet(6.0)
        await it.environment_ends(supervisor, "e1")
        await it.start("e2")
        assert it.running() == {supervisor: ["e2"]}
        assert it.links.code[supervisor] == b""  # what came too late is not kept either


@virtual
async def test_only_an_archive_that_fits_a_frame_and_can_be_read_goes_along(caplog: pytest.LogCaptureFixture) -> None:
    blobs = MemoryBlobStore(clock_ms=lambda: 0)
    small, large = await blobs.put(b"z" * CODE_ALONG), await blobs.put(b"z" * (CODE_ALONG + 1))

    async def along(sha256: str, size: int) -> bytes:
        return await code_along(blobs, msgspec.structs.replace(spec_of(), code=Archive(url="", sha256=sha256, size=size)))

    assert await along(small.sha256, small.size) == b"z" * CODE_ALONG
    assert await along(large.sha256, large.size) == b""
    assert await code_along(blobs, spec_of()) == b""
    assert caplog.text == ""
    assert await along("0" * 64, 10) == b""
    assert "cannot be sent along" in caplog.text
