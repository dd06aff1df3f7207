"""What a function needs in a cluster before it is Active: an image, its layers, its code; each lack is said in one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from kappa_core.limits import Limits
from kappa_core.memory import MemoryBlobStore, MemoryResourceStore
from kappa_core.names import layer_arn
from kappa_core.resources import Code, Configuration, Function, Key, ValueSource
from kappa_core.rules.configuration import NO_CODE
from kappa_crds.code import CodeSource
from kappa_gateway.kubernetes.code_sources import SourceMissing
from kappa_gateway.kubernetes.preparing import ClusterPreparation
from kappa_gateway.operations.preparing import Unready
from made import ACCOUNT, REGION, code, configuration, function


class Cluster:
    """Objects, sources and stores in memory."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.blobs = MemoryBlobStore(clock_ms=lambda: 0)
        self.store = MemoryResourceStore(clock_ms=lambda: 0)
        self.objects: dict[Key, Mapping[str, Any]] = {}
        self.taken: list[tuple[CodeSource, str, str]] = []
        self.missing: Unready | None = None
        self.preparation = ClusterPreparation(
            store=self.store,
            objects=self,
            blobs=self.blobs,
            sources=self,  # type: ignore[arg-type]
            runtimes=frozenset({"python3.12", "provided.al2023"}),
            limits=limits or Limits(),
        )

    async def read(self, key: Key, /) -> Mapping[str, Any] | None:
        return self.objects.get(key)

    async def take(self, source: CodeSource, /, *, namespace: str, region: str) -> Code:
        self.taken.append((source, namespace, region))
        if self.missing is not None:
            raise self.missing
        stored = await self.blobs.put(b"inline code")
        return Code(sha256=stored.sha256, size=stored.size, unzipped_size=20, source=source.described)

    async def prepared(self, *, spec: Mapping[str, Any] | None = None, **changes: Any) -> Configuration:
        stored = await self.blobs.put(b"uploaded")
        given = configuration(**{"code": code(stored.sha256)} | changes)
        made = msgspec.structs.replace(function(), configuration=given)
        self.objects[made.key] = {"metadata": {"namespace": "team"}, "spec": {"runtime": given.runtime, **(spec or {})}}
        return await self.preparation.prepare(made)

    async def lacking(self, **changes: Any) -> Unready:
        with pytest.raises(Unready) as caught:
            await self.prepared(**changes)
        return caught.value


def test_stored_code_is_taken_as_it_is() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        found = await cluster.prepared()
        assert found.code.size == 100
        assert cluster.taken == []

    asyncio.run(scenario())


def test_code_that_a_manifest_names_is_taken_in_and_answered() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        found = await cluster.prepared(code=NO_CODE, spec={"handler": "app.handler", "code": {"inline": "x = 1"}})
        assert found.code.source == "inline"
        assert [(source.described, namespace) for source, namespace, _ in cluster.taken] == [("inline", "team")]

    asyncio.run(scenario())


def test_a_config_map_is_taken_in_again_and_one_that_is_gone_leaves_the_code_that_was() -> None:
    async def scenario() -> None:
        cluster, spec = Cluster(), {"code": {"configMap": {"name": "files"}}}
        assert (await cluster.prepared(spec=spec)).code.source == "configmap:files"
        cluster.missing = SourceMissing("It is gone.", "InvalidZipFileException", passing=True)
        assert (await cluster.prepared(spec=spec)).code.size == 100
        assert (await cluster.lacking(spec=spec, code=NO_CODE)).reason == "It is gone."
        cluster.missing = Unready("It has no entry x.", "InvalidZipFileException", passing=True)
        assert (await cluster.lacking(spec=spec)).reason == "It has no entry x."

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        pytest.param({"runtime": "ruby3.4"}, "InvalidRuntime", "there are images for provided.al2023, python3.12", id="runtime"),
        pytest.param({"runtime": None}, "InvalidRuntime", "the runtime (none)", id="no runtime"),
        pytest.param({"package_type": "Image"}, "InvalidRuntime", "as a zip archive", id="image"),
        pytest.param({"timeout": 901}, "InternalError", "over the limit of 900 seconds", id="timeout"),
        pytest.param({"handler": None}, "InternalError", "needs a handler", id="no handler"),
        pytest.param({"environment": {"AWS_REGION": "x"}}, "InternalError", "AWS_REGION", id="reserved variable"),
        pytest.param({"code": NO_CODE}, "InvalidZipFileException", "has no code", id="no code"),
        pytest.param({"code": code("b" * 64)}, "InternalError", "no longer there", id="code is gone"),
        pytest.param(
            {"layers": (layer_arn(ACCOUNT, REGION, "missing", 1),)}, "InvalidZipFileException", "does not exist", id="no layer"
        ),
        pytest.param(
            {"environment_from": {"AWS_SESSION_TOKEN": ValueSource(kind="Secret", name="s", key="k")}},
            "InternalError",
            "AWS_SESSION_TOKEN",
            id="reserved variable from a Secret",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(changes: dict[str, Any], code: str, words: str) -> None:
    async def scenario() -> None:
        refusal = await Cluster().lacking(**changes)
        assert refusal.code == code
        assert words in refusal.reason
        assert "\n" not in refusal.reason

    asyncio.run(scenario())


def test_a_provided_runtime_needs_no_handler() -> None:
    async def scenario() -> None:
        assert (await Cluster().prepared(runtime="provided.al2023", handler=None)).handler is None

    asyncio.run(scenario())


def test_a_function_that_was_deleted_meanwhile_is_no_failure() -> None:
    async def scenario() -> None:
        cluster = Cluster()
        stored = await cluster.blobs.put(b"uploaded")
        gone: Function = msgspec.structs.replace(function(), configuration=configuration(code=code(stored.sha256)))
        assert await cluster.preparation.prepare(gone) == gone.configuration

    asyncio.run(scenario())
