"""What every ResourceStore promises, on the drivers that need no cluster; and what these promise beyond it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("resource_store_promises")

from kappa_core.memory import MemoryResourceStore  # noqa: E402 - the rewrite has to be asked for first
from kappa_core.ports.store import ResourceStore  # noqa: E402
from kappa_gateway.stores.announced import AnnouncedStore  # noqa: E402
from kappa_gateway.stores.sqlite import SqliteResourceStore  # noqa: E402
from resource_store_promises import *  # noqa: E402, F403 - the tests
from resource_store_promises import Clock, Opener, changed, run  # noqa: E402
from store_samples import function  # noqa: E402


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "announced"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Opener:
    @contextlib.asynccontextmanager
    async def memory() -> AsyncIterator[ResourceStore]:
        store = MemoryResourceStore(clock_ms=clock)
        yield store
        await store.close()

    @contextlib.asynccontextmanager
    async def sqlite() -> AsyncIterator[ResourceStore]:
        store = await SqliteResourceStore.open(tmp_path / "state.db", clock_ms=clock)
        yield store
        await store.close()

    @contextlib.asynccontextmanager
    async def announced() -> AsyncIterator[ResourceStore]:
        store = AnnouncedStore(MemoryResourceStore(clock_ms=clock))
        yield store
        await store.close()

    return {"memory": memory, "sqlite": sqlite, "announced": announced}[request.param]


def test_every_accepted_write_counts_one_even_if_it_changes_nothing(opened: Opener, clock: Clock) -> None:
    async def scenario(store: ResourceStore) -> None:
        created = await store.create(function())
        clock.now = 2_000
        updated = await store.update(changed(created, "new"))
        again = await store.update(updated)
        metas = [each.meta for each in (created, updated, again)]
        assert [(meta.generation, meta.updated_ms) for meta in metas] == [(1, 1_000), (2, 2_000), (3, 2_000)]
        await store.delete(again.key)
        assert (await store.create(function())).meta.generation == 1

    run(opened, scenario)
