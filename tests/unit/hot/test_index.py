"""The index: routes follow every change, what is missing is read through, and the links hear what may no longer run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

import made
from kappa_core.errors import ResourceConflictException, ResourceNotFoundException
from kappa_core.memory.store import MemoryResourceStore
from kappa_core.ports.store import Change
from kappa_core.resources import Alias, Function, FunctionStatus, FunctionVersion, Key
from kappa_core.rules import states
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.index import FunctionIndex
from kappa_gateway.hot.path import Caller
from kappa_gateway.hot.version import Version

CALLER = Caller(made.ACCOUNT, made.REGION)


class Heard:
    """An Observer that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def superseded(self, function_key: str, old_revision: str, version: Version | None, /) -> None:
        self.said.append(("superseded", old_revision, version and version.revision))

    def reserved_changed(self, function_key: str, reserved: int | None, /) -> None:
        self.said.append(("reserved", reserved))

    def removed(self, function_key: str, /) -> None:
        self.said.append(("removed", function_key))

    def appeared(self, version: Version, /) -> None:
        self.said.append(("appeared", version.revision))

    def provisionable(self, resource: Alias | FunctionVersion, gone: bool, /) -> None:
        """What is provisioned is the business of its own tests."""


async def no_spec(version: Version) -> VersionSpec:
    raise AssertionError("no invocation here")


def index(
    store: MemoryResourceStore,
    heard: Heard | None = None,
    *,
    draw: Callable[[], float] = lambda: 0.5,
    settled: Callable[[Key, float], Awaitable[object]] | None = None,
) -> FunctionIndex:
    return FunctionIndex(
        store=store,
        make_spec=no_spec,
        recorder=lambda *_: lambda code, seconds, /, *, cold=False: None,
        settled=settled,
        draw=draw,
        observer=heard or Heard(),
    )


def fresh(function: Function | None = None) -> Function:
    """As handed to a store: without metadata."""
    return replace(function or made.function(), meta=made.Meta())


def test_a_function_that_the_watch_has_not_brought_yet_is_read_through() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 1)
        await store.create(fresh())
        route = await index(store).find(CALLER, "hello", None)
        assert route.choose().label == b"$LATEST"
        assert route.function_arn == f"arn:aws:lambda:{made.REGION}:{made.ACCOUNT}:function:hello"

    asyncio.run(scenario())


def test_an_unknown_function_and_an_unknown_qualifier_are_not_found_in_awss_words() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 1)
        searched = index(store)
        with pytest.raises(ResourceNotFoundException, match=r"function:hello:\$LATEST$"):
            await searched.find(CALLER, "hello", None)
        await store.create(fresh())
        with pytest.raises(ResourceNotFoundException, match=r"function:hello:live$"):
            await searched.find(CALLER, "hello", "live")

    asyncio.run(scenario())


def test_a_route_is_kept_until_something_of_its_function_changes() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 1)
        function = await store.create(fresh())
        searched = index(store)
        route = await searched.find(CALLER, "hello", None)
        assert searched.cached(CALLER, "hello", None) is route
        changed = await store.update(replace(function, reserved_concurrency=3))
        searched.apply(Change("PUT", changed.key, changed))
        assert searched.cached(CALLER, "hello", None) is None
        assert (await searched.find(CALLER, "hello", None)).reserved == 3

    asyncio.run(scenario())


def test_an_older_state_from_a_slow_watch_does_not_undo_a_newer_one() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 1)
        old = await store.create(fresh())
        await store.update(replace(old, reserved_concurrency=3))
        searched = index(store)
        await searched.find(CALLER, "hello", None)
        searched.apply(Change("PUT", old.key, old))
        found = searched.get(old.key)
        assert isinstance(found, Function)
        assert found.reserved_concurrency == 3

    asyncio.run(scenario())


def test_what_was_deleted_is_not_revived_by_a_slower_watch_or_read() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 1)
        heard = Heard()
        searched = index(store, heard)
        old = await store.create(fresh())
        searched.apply(Change("PUT", old.key, old))
        searched.apply(Change("DELETE", old.key, await store.delete(old.key)))
        searched.apply(Change("PUT", old.key, old))
        assert searched.get(old.key) is None
        new = await store.create(fresh())
        searched.apply(Change("PUT", new.key, new))
        searched.apply(Change("PUT", old.key, old))
        searched.apply(Change("DELETE", old.key, old))
        assert searched.get(new.key) == new
        assert [what for what, *_ in heard.said] == ["appeared", "removed", "appeared"]

    asyncio.run(scenario())


def test_a_successor_found_by_reading_is_not_undone_by_a_watch_that_still_tells_of_its_predecessor() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 1)
        searched = index(store)
        old = await store.create(fresh())
        searched.apply(Change("PUT", old.key, old))
        changed = await store.update(replace(old, reserved_concurrency=3))
        await store.delete(old.key)
        new = await store.create(fresh())
        searched.apply(Change("PUT", new.key, new))
        searched.apply(Change("PUT", changed.key, changed))
        assert searched.get(new.key) == new

    asyncio.run(scenario())


def test_the_memory_of_deleted_resources_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("kappa_gateway.hot.index.BURIED", 1)
        store = MemoryResourceStore(clock_ms=lambda: 1)
        searched = index(store)
        first = await store.create(fresh())
        searched.apply(Change("DELETE", first.key, await store.delete(first.key)))
        second = await store.create(fresh())
        searched.apply(Change("DELETE", second.key, await store.delete(second.key)))
        searched.apply(Change("PUT", first.key, first))
        assert searched.get(first.key) == first  # only the last one is remembered

    asyncio.run(scenario())


def test_a_weighted_alias_draws_for_each_invocation() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 1)
        function = await store.create(fresh())
        for number in (1, 2):
            await store.create(replace(made.version(number), function_uid=function.meta.uid, meta=made.Meta()))
        await store.create(
            replace(made.alias(), additional_version_weights={"2": 0.25}, function_uid=function.meta.uid, meta=made.Meta())
        )
        draws = iter([0.1, 0.25, 0.9])
        route = await index(store, draw=lambda: next(draws)).find(CALLER, "hello:live", None)
        assert [route.choose().label for _ in range(3)] == [b"2", b"1", b"1"]

    asyncio.run(scenario())


def test_an_invocation_waits_for_a_function_that_is_being_created() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 1)
        pending = await store.create(fresh(made.function(status=FunctionStatus())))

        async def settle(key: Key, seconds: float) -> None:
            assert key == pending.key
            await store.update(replace(pending, status=states.settled(pending.configuration)))

        route = await index(store, settled=settle).find(CALLER, "hello", None)
        assert route.choose().label == b"$LATEST"
        with pytest.raises(ResourceConflictException, match="state: Pending"):
            await index(await _with(pending), settled=None).find(CALLER, "hello", None)

    async def _with(function: Function) -> MemoryResourceStore:
        store = MemoryResourceStore(clock_ms=lambda: 1)
        await store.create(replace(function, meta=made.Meta()))
        return store

    asyncio.run(scenario())


def test_the_links_hear_of_new_configurations_reservations_and_removals() -> None:
    async def scenario() -> None:
        store, heard = MemoryResourceStore(clock_ms=lambda: 1), Heard()
        searched = index(store, heard)
        first = await store.create(fresh())
        searched.apply(Change("PUT", first.key, first))
        newer = made.configuration(timeout=9)
        second = await store.update(replace(first, configuration=newer, status=states.settled(newer)))
        searched.apply(Change("PUT", second.key, second))
        third = await store.update(replace(second, reserved_concurrency=1, tags={"a": "b"}))
        searched.apply(Change("PUT", third.key, third))
        searched.apply(Change("DELETE", third.key, third))
        old, new = (f"{first.meta.uid}.$LATEST.{one.digest()}" for one in (first.configuration, newer))
        key = f"{made.ACCOUNT}/{made.REGION}/hello/{first.meta.uid}"
        assert heard.said == [("appeared", old), ("superseded", old, new), ("reserved", 1), ("removed", key)]

    asyncio.run(scenario())


def test_a_function_created_again_under_its_name_is_another_one() -> None:
    async def scenario() -> None:
        store, heard = MemoryResourceStore(clock_ms=lambda: 1), Heard()
        searched = index(store, heard)
        first = await store.create(fresh())
        searched.apply(Change("PUT", first.key, first))
        await store.delete(first.key)
        second = await store.create(fresh())
        searched.apply(Change("PUT", second.key, second))
        assert heard.said[1] == ("removed", f"{made.ACCOUNT}/{made.REGION}/hello/{first.meta.uid}")
        assert heard.said[2][0] == "appeared"
        searched.apply(Change("DELETE", first.key, first))
        assert searched.get(second.key) is second

    asyncio.run(scenario())
