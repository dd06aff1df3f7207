"""The ring of function logs on a real file: bounded, shared, and never in the way of the invocations."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from pathlib import Path

import pytest

from kappa_core.ports.logs import LogEvent, LogGroup, LogQuery
from kappa_gateway.stores.logs import SqliteLogStore
from kappa_gateway.stores.ring import Bounds
from store_samples import ACCOUNT, REGION

LOUD = LogGroup(ACCOUNT, REGION, "/aws/lambda/loud")
QUIET = LogGroup(ACCOUNT, REGION, "/aws/lambda/quiet")


def lines(first: int, count: int, *, size: int = 1_000) -> list[LogEvent]:
    return [
        LogEvent(timestamp_ms=number, message=f"{number:<{size - 1}}\n", stream="s") for number in range(first, first + count)
    ]


def numbers(events: list[LogEvent]) -> list[int]:
    return [int(event.message) for event in events]


async def fill(store: SqliteLogStore, group: LogGroup, *, count: int) -> None:
    for first in range(0, count, 500):
        store.append(group, lines(first, 500))
        await store.groups(ACCOUNT, REGION)


def file_bytes(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


def test_a_loud_function_loses_its_own_oldest_lines_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        bounds = Bounds(total_bytes=10_000_000, group_bytes=1_000_000)
        store = await SqliteLogStore.open(tmp_path / "logs.db", bounds=bounds)
        store.append(QUIET, lines(0, 1))
        await fill(store, LOUD, count=10_000)
        kept = numbers(await store.read(LogQuery(LOUD)))
        assert kept == list(range(10_000 - len(kept), 10_000))
        assert 800 <= len(kept) <= 1_000
        assert numbers(await store.read(LogQuery(QUIET))) == [0]
        assert store.dropped == 0
        await store.close()
        assert file_bytes(tmp_path / "logs.db") < 3 * bounds.group_bytes

    asyncio.run(scenario())


def test_the_whole_is_bounded_and_the_oldest_go_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        bounds = Bounds(total_bytes=1_500_000, group_bytes=1_400_000)
        store = await SqliteLogStore.open(tmp_path / "logs.db", bounds=bounds)
        await fill(store, QUIET, count=1_000)
        await fill(store, LOUD, count=1_000)
        assert numbers(await store.read(LogQuery(LOUD))) == list(range(1_000))
        kept = numbers(await store.read(LogQuery(QUIET)))
        assert kept == list(range(1_000 - len(kept), 1_000))
        assert 350 <= len(kept) <= 500
        await store.close()

    asyncio.run(scenario())


def test_old_lines_go_by_age(tmp_path: Path) -> None:
    async def scenario() -> None:
        now = 0
        store = await SqliteLogStore.open(tmp_path / "logs.db", bounds=Bounds(age_seconds=10), clock_ms=lambda: now)
        store.append(QUIET, lines(0, 1))
        await store.read(LogQuery(QUIET))
        now = 10_001
        store.append(LOUD, lines(1, 1))
        assert await store.read(LogQuery(QUIET)) == []
        assert numbers(await store.read(LogQuery(LOUD))) == [1]
        await store.close()

    asyncio.run(scenario())


def test_lines_survive_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteLogStore.open(tmp_path / "logs.db")
        store.append(LOUD, lines(0, 10))
        await store.close()
        store = await SqliteLogStore.open(tmp_path / "logs.db")
        first = await store.read(LogQuery(LOUD))
        store.append(LOUD, lines(10, 1))
        assert numbers(await store.read(LogQuery(LOUD, after_event_id=first[-1].event_id))) == [10]
        await store.close()

    asyncio.run(scenario())


def test_what_does_not_fit_into_the_buffer_is_dropped_and_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteLogStore.open(tmp_path / "logs.db", buffer_bytes=100_000)
        for first in range(0, 1_000, 10):
            store.append(LOUD, lines(first, 10))
        kept = numbers(await store.read(LogQuery(LOUD)))
        assert kept == list(range(len(kept)))
        assert len(kept) + store.dropped == 1_000
        assert store.dropped > 0
        store.append(LOUD, lines(5_000, 1))
        assert numbers(await store.read(LogQuery(LOUD, newest=True, limit=1))) == [5_000]
        await store.close()

    asyncio.run(scenario())


def test_a_file_that_cannot_be_written_drops_lines_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        store = await SqliteLogStore.open(tmp_path / "logs.db")
        with contextlib.closing(sqlite3.connect(tmp_path / "logs.db", isolation_level=None)) as vandal:
            vandal.execute("ALTER TABLE batches RENAME TO elsewhere")
            for number in range(3):
                store.append(LOUD, lines(number, 5))
                await store.groups(ACCOUNT, REGION)
            assert store.dropped == 15
            vandal.execute("ALTER TABLE elsewhere RENAME TO batches")
        store.append(LOUD, lines(9, 1))
        assert numbers(await store.read(LogQuery(LOUD))) == [9]
        await store.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(scenario())
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["Function logs are being dropped"]


def test_a_damaged_file_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        (tmp_path / "logs.db").write_bytes(b"not a database" * 100)
        store = await SqliteLogStore.open(tmp_path / "logs.db")
        store.append(LOUD, lines(0, 1))
        assert numbers(await store.read(LogQuery(LOUD))) == [0]
        await store.close()

    asyncio.run(scenario())
    assert (tmp_path / "logs.db.damaged").read_bytes().startswith(b"not a database")
    assert "begin anew" in caplog.text


def test_two_gateways_share_one_ring(tmp_path: Path) -> None:
    async def scenario() -> None:
        ours, theirs = await SqliteLogStore.open(tmp_path / "logs.db"), await SqliteLogStore.open(tmp_path / "logs.db")
        async with asyncio.timeout(30), contextlib.aclosing(ours.follow(LOUD, start_ms=0)) as follower:
            for turn in range(4):
                (ours if turn % 2 else theirs).append(LOUD, lines(turn, 1))
                assert int((await anext(follower)).message) == turn
        assert len({event.event_id for event in await theirs.read(LogQuery(LOUD))}) == 4
        await ours.close()
        await theirs.close()

    asyncio.run(scenario())
