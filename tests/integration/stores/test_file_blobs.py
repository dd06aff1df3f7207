"""Blobs on a real disk: kill -9, a full disk, damaged content, a sweeper in another process, leftovers of a crash."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import blob_process
from kappa_core.ports.blobs import BlobError, BlobStoreUnavailable
from kappa_core.resources import Sha256
from kappa_gateway.stores.files import FileBlobStore


@pytest.mark.parametrize("seed", range(6))
def test_after_kill_9_every_acknowledged_blob_is_whole_and_nothing_else_is_visible(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    command = [sys.executable, blob_process.__file__, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline() for _ in range(dice.randrange(1, 60))]
        child.kill()
        acknowledged += [line for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]

    async def scenario() -> None:
        store = await FileBlobStore.open(tmp_path)
        visible = {info.sha256 async for info in store.all()}
        assert {line.strip() for line in acknowledged} <= visible
        for sha256 in visible:
            await store.read(sha256)
        await store.close()

    asyncio.run(scenario())


def test_leftovers_of_a_crash_go_at_the_next_start_and_those_of_a_living_writer_stay(tmp_path: Path) -> None:
    async def scenario() -> None:
        incoming = tmp_path / "incoming"
        incoming.mkdir()
        for name in ("abandoned", "locked"):
            (incoming / name).write_bytes(b"half")
            os.utime(incoming / name, (0, 0))
        (incoming / "just-begun").write_bytes(b"")
        with (incoming / "locked").open("rb") as writer:
            fcntl.flock(writer, fcntl.LOCK_EX)
            store = await FileBlobStore.open(tmp_path)
            await store.close()
        assert {path.name for path in incoming.iterdir()} == {"locked", "just-begun"}

    asyncio.run(scenario())


def test_a_full_disk_stores_nothing_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario() -> None:
        store = await FileBlobStore.open(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(BlobStoreUnavailable, match="no space left on the device"):
                await store.put(b"content")
        assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"] == []
        assert [info async for info in store.all()] == []
        assert await store.read((await store.put(b"content")).sha256) == b"content"
        await store.close()

    asyncio.run(scenario())


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"")
    with pytest.raises(BlobStoreUnavailable, match="blobs cannot be used"):
        asyncio.run(FileBlobStore.open(tmp_path / "blobs"))


def test_damaged_content_is_refused_and_repaired_by_storing_it_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await FileBlobStore.open(tmp_path)
        info = await store.put(b"content")
        path = await store.local_path(info.sha256)
        path.chmod(0o600)
        path.write_bytes(b"c0ntent")
        with pytest.raises(BlobError, match="is damaged"):
            await store.read(info.sha256)
        with pytest.raises(BlobError, match="is damaged"):
            await store.local_path(info.sha256)
        await store.put(b"content")
        assert await store.read(info.sha256) == b"content"
        await store.close()

    asyncio.run(scenario())


def test_a_sweep_in_one_process_spares_what_another_stores_meanwhile(tmp_path: Path) -> None:
    async def scenario() -> None:
        ours, theirs = await FileBlobStore.open(tmp_path, clock_ms=lambda: 1), await FileBlobStore.open(tmp_path)
        stored: list[Sha256] = []

        async def store_again() -> None:
            for number in range(40):
                await ours.put(b"%d" % (number % 5))
                stored.append((await theirs.put(b"%d" % (number % 5))).sha256)
                assert await theirs.read(stored[-1]) == b"%d" % (number % 5)

        async def sweep() -> None:
            while len(stored) < 40:
                await ours.sweep([], older_than_ms=1_000)

        # ours.put stamps blobs as ancient: only its own refresh makes them sweepable, theirs must survive the read.
        await asyncio.gather(store_again(), sweep())
        await ours.close()
        await theirs.close()

    asyncio.run(scenario())
