"""The ResourceStore on a real API server: every promise of the port, and what only a store that others write to as well can show."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

pytest.register_assert_rewrite("resource_store_promises")

from cluster_stores import world  # noqa: E402 - the rewrite has to be asked for first
from kappa_core.ports.store import ResourceStore  # noqa: E402
from resource_store_promises import *  # noqa: E402, F403 - the tests
from resource_store_promises import Clock, Opener  # noqa: E402


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(clock: Clock) -> Opener:
    @contextlib.asynccontextmanager
    async def kubernetes() -> AsyncIterator[ResourceStore]:
        async with world(clock_ms=clock) as made:
            yield await made.store()

    return kubernetes
