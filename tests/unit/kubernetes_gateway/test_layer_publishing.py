"""Layers become layer versions: one for each content, whatever fails in between, and only by whoever holds the term."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from kappa_core.memory import MemoryResourceStore
from kappa_core.resources import AccountId, Code, LayerVersion
from kappa_crds.api import NotFound, Unavailable
from kappa_crds.code import CodeSource
from kappa_gateway.kubernetes.layer_publishing import LayerPublisher
from kappa_gateway.operations.preparing import Unready
from made import code

ACCOUNT = AccountId("000000000000")


class Cluster:
    """One Layer object, a store, and a source whose content tests choose."""

    def __init__(self) -> None:
        self.layer: dict[str, Any] | None = None
        self.fail_next: list[Exception] = []
        self.content = "a" * 64
        self.slept: list[float] = []
        self.store = MemoryResourceStore(clock_ms=lambda: 0)
        self.publisher = LayerPublisher(
            self,
            store=self.store,
            sources=self,  # type: ignore[arg-type]
            account_of=lambda namespace: ACCOUNT if namespace == "team" else None,
            default_region="us-east-1",
            clock_ms=lambda: 0,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def get(self, path: str, /) -> dict[str, Any]:
        if self.fail_next:
            raise self.fail_next.pop(0)
        if self.layer is None:
            raise NotFound(path)
        return self.layer

    async def apply(self, path: str, body: dict[str, Any], /, *, field_manager: str, force: bool) -> dict[str, Any]:
        if self.fail_next:
            raise self.fail_next.pop(0)
        assert self.layer is not None
        self.layer = {**self.layer, "status": body["status"]}
        self.publisher.put(self.layer)
        return self.layer

    async def take(self, source: CodeSource, /, *, namespace: str, region: str) -> Code:
        if self.content == "missing":
            raise Unready("ConfigMap is not there.", "InvalidZipFileException", passing=True)
        if self.content == "broken":
            raise Unready("It is no archive.", "InvalidZipFileException")
        return msgspec.structs.replace(code(self.content), source=source.described)

    def write(self, *, namespace: str = "team", **spec: Any) -> None:
        """As kubectl apply."""
        generation = 1 if self.layer is None else self.layer["metadata"]["generation"] + 1
        metadata = {"name": "base", "namespace": namespace, "uid": "uid", "generation": generation}
        status = {} if self.layer is None else self.layer.get("status", {})
        self.layer = {"metadata": metadata, "spec": {"content": {"configMap": {"name": "c"}}, **spec}, "status": status}
        self.publisher.put(self.layer)

    async def versions(self) -> list[int]:
        for _ in range(100):
            await asyncio.sleep(0)
        return [each.version for each in await self.store.list("LayerVersion") if isinstance(each, LayerVersion)]

    @property
    def status(self) -> dict[str, Any]:
        assert self.layer is not None
        found: dict[str, Any] = self.layer["status"]
        return found


def test_each_content_becomes_one_version() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.publisher.take_over()
        cluster.write()
        assert await cluster.versions() == [1]
        assert (cluster.status["version"], cluster.status["observedGeneration"]) == (1, 1)
        assert cluster.status["layerVersionARN"] == "arn:aws:lambda:us-east-1:000000000000:layer:base:1"
        assert cluster.status["conditions"][0]["status"] == "True"
        cluster.publisher.put(cluster.layer or {})
        assert await cluster.versions() == [1]
        cluster.content = "b" * 64
        cluster.write(description="another")
        assert await cluster.versions() == [1, 2]
        assert cluster.status["version"] == 2

    asyncio.run(scenario())


def test_nothing_is_published_by_whoever_does_not_hold_the_term() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.write()
        assert await cluster.versions() == []
        cluster.publisher.take_over()
        assert await cluster.versions() == [1]
        cluster.publisher.stand_down()
        cluster.write(description="another")
        assert await cluster.versions() == [1]
        await cluster.publisher.close()

    asyncio.run(scenario())


def test_a_version_whose_status_was_not_written_is_found_and_not_made_again() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.publisher.take_over()
        cluster.write()
        await cluster.versions()
        assert cluster.layer is not None
        cluster.layer = {**cluster.layer, "status": {}}
        cluster.publisher.put(cluster.layer)
        assert await cluster.versions() == [1]
        assert cluster.status["version"] == 1

    asyncio.run(scenario())


def test_an_api_server_that_is_away_delays_and_loses_nothing() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.publisher.take_over()
        cluster.fail_next = [Unavailable("away"), Unavailable("away")]
        cluster.write()
        assert await cluster.versions() == [1]
        assert cluster.slept == [1.0, 1.0]

    asyncio.run(scenario())


def test_what_is_missing_is_said_and_looked_for_again() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.content = "missing"
        cluster.publisher.take_over()
        cluster.write()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert cluster.status["conditions"][0]["message"] == "ConfigMap is not there."
        cluster.content = "a" * 64
        assert await cluster.versions() == [1]
        assert cluster.status["conditions"][0]["status"] == "True"

    asyncio.run(scenario())


def test_what_will_never_do_is_said_once_and_left_until_it_changes() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.content = "broken"
        cluster.publisher.take_over()
        cluster.write()
        assert await cluster.versions() == []
        assert cluster.status["conditions"][0]["message"] == "It is no archive."
        assert cluster.slept == []
        cluster.content = "a" * 64
        cluster.write(description="mended")
        assert await cluster.versions() == [1]

    asyncio.run(scenario())


def test_layers_of_namespaces_that_are_not_served_are_left_alone() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        cluster.publisher.take_over()
        cluster.write(namespace="elsewhere")
        assert await cluster.versions() == []
        assert cluster.status == {}

    asyncio.run(scenario())
