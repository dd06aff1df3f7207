"""The client of the Kubernetes API against a real one: what its errors and watches are taken from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from cluster_stores import World, world
from kappa_crds.api import (
    AlreadyExists,
    Conflict,
    Expired,
    FieldOwner,
    Invalid,
    KubernetesApi,
    NotFound,
    Object,
    Unavailable,
    api_path,
)
from kappa_crds.watching import ChangeType, Informer


@asynccontextmanager
async def config_maps() -> AsyncIterator[tuple[KubernetesApi, World, str]]:
    """The API, a world and the path of its ConfigMaps."""
    async with asyncio.timeout(60), world() as made:
        yield made.api, made, api_path("v1", "configmaps", namespace=made.namespace)


def config_map(name: str, /, *, version: str = "", **data: str) -> Object:
    metadata = {"name": name} | ({"resourceVersion": version} if version else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_writes_are_refused_for_what_they_are() -> None:
    async def scenario() -> None:
        async with config_maps() as (api, _, path):
            made = await api.create(path, config_map("a", x="1"), field_manager="one")
            with pytest.raises(AlreadyExists):
                await api.create(path, config_map("a"), field_manager="one")
            with pytest.raises(Invalid, match="RFC 1123"):
                await api.create(path, config_map("A_"), field_manager="one")
            with pytest.raises(Conflict) as caught:
                await api.apply(f"{path}/a", config_map("a", x="2"), field_manager="two")
            assert caught.value.owners == (FieldOwner("one", ".data.x"),)
            forced = await api.apply(f"{path}/a", config_map("a", x="2"), field_manager="two", force=True)
            old = made["metadata"]["resourceVersion"]
            for stale in (
                api.replace(f"{path}/a", config_map("a", version=old), field_manager="one"),
                api.merge_patch(f"{path}/a", {"metadata": {"resourceVersion": old}}, field_manager="one"),
                api.apply(f"{path}/a", config_map("a", version=old, x="3"), field_manager="two"),
                api.delete(f"{path}/a", resource_version=old),
                api.delete(f"{path}/a", uid="another"),
            ):
                with pytest.raises(Conflict) as caught:
                    await stale
                assert caught.value.owners == ()
            with pytest.raises(Invalid):
                await api.json_patch(f"{path}/a", [{"op": "test", "path": "/data/x", "value": "9"}], field_manager="one")
            assert await api.get(f"{path}/a") == forced
            await api.delete(f"{path}/a", uid=made["metadata"]["uid"])
            with pytest.raises(NotFound):
                await api.get(f"{path}/a")

    asyncio.run(scenario())


def test_pages_join_to_the_list_as_of_one_version() -> None:
    async def scenario() -> None:
        async with config_maps() as (api, _, path):
            await asyncio.gather(*(api.create(path, config_map(f"a{n}"), field_manager="one") for n in range(7)))
            items, version = await api.list(path, field_selector="metadata.name!=kube-root-ca.crt", limit=2)
            assert [item["metadata"]["name"] for item in items] == [f"a{n}" for n in range(7)]
            await api.create(path, config_map("b"), field_manager="one")
            async with aclosing(api.watch(path, resource_version=version)) as watch:
                event = await anext(watch)
            assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "b")

    asyncio.run(scenario())


def test_a_watch_ends_when_its_time_is_over_and_says_when_its_version_is_gone() -> None:
    async def scenario() -> None:
        async with config_maps() as (api, made, _):
            path = api_path("lambda.kappa.dev/v1alpha1", "functions", namespace=made.namespace)
            _, version = await api.list(path)
            events = [event["type"] async for event in api.watch(path, resource_version=version, timeout_seconds=3)]
            assert set(events) <= {"BOOKMARK"}
            with pytest.raises(Expired):
                # The collection is younger than the first version of the cluster.
                await anext(api.watch(path, resource_version="1"))

    asyncio.run(scenario())


def test_an_informer_knows_what_is_there_after_its_connections_were_lost() -> None:
    async def scenario() -> None:
        async with config_maps() as (api, _, path):
            told: list[tuple[str, str]] = []

            def changed(type_: ChangeType, obj: Object) -> None:
                if obj["metadata"]["name"] != "kube-root-ca.crt":
                    told.append((type_, obj["metadata"]["name"]))

            lossy = Lossy(api)
            informer = Informer(lossy, path, on_change=changed)
            task = asyncio.create_task(informer.run())
            await informer.synced.wait()
            for number in range(4):
                await api.create(path, config_map(f"a{number}"), field_manager="one")
                await api.delete(f"{path}/a{number}")
            while len(told) < 8:
                await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert told == [(type_, f"a{number}") for number in range(4) for type_ in ("ADDED", "DELETED")]
            assert lossy.watches >= 8
            assert {name for _, name in informer.items} <= {"kube-root-ca.crt"}

    asyncio.run(scenario())


class Lossy:
    """The API, whose watches lose their connection after every event."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self.list = api.list
        self.watches = 0

    async def watch(self, path: str, **options: Any) -> Any:
        self.watches += 1
        async with aclosing(self._api.watch(path, **options)) as watch:
            yield await anext(watch)
        raise Unavailable("the cable is cut")
