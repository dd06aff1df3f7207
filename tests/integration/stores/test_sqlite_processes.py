"""One SQLite file, several processes: what one acknowledges the others see, and a kill -9 takes nothing with it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import sqlite_process
from kappa_core.ports.store import Conflict, ResourceStore
from kappa_core.resources import Function, Key
from kappa_gateway.stores.sqlite import SqliteResourceStore
from store_samples import ACCOUNT, REGION, function


@contextlib.contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, sqlite_process.__file__, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def test_processes_that_open_a_new_file_at_once_agree_on_who_was_first(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(process("race", tmp_path / "state.db", "f")) for _ in range(4)]
        said = sorted(child.communicate(timeout=60)[0].strip() for child in children)
    assert said == ["created", "exists", "exists", "exists"]


def test_numbers_of_a_counter_are_unique_among_processes(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(process("count", tmp_path / "state.db", 100)) for _ in range(3)]
        numbers = [int(line) for child in children for line in child.communicate(timeout=60)[0].split()]
    assert sorted(numbers) == list(range(1, 301))


def test_two_stores_on_one_file_see_each_others_writes_and_refuse_each_others_lost_updates(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = await SqliteResourceStore.open(tmp_path / "state.db")
        second = await SqliteResourceStore.open(tmp_path / "state.db")
        created = await first.create(function())
        assert await second.get(created.key) == created
        await second.update(created)
        with pytest.raises(Conflict):
            await first.update(created)
        await first.close()
        await second.close()

    asyncio.run(scenario())


def test_a_watch_tells_the_changes_of_another_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteResourceStore.open(tmp_path / "state.db")
        with process("write", tmp_path / "state.db", "theirs"):
            async with asyncio.timeout(60), contextlib.aclosing(store.watch()) as watch:
                versions: dict[Key, int] = {}
                deletions = 0
                async for change in watch:
                    version = int(change.resource.meta.resource_version)
                    if change.type == "PUT":
                        assert version > versions.get(change.key, 0)
                    else:
                        assert version == versions[change.key]
                        deletions += 1
                    versions[change.key] = version
                    if deletions == 8:
                        break
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(6))
def test_after_kill_9_every_acknowledged_write_is_there_and_whole(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    acknowledged: list[list[str]] = []
    for life in range(2):
        with process("write", tmp_path / "state.db", f"life{life}") as child:
            assert child.stdout is not None
            acknowledged += [child.stdout.readline().split() for _ in range(dice.randrange(1, 120))]
            child.kill()
            acknowledged += [line.split() for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    asyncio.run(check(tmp_path / "state.db", acknowledged))
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def check(path: Path, acknowledged: list[list[str]]) -> None:
    store: ResourceStore = await SqliteResourceStore.open(path)
    last = {name: (action, version) for action, name, version in acknowledged if action != "allocated"}
    for name, (action, version) in last.items():
        found = await store.get(Key("Function", ACCOUNT, REGION, name))
        if action == "deleted":
            assert found is None
        elif found is None:
            # Only a deletion under way when the process died may have taken it.
            assert action == "updated"
            assert int(name.rpartition("-")[2]) % 3 == 0
        else:
            assert int(found.meta.resource_version) >= int(version)
            assert isinstance(found, Function)
            assert msgspec.structs.replace(found, meta=function().meta, tags={}) == function(name)
    highest = max((int(number) for action, number, _ in acknowledged if action == "allocated"), default=0)
    assert await store.allocate("kill") > highest
    await store.close()
