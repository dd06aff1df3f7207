"""A store whose watch has ended of a bug says so, and one that has lost the API server does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import cast

from kappa_crds.api import KubernetesApi, Object, Unavailable
from kappa_gateway.kubernetes.store import KubernetesResourceStore
from watched_twin import WatchedTwin


class Watched(WatchedTwin):
    """Its watches end with an error when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.events: list[Object] = []

    async def watch(self, path: str, **options: object) -> AsyncGenerator[Object, None]:
        while not self.events:
            await asyncio.sleep(0)
            if self.error is not None and "aliases" in path:
                raise self.error
        yield self.events.pop()


def opened_with(error: Exception) -> str | None:
    async def scenario() -> str | None:
        api = Watched()
        store = await KubernetesResourceStore.open(
            cast(KubernetesApi, api), default_namespace="default", default_region="us-east-1"
        )
        try:
            assert store.broken is None
            api.error = error
            for _ in range(50):
                await asyncio.sleep(0)
            return store.broken
        finally:
            await store.close()

    return asyncio.run(scenario())


def test_a_watch_that_ends_of_a_bug_is_named() -> None:
    broken = opened_with(ZeroDivisionError("by zero"))
    assert broken is not None
    assert "Alias" in broken
    assert "by zero" in broken


def test_an_api_server_that_is_away_is_no_bug() -> None:
    assert opened_with(Unavailable("gone")) is None
