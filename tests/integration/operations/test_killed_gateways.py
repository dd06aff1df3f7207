"""Two gateways on one data directory, killed at any moment: nothing half done is left, nothing acknowledged is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import control_plane_process
from control_plane import check_whole
from control_plane_process import opened
from kappa_core.resources import Function, FunctionVersion


@contextlib.contextmanager
def gateway(folder: Path, seed: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, control_plane_process.__file__, str(folder), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def acknowledged(folder: Path, *, seed: int, count: int) -> list[dict[str, Any]]:
    """What two gateways acknowledged until the first of them had answered ``count`` requests and both were killed."""
    with gateway(folder, seed) as first, gateway(folder, seed + 1) as second:
        assert first.stdout is not None
        assert second.stdout is not None
        lines = [first.stdout.readline() for _ in range(count)]
        first.kill()
        second.kill()
        lines += [*first.stdout.read().splitlines(), *second.stdout.read().splitlines()]
    answers = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):  # the last line may have been cut by the kill
            answers.append(json.loads(line))
    return answers


@pytest.mark.parametrize(("seed", "count"), [(1, 1), (2, 7), (3, 23), (4, 60)])
def test_a_restart_after_kill_leaves_a_valid_whole(tmp_path: Path, seed: int, count: int) -> None:
    answers = acknowledged(tmp_path, seed=seed * 10, count=count)
    assert len(answers) >= count

    async def scenario() -> None:
        async with opened(tmp_path) as (plane, _):
            async with asyncio.timeout(30):
                while not await _settled(plane.store):
                    await asyncio.sleep(0.02)
            await check_whole(plane.store)
            published = [one["answer"] for one in answers if one["operation"] in {"PublishVersion", "UpdateFunctionCode"}]
            numbers = {
                (one["FunctionName"], one["Version"]): one["CodeSha256"] for one in published if one["Version"] != "$LATEST"
            }
            for version in await plane.store.list("FunctionVersion"):
                assert isinstance(version, FunctionVersion)
                shown = await plane.configuration(version.name, Qualifier=str(version.version))
                assert numbers.get((version.name, str(version.version)), shown["CodeSha256"]) == shown["CodeSha256"]
                assert control_plane_process.unpacked(tmp_path, version.configuration.code.sha256)

    asyncio.run(scenario())


async def _settled(store: Any) -> bool:
    try:
        await check_whole(store)
    except (AssertionError, KeyError):
        return False
    return True


def test_an_acknowledged_creation_survives_the_kill_that_follows_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CREATE_AND_DIE, str(tmp_path)]
    died = subprocess.run(
        command, check=False, capture_output=True, text=True, env={"PYTHONPATH": str(Path(__file__).parents[2] / "support")}
    )
    assert died.returncode == -9, died.stderr

    async def scenario() -> None:
        async with opened(tmp_path) as (plane, _):
            functions = await plane.store.list("Function")
            assert [one.name for one in functions if isinstance(one, Function)] == ["hello"]
            assert await plane.settler.await_settled(functions[0].key, 10)
            assert (await plane.configuration())["State"] == "Active"
            assert (await plane.configuration(Qualifier="1"))["Version"] == "1"

    asyncio.run(scenario())


_CREATE_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from control_plane_process import archive, opened
async def main():
    async with opened(Path(sys.argv[1])) as (plane, _):
        await plane.create(settle=False, Publish=True, Code={"ZipFile": archive("x = 1")})
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
