"""Trees of code on a real disk: read-only, whole or absent, unpacked once whoever asks, merged in the order of the layers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

import tree_process
from kappa_core.archives import unpack as unpack_module
from kappa_core.errors import InvalidParameterValueException
from kappa_core.memory import MemoryBlobStore
from kappa_core.ports.blobs import BlobNotFound, BlobStore
from kappa_core.resources import Sha256
from kappa_gateway.code import trees as trees_module
from kappa_gateway.code.trees import CodeTrees, TreesUnavailable
from kappa_gateway.stores.files import FileBlobStore
from zip_samples import WINDOWS, archive, entry, files, link


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def opened(root: Path, *, clock: Callable[[], float] = time.time) -> AsyncIterator[tuple[CodeTrees, BlobStore]]:
    blobs = MemoryBlobStore(clock_ms=lambda: 0)
    trees = await CodeTrees.open(root, blobs, clock=clock)
    yield trees, blobs
    await trees.close()
    await blobs.close()


def run(root: Path, scenario: Callable[[CodeTrees, BlobStore], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), opened(root) as (trees, blobs):
            await scenario(trees, blobs)

    asyncio.run(main())


async def stored(blobs: BlobStore, *archives: bytes) -> list[Sha256]:
    return [(await blobs.put(each)).sha256 for each in archives]


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def leftovers(root: Path) -> list[Path]:
    return list(root.glob("*/.incoming-*"))


def test_an_archive_becomes_a_read_only_tree(tmp_path: Path) -> None:
    async def scenario(trees: CodeTrees, blobs: BlobStore) -> None:
        long_name = "/".join(["a-rather-long-name-of-a-folder"] * 5) + "/module.py"
        (sha256,) = await stored(
            blobs,
            archive(
                ("app.py", b"code"),
                (entry("bin/tool", mode=0o104755), b"#!/bin/sh"),
                (entry("private.txt", mode=0o100600), b""),
                (link("bin/link"), b"../app.py"),
                (entry("empty/", mode=0o40777), b""),
                (long_name, b"deep"),
            ),
        )
        root = await trees.task_root(sha256)
        assert contents(root) == {
            "app.py": "code",
            "bin/tool": "#!/bin/sh",
            "private.txt": "",
            "bin/link": "-> ../app.py",
            long_name: "deep",
        }
        modes = {name: f"{(root / name).stat().st_mode & 0o7777:o}" for name in (".", "bin", "empty", "app.py", "bin/tool")}
        assert modes == {".": "555", "bin": "555", "empty": "555", "app.py": "444", "bin/tool": "555"}
        assert (root / "private.txt").stat().st_mode & 0o777 == 0o444
        assert (root / "app.py").stat().st_mtime == 1_706_933_106
        assert (await trees.task_root(sha256)) == root

    run(tmp_path, scenario)


def test_an_archive_without_modes_runs(tmp_path: Path) -> None:
    async def scenario(trees: CodeTrees, blobs: BlobStore) -> None:
        no_modes = [(entry(name, mode=None, system=WINDOWS), b"#!/bin/sh\nexit 7\n") for name in ("bootstrap", "lib\\helper.sh")]
        root = await trees.task_root((await stored(blobs, archive(*no_modes)))[0])
        process = await asyncio.create_subprocess_exec(root / "bootstrap")
        assert await process.wait() == 7
        assert (root / "lib" / "helper.sh").stat().st_mode & 0o777 == 0o444

    run(tmp_path, scenario)


def test_layers_are_merged_in_order(tmp_path: Path) -> None:
    async def scenario(trees: CodeTrees, blobs: BlobStore) -> None:
        layers = await stored(
            blobs,
            files({"python/a.py": "1", "python/b.py": "1", "only/first.txt": "1"}),
            archive(("python/b.py", b"2"), ("python/c.py", b"2"), (link("python/a.py"), b"c.py")),
            files({"python/a.py": "3"}),
        )
        merged = await trees.opt_root(layers)
        assert merged is not None
        assert contents(merged) == {"python/a.py": "3", "python/b.py": "2", "python/c.py": "2", "only/first.txt": "1"}
        reversed_ = await trees.opt_root(layers[::-1])
        assert reversed_ is not None
        assert contents(reversed_)["python/a.py"] == "1"
        two = await trees.opt_root(layers[:2])
        assert two is not None
        assert contents(two)["python/a.py"] == "-> c.py"
        assert await trees.opt_root([]) is None

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "layers",
    [
        [files({"lib": "a file"}), files({"lib/b.py": "below"})],
        [files({"lib/b.py": "below"}), files({"lib": "a file"})],
        [archive((link("lib"), b"elsewhere")), files({"lib/b.py": "below"})],
    ],
)
def test_layers_that_contradict_each_other_are_refused_by_name(tmp_path: Path, layers: list[bytes]) -> None:
    async def scenario(trees: CodeTrees, blobs: BlobStore) -> None:
        with pytest.raises(InvalidParameterValueException, match="lib is a file in one layer and a folder in another"):
            await trees.opt_root(await stored(blobs, *layers))
        assert leftovers(tmp_path) == []

    run(tmp_path, scenario)


def test_links_of_two_layers_that_lead_out_together_are_refused(tmp_path: Path) -> None:
    async def scenario(trees: CodeTrees, blobs: BlobStore) -> None:
        layers = await stored(
            blobs,
            archive((link("l"), b"p/q/../.."), ("p/q/x", b"")),
            archive((link("other"), b"."), ("a", b"")),
        )
        assert await trees.opt_root(layers) is not None
        climbing = await stored(blobs, archive((link("l"), b"p/../x"), ("a", b"")), archive((link("p"), b"/tmp"), ("a", b"")))
        with pytest.raises(InvalidParameterValueException, match="Could not unzip"):
            await trees.opt_root(climbing)

    run(tmp_path, scenario)


def test_nothing_is_written_outside_the_tree(tmp_path: Path) -> None:
    async def scenario(trees: CodeTrees, blobs: BlobStore) -> None:
        for hostile in (
            archive((entry("../outside"), b"evil")),
            archive((entry(str(tmp_path / "outside")), b"evil")),
            archive((link("l"), b"../.."), (entry("l/outside"), b"evil")),
            archive((link("l"), str(tmp_path).encode()), (entry("l/outside"), b"evil")),
        ):
            with pytest.raises(InvalidParameterValueException, match="Could not unzip"):
                await trees.task_root((await stored(blobs, hostile))[0])
        assert list(tmp_path.rglob("outside")) == []
        assert leftovers(tmp_path / "trees") == []

    run(tmp_path / "trees", scenario)


def test_many_callers_share_one_unpacking_and_survive_each_others_cancellation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[Path] = []

    def counted(archives: Sequence[Path], target: Path, /) -> None:
        unpacked.append(target)
        unpack_module.unpack(archives, target)

    monkeypatch.setattr(trees_module, "unpack", counted)

    async def scenario(trees: CodeTrees, blobs: BlobStore) -> None:
        (sha256,) = await stored(blobs, files({"app.py": "code"}))
        callers = [asyncio.create_task(trees.task_root(sha256)) for _ in range(10)]
        await asyncio.sleep(0)
        callers[0].cancel()
        found = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert len(set(map(str, found[1:]))) == 1
        assert await trees.task_root(sha256) == found[1]
        assert len(unpacked) == 1

    run(tmp_path, scenario)


def test_an_unknown_blob_is_not_found_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(trees: CodeTrees, blobs: BlobStore) -> None:
        with pytest.raises(BlobNotFound):
            await trees.task_root(Sha256("0" * 64))
        assert list((tmp_path / "task").iterdir()) == []

    run(tmp_path, scenario)


def test_a_full_disk_leaves_nothing_and_a_later_try_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int, mode: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(trees: CodeTrees, blobs: BlobStore) -> None:
        (sha256,) = await stored(blobs, files({"lib/app.py": "code"}))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fchmod", full)
            with pytest.raises(TreesUnavailable, match="No space left on device"):
                await trees.task_root(sha256)
        assert list((tmp_path / "task").iterdir()) == []
        assert contents(await trees.task_root(sha256)) == {"lib/app.py": "code"}

    run(tmp_path, scenario)


def test_a_sweep_takes_what_nobody_needs_or_asked_for_of_late(tmp_path: Path) -> None:
    clock = Clock()

    async def scenario() -> None:
        async with opened(tmp_path, clock=clock) as (trees, blobs):
            kept, old, asked = await stored(blobs, *(files({"app.py": name}) for name in ("kept", "old", "asked")))
            roots = {sha256: await trees.task_root(sha256) for sha256 in (kept, old, asked)}
            opts = [await trees.opt_root(layers) for layers in ([kept, old], [old])]
            clock.now += 2 * 3600
            await trees.task_root(asked)
            gone = await trees.sweep([kept, (kept, old)])
            assert set(gone) == {roots[old], opts[1]}
            assert not roots[old].exists()
            assert roots[kept].exists()
            assert roots[asked].exists()
            assert opts[0] is not None
            assert opts[0].exists()
            assert leftovers(tmp_path) == []
            assert contents(await trees.task_root(old)) == {"app.py": "old"}

    asyncio.run(scenario())


def test_after_a_reboot_trees_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def life(boot: str, content: str) -> str:
        monkeypatch.setattr(trees_module, "_boot_id", lambda: boot)
        async with opened(tmp_path) as (trees, blobs):
            root = await trees.task_root((await stored(blobs, files({"app.py": "code"})))[0])
            found = (root / "app.py").read_text()
            (root / "app.py").chmod(0o600)
            (root / "app.py").write_text(content)
            return found

    assert asyncio.run(life("first", "lost by the reboot")) == "code"
    assert asyncio.run(life("first", "lost by the reboot")) == "lost by the reboot"
    assert asyncio.run(life("second", "")) == "code"


def command(tmp_path: Path, sha256: Sha256) -> list[str]:
    return [sys.executable, tree_process.__file__, str(tmp_path / "blobs"), str(tmp_path / "trees"), sha256]


async def prepared(tmp_path: Path, data: bytes) -> Sha256:
    blobs = await FileBlobStore.open(tmp_path / "blobs")
    sha256 = (await blobs.put(data)).sha256
    await blobs.close()
    return sha256


def test_processes_that_ask_at_once_get_one_whole_tree(tmp_path: Path) -> None:
    sha256 = asyncio.run(prepared(tmp_path, files({f"lib/{number}.py": str(number) for number in range(500)})))
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(subprocess.Popen(command(tmp_path, sha256), stdout=subprocess.PIPE, text=True)) for _ in range(3)
        ]
        said = [child.communicate(timeout=60)[0].splitlines()[-1] for child in children]
    assert len(set(said)) == 1
    assert contents(Path(said[0])) == {f"lib/{number}.py": str(number) for number in range(500)}
    assert leftovers(tmp_path / "trees") == []


@pytest.mark.parametrize("pause", [0.0, 0.01, 0.03, 0.06, 0.1])
def test_a_process_killed_while_it_unpacks_leaves_no_half_tree(tmp_path: Path, pause: float) -> None:
    expected = {f"lib/{number}.py": str(number) for number in range(1_000)}
    sha256 = asyncio.run(prepared(tmp_path, files(expected)))
    with subprocess.Popen(command(tmp_path, sha256), stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begin\n"
        time.sleep(pause)  # so that the kill falls on different moments
        child.kill()
    visible = [path for path in (tmp_path / "trees" / "task").iterdir() if not path.name.startswith(".")]
    assert all(contents(path) == expected for path in visible)
    for leftover in leftovers(tmp_path / "trees"):
        os.utime(leftover, (0, 0))

    async def next_start() -> None:
        blobs = await FileBlobStore.open(tmp_path / "blobs")
        trees = await CodeTrees.open(tmp_path / "trees", blobs)
        assert leftovers(tmp_path / "trees") == []
        assert contents(await trees.task_root(sha256)) == expected
        await trees.close()
        await blobs.close()

    asyncio.run(next_start())
