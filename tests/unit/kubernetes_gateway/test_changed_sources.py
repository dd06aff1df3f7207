"""ConfigMaps that code comes from: each function made of one is told of its changes, those before the term included."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kappa_core.resources import Key
from kappa_gateway.kubernetes.changed_sources import ChangedSources
from made import ACCOUNT, REGION
from virtual_time import virtual
from watched_twin import WatchedTwin


def key(name: str) -> Key:
    return Key("Function", ACCOUNT, REGION, name)


MADE_OF = {("n", "files"): [key("one"), key("two")], ("m", "files"): [key("three")]}


@asynccontextmanager
async def watched(api: WatchedTwin, changed: list[str]) -> AsyncIterator[None]:
    sources = ChangedSources(
        api,
        namespaces=(),
        made_of=lambda namespace, name: MADE_OF.get((namespace, name), []),
        changed=lambda found: changed.append(found.name),
    )
    task = asyncio.create_task(sources.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def told(changed: list[str]) -> list[str]:
    await asyncio.sleep(0.01)
    taken = list(changed)
    changed.clear()
    return taken


@virtual
async def test_functions_are_told_of_their_config_maps_and_of_no_other() -> None:
    api, changed = WatchedTwin(), list[str]()
    api.put("files", data={"app.py": "1"})
    api.put("kube-root-ca.crt")
    async with watched(api, changed):
        assert await told(changed) == ["one", "two"]
        api.put("files", data={"app.py": "2"})
        assert await told(changed) == ["one", "two"]
        api.put("files", namespace="m")
        api.put("others", namespace="m")
        assert await told(changed) == ["three"]
        assert api.lists == ["/api/v1/configmaps"]


@virtual
async def test_one_that_is_deleted_changes_nothing_and_one_that_comes_again_does() -> None:
    api, changed = WatchedTwin(), list[str]()
    api.put("files")
    async with watched(api, changed):
        await told(changed)
        api.remove("files")
        assert await told(changed) == []
        api.put("files")
        assert await told(changed) == ["one", "two"]
