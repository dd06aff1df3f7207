"""One publication finished by two processes at once: the gateway that was asked, and the settler that saw the intent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kappa_core.memory import MemoryResourceStore
from kappa_core.ports.store import Conflict
from kappa_core.resources import Function, FunctionVersion
from kappa_core.rules import publish
from kappa_gateway.operations.changing import finish_publication
from store_samples import function


class Interrupted:
    """A store that lets somebody else act just after its own `create`."""

    def __init__(self, store: MemoryResourceStore, *, act: Callable[[], Awaitable[Any]]) -> None:
        self._store = store
        self._act = act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def create(self, resource: Any) -> Any:
        made = await self._store.create(resource)
        await self._act()
        return made


async def _with_intent(store: MemoryResourceStore) -> Function:
    stored = await store.create(function())
    return await store.update(publish.begin(stored, version=1, description=None))


def test_the_version_stays_when_another_process_finishes_what_this_one_has_made() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 0)
        intended = await _with_intent(store)
        interrupted: Any = Interrupted(store, act=lambda: finish_publication(store, intended))
        with pytest.raises(Conflict):
            await finish_publication(interrupted, intended)
        assert intended.publication is not None
        assert isinstance(await store.get(publish.version_of(intended, intended.publication).key), FunctionVersion)
        current = await store.get(intended.key)
        assert isinstance(current, Function)
        assert publish.pending(current) is None

    asyncio.run(scenario())


def test_a_version_that_was_finished_and_deleted_meanwhile_is_not_made_again() -> None:
    async def scenario() -> None:
        store = MemoryResourceStore(clock_ms=lambda: 0)
        intended = await _with_intent(store)
        assert intended.publication is not None
        key = publish.version_of(intended, intended.publication).key
        await finish_publication(store, intended)
        await store.delete(key)
        with pytest.raises(Conflict):
            await finish_publication(store, intended)
        assert await store.get(key) is None

    asyncio.run(scenario())
