"""The SQLite EventQueue and the end of its process: kill -9 takes nothing that was acknowledged, and leases go to whoever comes next."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import queue_process
from kappa_core.ports.queue import Dead, Waiting
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores import database
from kappa_gateway.stores.queue import SqliteEventQueue
from queue_samples import event


@pytest.mark.parametrize("seed", range(4))
def test_after_kill_9_every_event_is_where_it_was_acknowledged_to_be(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    said: list[tuple[str, str]] = []
    for life in range(2):
        command = [sys.executable, queue_process.__file__, str(tmp_path / "events.db"), f"life{life}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(dice.randrange(20, 400))]
            child.kill()
            lines += [line for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        said += [(what, name) for what, name in (line.split() for line in lines)]
    accepted = {name for what, name in said if what == "in"}
    done = [name for what, name in said if what == "done"]
    dead = {name for what, name in said if what == "dead"}
    assert "lost" not in {what for what, _ in said}
    assert len(done) == len(set(done))
    assert len(accepted) > 10
    asyncio.run(check(tmp_path / "events.db", accepted, set(done), dead))
    with contextlib.closing(sqlite3.connect(tmp_path / "events.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def check(path: Path, accepted: set[str], done: set[str], dead: set[str]) -> None:
    queue = await SqliteEventQueue.open(path, alone=True)
    gone = 0
    for name in accepted:
        found = await queue.find(name)
        if name in done:
            assert found is None
        elif name in dead:
            assert isinstance(found, Dead)
        elif found is None:
            gone += 1  # its acknowledgement was under way: one for each of the two consumers of a life
        else:
            assert found.event.payload.startswith(name.encode())
    assert gone <= 4
    stats = await queue.stats()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        waiting, size = connection.execute("SELECT count(*), sum(size) FROM events WHERE killed_ms IS NULL").fetchone()
        (total,) = connection.execute("SELECT bytes FROM queue").fetchone()
    assert (sum(one.depth for one in stats), sum(one.depth_bytes for one in stats)) == (waiting, size)
    assert total == size
    await queue.close()


def test_the_leases_of_a_process_that_worked_alone_end_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = await SqliteEventQueue.open(tmp_path / "events.db", alone=True)
        await first.enqueue(event("leased"))
        await first.enqueue(event("delayed"), delay_ms=3_600_000)
        await first.lease(1, lease_ms=3_600_000, share=1, rooms={})
        await first.close()
        second = await SqliteEventQueue.open(tmp_path / "events.db", alone=True)
        leased = (await second.lease(5, lease_ms=1, share=5, rooms={})).leases
        assert [(one.event.event_id, one.leases) for one in leased] == [("leased", 2)]
        await second.close()

    asyncio.run(scenario())


def test_processes_that_share_the_file_respect_each_others_leases(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = await SqliteEventQueue.open(tmp_path / "events.db", alone=False)
        await first.enqueue(event("e"))
        mine = (await first.lease(1, lease_ms=3_600_000, share=1, rooms={})).leases
        second = await SqliteEventQueue.open(tmp_path / "events.db", alone=False)
        assert (await second.lease(5, lease_ms=1, share=5, rooms={})).leases == []
        await second.enqueue(event("another"))
        assert isinstance(await first.find("another"), Waiting)
        await first.ack(mine[0])
        assert await second.find("e") is None
        await first.close()
        await second.close()

    asyncio.run(scenario())


def test_an_enqueue_that_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)

    async def scenario() -> None:
        queue = await SqliteEventQueue.open(tmp_path / "events.db", alone=True)
        with contextlib.closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="locked"):
                await queue.enqueue(event("refused"))
            other.execute("ROLLBACK")
        assert await queue.find("refused") is None
        await queue.enqueue(event("refused"))
        await queue.close()

    asyncio.run(scenario())
