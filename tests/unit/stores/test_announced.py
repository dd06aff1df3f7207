"""Own writes are told before the writer hears that they are done; failed ones are not told at all."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

import made
from kappa_core.memory.store import MemoryResourceStore
from kappa_core.ports.store import AlreadyExists, Change, Conflict
from kappa_core.resources import Meta
from kappa_gateway.stores.announced import AnnouncedStore


def test_every_write_that_succeeded_is_told_in_order_and_no_other() -> None:
    async def scenario() -> None:
        heard: list[Change] = []
        store = AnnouncedStore(MemoryResourceStore(clock_ms=lambda: 1))
        store.listeners.append(heard.append)
        created = await store.create(replace(made.function(), meta=Meta()))
        assert heard == [Change("PUT", created.key, created)]
        updated = await store.update(replace(created, reserved_concurrency=1))
        with pytest.raises(Conflict):
            await store.update(created)
        with pytest.raises(AlreadyExists):
            await store.create(replace(made.function(), meta=Meta()))
        last = await store.delete(created.key)
        assert heard[1:] == [Change("PUT", created.key, updated), Change("DELETE", created.key, last)]

    asyncio.run(scenario())
