"""What every ResourceStore promises (kappa_core.ports.store): tests for a driver that brings the fixtures ``opened`` and ``clock``.

A test module imports all of it; drivers that need a cluster and those that do not run in different suites.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import msgspec
import pytest

from kappa_core.ports.store import AlreadyExists, Change, Conflict, NotFound, ResourceStore, StoreUnavailable
from kappa_core.resources import Function, Key, ProvisionedConcurrency, ProvisionedState
from kappa_core.rules.revision import revision_id
from store_samples import ACCOUNT, REGION, alias, function, layer, version

T = TypeVar("T")
Opener = Callable[[], AbstractAsyncContextManager[ResourceStore]]


class Clock:
    """Epoch milliseconds."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


def run(opened: Opener, scenario: Callable[[ResourceStore], Awaitable[T]]) -> T:
    async def main() -> T:
        async with asyncio.timeout(60), opened() as store:
            return await scenario(store)

    return asyncio.run(main())


async def take(watch: AsyncGenerator[Change, None], count: int) -> list[Change]:
    return [await anext(watch) for _ in range(count)]


def changed(resource: Function, description: str) -> Function:
    configuration = msgspec.structs.replace(resource.configuration, description=description)
    return msgspec.structs.replace(resource, configuration=configuration)


def test_a_created_resource_is_read_back_with_its_metadata(opened: Opener, clock: Clock) -> None:
    async def scenario(store: ResourceStore) -> None:
        created = await store.create(function())
        assert created.meta.uid
        assert created.meta.resource_version
        assert created.meta.created_ms == 1_000
        assert created.meta.updated_ms >= 1_000
        assert await store.get(created.key) == created
        assert await store.get(Key("Function", ACCOUNT, REGION, "other")) is None

    run(opened, scenario)


def test_every_kind_of_resource_comes_back_as_it_was_stored(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        for resource in (function(), version(1), alias("live"), layer(1)):
            created = await store.create(resource)
            assert await store.get(resource.key) == created
            assert msgspec.structs.replace(created, meta=resource.meta) == resource

    run(opened, scenario)


def test_metadata_that_the_caller_made_up_is_ignored(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        first = await store.create(function())
        forged = msgspec.structs.replace(function("g"), meta=first.meta)
        second = await store.create(forged)
        assert second.meta.uid != first.meta.uid
        forged = msgspec.structs.replace(second, meta=msgspec.structs.replace(second.meta, uid="forged", generation=99))
        updated = await store.update(changed(forged, "new"))
        assert updated.meta.uid == second.meta.uid
        assert second.meta.generation < updated.meta.generation != 99

    run(opened, scenario)


def test_an_update_raises_generation_and_version_and_keeps_identity(opened: Opener, clock: Clock) -> None:
    async def scenario(store: ResourceStore) -> None:
        created = await store.create(function())
        clock.now = 2_000
        updated = await store.update(changed(created, "new"))
        assert updated.meta.uid == created.meta.uid
        assert updated.meta.resource_version != created.meta.resource_version
        assert updated.meta.generation > created.meta.generation
        assert updated.meta.created_ms == 1_000
        assert updated.meta.updated_ms >= 2_000
        assert (await store.update(changed(updated, "newer"))).meta.generation > updated.meta.generation

    run(opened, scenario)


@pytest.mark.parametrize("kind", ["Alias", "FunctionVersion"])
def test_what_is_noted_of_provisioned_concurrency_is_kept_and_outdates_nobodys_revision_id(opened: Opener, kind: str) -> None:
    async def scenario(store: ResourceStore) -> None:
        await store.create(function())
        created = await store.create(alias("live") if kind == "Alias" else version(1))
        asked = await store.update(msgspec.structs.replace(created, provisioned=ProvisionedConcurrency(requested=2)))
        assert asked.provisioned is not None
        assert asked.provisioned.requested == 2
        state = ProvisionedState(requested=2, function_version="1", ready=1, allocated=2, revision="uid.1.x")
        noting = msgspec.structs.replace(asked, provisioned=msgspec.structs.replace(asked.provisioned, state=state))
        noted = await store.update(noting)
        assert noted.provisioned is not None
        assert noted.provisioned.state == state
        assert revision_id(noted) == revision_id(asked)
        found = await store.get(noted.key)
        assert found == noted
        gone = await store.update(msgspec.structs.replace(noted, provisioned=None))
        assert gone.provisioned is None or gone.provisioned.requested == 0
        assert revision_id(gone) != revision_id(asked) or kind == "FunctionVersion"

    run(opened, scenario)


def test_a_key_that_is_taken_is_refused(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        created = await store.create(function())
        with pytest.raises(AlreadyExists):
            await store.create(function(description="another"))
        assert await store.get(created.key) == created

    run(opened, scenario)


def test_of_many_creates_at_once_exactly_one_wins(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        answers = await asyncio.gather(
            *(store.create(function(description=str(number))) for number in range(16)), return_exceptions=True
        )
        won = [answer for answer in answers if isinstance(answer, Function)]
        assert len(won) == 1
        assert [type(answer) for answer in answers if answer is not won[0]] == [AlreadyExists] * 15
        assert await store.get(won[0].key) == won[0]

    run(opened, scenario)


def test_a_lost_update_is_refused(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        created = await store.create(function())
        first = await store.update(changed(created, "first"))
        with pytest.raises(Conflict):
            await store.update(changed(created, "second"))
        assert await store.get(created.key) == first

    run(opened, scenario)


def test_read_modify_write_from_many_tasks_loses_nothing(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        created = await store.create(function())

        async def tag(name: str) -> None:
            while True:
                current = await store.get(created.key)
                assert isinstance(current, Function)
                try:
                    await store.update(msgspec.structs.replace(current, tags=current.tags | {name: "x"}))
                except Conflict:
                    continue
                return

        await asyncio.gather(*(tag(str(number)) for number in range(12)))
        final = await store.get(created.key)
        assert isinstance(final, Function)
        assert set(final.tags) == {str(number) for number in range(12)}
        assert final.meta.generation > created.meta.generation

    run(opened, scenario)


def test_update_and_delete_of_nothing_say_so(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        with pytest.raises(NotFound):
            await store.update(function())
        with pytest.raises(NotFound):
            await store.delete(function().key)
        created = await store.create(function())
        await store.delete(created.key)
        with pytest.raises(NotFound):
            await store.update(created)
        assert await store.get(created.key) is None

    run(opened, scenario)


def test_delete_returns_the_last_state_and_honours_the_version_named(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        created = await store.create(function())
        updated = await store.update(changed(created, "new"))
        with pytest.raises(Conflict):
            await store.delete(created.key, resource_version=created.meta.resource_version)
        assert await store.delete(created.key, resource_version=updated.meta.resource_version) == updated

    run(opened, scenario)


def test_a_resource_created_again_is_another_one(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        first = await store.create(function())
        await store.delete(first.key)
        second = await store.create(function())
        assert second.meta.uid != first.meta.uid
        assert second.meta.resource_version != first.meta.resource_version
        with pytest.raises(Conflict):
            await store.update(first)

    run(opened, scenario)


def test_lists_are_in_key_order_with_versions_by_number(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        for number in (10, 9, 100, 1, 2):
            await store.create(version(number))
        for name in ("live", "Beta", "a-1"):
            await store.create(alias(name))
        listed = await store.list("FunctionVersion", account=ACCOUNT, region=REGION, name="f")
        assert [resource.key.sub for resource in listed] == ["1", "2", "9", "10", "100"]
        assert [resource.key.sub for resource in await store.list("Alias")] == ["Beta", "a-1", "live"]

    run(opened, scenario)


def test_lists_are_narrowed_by_account_region_and_name(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        for account in ("000000000000", "111111111111"):
            for region in ("eu-central-1", "us-east-1"):
                for name in ("a", "b"):
                    await store.create(function(name, account=account, region=region))
        assert len(await store.list("Function")) == 8
        assert len(await store.list("Function", account=ACCOUNT)) == 4
        listed = await store.list("Function", account=ACCOUNT, region=REGION)
        assert [resource.key.name for resource in listed] == ["a", "b"]
        assert len(await store.list("Function", name="a")) == 4
        assert await store.list("LayerVersion") == []

    run(opened, scenario)


def test_pages_join_to_the_whole_list_even_when_the_marker_is_gone(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        for number in range(1, 26):
            await store.create(version(number))
        found: list[str] = []
        after: Key | None = None
        while page := await store.list("FunctionVersion", after=after, limit=7):
            assert len(page) <= 7
            found += [resource.key.sub for resource in page]
            after = page[-1].key
            await store.delete(after)
        assert found == [str(number) for number in range(1, 26)]
        assert await store.list("FunctionVersion", limit=0) == []

    run(opened, scenario)


def test_counters_only_rise_and_survive_what_they_numbered(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        assert [await store.allocate("f"), await store.allocate("f"), await store.allocate("g")] == [1, 2, 1]
        numbers = await asyncio.gather(*(store.allocate("f") for _ in range(20)))
        assert sorted(numbers) == list(range(3, 23))

    run(opened, scenario)


def test_a_watch_replays_what_is_there_and_then_tells_every_change_in_order(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        there = await store.create(function("a"))
        async with contextlib.aclosing(store.watch()) as watch:
            assert await anext(watch) == Change("PUT", there.key, there)
            created = await store.create(function("b"))
            first = await store.update(changed(created, "1"))
            second = await store.update(changed(first, "2"))
            await store.delete(second.key)
            assert await take(watch, 4) == [
                Change("PUT", created.key, created),
                Change("PUT", created.key, first),
                Change("PUT", created.key, second),
                Change("DELETE", created.key, second),
            ]

    run(opened, scenario)


def test_a_watch_without_replay_begins_with_the_call(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        await store.create(function("before"))
        async with contextlib.aclosing(store.watch(replay=False)) as watch:
            after = await store.create(function("after"))
            assert await anext(watch) == Change("PUT", after.key, after)

    run(opened, scenario)


def test_a_change_between_the_call_and_the_first_step_is_told_once(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        async with contextlib.aclosing(store.watch()) as watch:
            first = await store.create(function("first"))
            assert await anext(watch) == Change("PUT", first.key, first)
            second = await store.create(function("second"))
            assert await anext(watch) == Change("PUT", second.key, second)

    run(opened, scenario)


def test_refused_writes_are_not_told(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        created = await store.create(function())
        async with contextlib.aclosing(store.watch(replay=False)) as watch:
            with pytest.raises(AlreadyExists):
                await store.create(function())
            with pytest.raises(NotFound):
                await store.delete(function("other").key)
            updated = await store.update(changed(created, "new"))
            assert await anext(watch) == Change("PUT", updated.key, updated)

    run(opened, scenario)


def test_every_watcher_is_told_everything(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        watches = [store.watch() for _ in range(3)]
        created = [await store.create(function(str(number))) for number in range(5)]
        for watch in watches:
            told = await take(watch, 5)
            assert [change.resource for change in told] == created
            await watch.aclose()

    run(opened, scenario)


def test_a_waiting_watch_ends_when_the_store_is_closed(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        watch = store.watch()

        async def listen() -> list[Change]:
            return [change async for change in watch]

        created = await store.create(function())
        listener = asyncio.create_task(listen())
        while not (await store.list("Function")):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.close()
        assert all(change.resource == created for change in await listener)

    run(opened, scenario)


def test_a_closed_store_says_so(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.create(function())
        with pytest.raises(StoreUnavailable):
            await store.get(function().key)
        with pytest.raises(StoreUnavailable):
            store.watch()

    run(opened, scenario)


def test_a_cancelled_caller_leaves_the_store_working(opened: Opener) -> None:
    async def scenario(store: ResourceStore) -> None:
        tasks = [asyncio.create_task(store.create(function(str(number)))) for number in range(8)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        created = await store.create(function("last"))
        assert await store.get(created.key) == created
        assert {f"{number}" for number in (1, 3, 5, 7)} <= {resource.key.name for resource in await store.list("Function")}

    run(opened, scenario)
