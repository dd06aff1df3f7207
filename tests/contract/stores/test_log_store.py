"""What every LogStore promises (kappa_core.ports.logs), on every driver."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from kappa_core.memory import MemoryLogStore
from kappa_core.ports.logs import LogEvent, LogGroup, LogQuery, LogStore
from kappa_gateway.stores.logs import SqliteLogStore
from store_samples import ACCOUNT, REGION

T = TypeVar("T")
Opener = Callable[[], AbstractAsyncContextManager[LogStore]]

GROUP = LogGroup(ACCOUNT, REGION, "/aws/lambda/f")
OTHER = LogGroup(ACCOUNT, REGION, "/aws/lambda/g")


@pytest.fixture(params=["memory", "sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    @contextlib.asynccontextmanager
    async def memory() -> AsyncIterator[LogStore]:
        store = MemoryLogStore(clock_ms=lambda: 5_000)
        yield store
        await store.close()

    @contextlib.asynccontextmanager
    async def sqlite() -> AsyncIterator[LogStore]:
        store = await SqliteLogStore.open(tmp_path / "logs.db", clock_ms=lambda: 5_000)
        yield store
        await store.close()

    return {"memory": memory, "sqlite": sqlite}[request.param]


def run(opened: Opener, scenario: Callable[[LogStore], Awaitable[T]]) -> T:
    async def main() -> T:
        async with asyncio.timeout(30), opened() as store:
            return await scenario(store)

    return asyncio.run(main())


def event(message: str, *, at: int = 0, stream: str = "s", request_id: str = "") -> LogEvent:
    return LogEvent(timestamp_ms=at, message=message, stream=stream, request_id=request_id)


def messages(events: list[LogEvent]) -> list[str]:
    return [found.message for found in events]


def test_what_was_appended_is_read_at_once_in_order_of_arrival(opened: Opener) -> None:
    async def scenario(store: LogStore) -> None:
        store.append(GROUP, [event("one\n", at=3, stream="s1", request_id="r1"), event("two\n", at=1)])
        store.append(GROUP, [event("three\n", at=2)])
        found = await store.read(LogQuery(GROUP))
        assert messages(found) == ["one\n", "two\n", "three\n"]
        assert (found[0].timestamp_ms, found[0].stream, found[0].request_id) == (3, "s1", "r1")
        assert {each.ingestion_ms for each in found} == {5_000}

    run(opened, scenario)


def test_event_ids_are_unique_stable_and_ascend(opened: Opener) -> None:
    async def scenario(store: LogStore) -> None:
        for number in range(5):
            store.append(GROUP, [event(f"{number}.{index}") for index in range(30)])
            await store.read(LogQuery(OTHER))
        ids = [found.event_id for found in await store.read(LogQuery(GROUP))]
        assert len(set(ids)) == 150
        assert ids == sorted(ids)
        assert ids == [found.event_id for found in await store.read(LogQuery(GROUP))]

    run(opened, scenario)


def test_groups_are_apart_and_listed_by_prefix(opened: Opener) -> None:
    async def scenario(store: LogStore) -> None:
        store.append(OTHER, [event("g")])
        store.append(GROUP, [event("f")])
        store.append(LogGroup(ACCOUNT, REGION, "/custom_%"), [event("c")])
        assert messages(await store.read(LogQuery(GROUP))) == ["f"]
        assert await store.groups(ACCOUNT, REGION, prefix="/aws/") == [GROUP, OTHER]
        assert [group.name for group in await store.groups(ACCOUNT, REGION, prefix="/custom_%")] == ["/custom_%"]
        assert await store.groups(ACCOUNT, REGION, prefix="/aws_") == []
        assert len(await store.groups(ACCOUNT, REGION)) == 3
        assert await store.read(LogQuery(LogGroup(ACCOUNT, REGION, "nothing"))) == []

    run(opened, scenario)


def test_a_read_can_be_narrowed(opened: Opener) -> None:
    async def scenario(store: LogStore) -> None:
        events = [
            event("a", at=10, stream="2026/01/01/[1]aa", request_id="r1"),
            event("b", at=20, stream="2026/01/01/[1]bb", request_id="r1"),
            event("c", at=30, stream="2026/01/02/[1]aa", request_id="r2"),
        ]
        for each in events:
            store.append(GROUP, [each])
        assert messages(await store.read(LogQuery(GROUP, stream="2026/01/01/[1]aa"))) == ["a"]
        assert messages(await store.read(LogQuery(GROUP, stream_prefix="2026/01/01/"))) == ["a", "b"]
        assert messages(await store.read(LogQuery(GROUP, request_id="r1"))) == ["a", "b"]
        assert messages(await store.read(LogQuery(GROUP, start_ms=20))) == ["b", "c"]
        assert messages(await store.read(LogQuery(GROUP, end_ms=20))) == ["a"]
        assert messages(await store.read(LogQuery(GROUP, start_ms=20, end_ms=30))) == ["b"]
        assert messages(await store.read(LogQuery(GROUP, limit=2))) == ["a", "b"]
        assert messages(await store.read(LogQuery(GROUP, limit=2, newest=True))) == ["b", "c"]
        assert messages(await store.read(LogQuery(GROUP, request_id="r1", limit=1, newest=True))) == ["b"]
        assert await store.read(LogQuery(GROUP, limit=0)) == []

    run(opened, scenario)


def test_pages_by_event_id_join_to_the_whole(opened: Opener) -> None:
    async def scenario(store: LogStore) -> None:
        for number in range(10):
            store.append(GROUP, [event(f"{number}-{index}") for index in range(7)])
            await store.read(LogQuery(GROUP, limit=1))
        found: list[str] = []
        after = None
        while page := await store.read(LogQuery(GROUP, after_event_id=after, limit=9)):
            found += messages(page)
            after = page[-1].event_id
        assert found == [f"{number}-{index}" for number in range(10) for index in range(7)]

    run(opened, scenario)


def test_a_follower_is_told_the_stored_events_and_then_what_arrives(opened: Opener) -> None:
    async def scenario(store: LogStore) -> None:
        store.append(GROUP, [event("old", at=1), event("recent", at=10)])
        async with contextlib.aclosing(store.follow(GROUP, start_ms=5)) as follower:
            assert (await anext(follower)).message == "recent"
            store.append(OTHER, [event("other", at=11)])
            store.append(GROUP, [event("new", at=11), event("newer", at=12)])
            assert [(await anext(follower)).message for _ in range(2)] == ["new", "newer"]

    run(opened, scenario)


def test_a_follower_without_a_start_is_told_only_what_arrives(opened: Opener) -> None:
    async def scenario(store: LogStore) -> None:
        store.append(GROUP, [event("before")])
        async with contextlib.aclosing(store.follow(GROUP)) as follower:
            store.append(GROUP, [event("after")])
            assert (await anext(follower)).message == "after"
            store.append(GROUP, [event("later")])
            assert (await anext(follower)).message == "later"

    run(opened, scenario)


def test_a_waiting_follower_ends_when_the_store_is_closed(opened: Opener) -> None:
    async def scenario(store: LogStore) -> None:
        follower = store.follow(GROUP, start_ms=0)
        store.append(GROUP, [event("last")])

        async def listen() -> list[str]:
            return [found.message async for found in follower]

        listener = asyncio.create_task(listen())
        await store.read(LogQuery(GROUP))
        await asyncio.sleep(0)
        await store.close()
        assert set(await listener) <= {"last"}
        await store.close()
        store.append(GROUP, [event("ignored")])

    run(opened, scenario)


def test_a_deleted_group_is_gone_and_can_begin_anew(opened: Opener) -> None:
    async def scenario(store: LogStore) -> None:
        store.append(GROUP, [event("old")])
        store.append(OTHER, [event("kept")])
        await store.delete_group(GROUP)
        await store.delete_group(GROUP)
        assert await store.read(LogQuery(GROUP)) == []
        assert await store.groups(ACCOUNT, REGION) == [OTHER]
        store.append(GROUP, [event("new")])
        assert messages(await store.read(LogQuery(GROUP))) == ["new"]
        assert messages(await store.read(LogQuery(OTHER))) == ["kept"]

    run(opened, scenario)


def test_any_text_comes_back(opened: Opener) -> None:
    texts = ["", "\0\n", "ünï\U0001f600\n", "x" * 300_000 + "\n", '{"json": true}\n']

    async def scenario(store: LogStore) -> None:
        store.append(GROUP, [event(text) for text in texts])
        store.append(GROUP, [])
        assert messages(await store.read(LogQuery(GROUP))) == texts

    run(opened, scenario)
