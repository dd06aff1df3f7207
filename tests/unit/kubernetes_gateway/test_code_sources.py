"""Code that resources name: it becomes the same archive each time, and what cannot be had says why and whether it may pass."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kappa_core.errors import InvalidParameterValueException, ServiceException
from kappa_core.limits import Limits
from kappa_core.memory import MemoryBlobStore
from kappa_core.resources import Code, Sha256
from kappa_crds.api import NotFound, Unavailable
from kappa_crds.code import ConfigMapCode, HttpsCode, Inline, S3Code
from kappa_gateway.code.intake import CodeIntake
from kappa_gateway.code.s3 import S3Settings
from kappa_gateway.kubernetes.code_download import DownloadError
from kappa_gateway.kubernetes.code_sources import CodeSources, archive_in, zip_of
from kappa_gateway.operations.preparing import Unready
from zip_samples import files


class ConfigMaps:
    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self.away = False

    async def get(self, path: str, /) -> dict[str, Any]:
        if self.away:
            raise Unavailable("away")
        if path not in self.found:
            raise NotFound(path)
        return self.found[path]


class Archive:
    """In the place of S3 and of the web."""

    def __init__(self) -> None:
        self.data = files({"app.py": "x"})
        self.error: Exception | None = None

    def download(self, target: Path, /, *, bucket: str, key: str, version: str | None, region: str, limit: int) -> bool:
        if self.error is not None:
            raise self.error
        target.write_bytes(self.data)
        return True

    async def fetch(self, url: str, target: Path, /, *, sha256: str) -> None:
        if self.error is not None:
            raise self.error
        target.write_bytes(self.data)


class Plane:
    def __init__(self) -> None:
        self.config_maps, self.archive = ConfigMaps(), Archive()
        self.blobs = MemoryBlobStore(clock_ms=lambda: 0)
        intake = CodeIntake(self.blobs, Limits(), S3Settings(), source=self.archive)
        self.sources = CodeSources(api=self.config_maps, intake=intake, download=self.archive)  # type: ignore[arg-type]

    async def take(self, source: Any) -> Code:
        return await self.sources.take(source, namespace="team", region="us-east-1")

    async def refused(self, source: Any) -> Unready:
        with pytest.raises(Unready) as caught:
            await self.take(source)
        return caught.value


def contents(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_inline_source_becomes_the_file_of_its_handler_the_same_bytes_each_time() -> None:
    async def scenario() -> None:
        plane = Plane()
        source = Inline("app.py", "def handler(event, context): ...")
        first, again = await plane.take(source), await plane.take(source)
        assert first == again
        assert first.source == "inline"
        assert contents(await plane.blobs.read(first.sha256)) == {"app.py": b"def handler(event, context): ..."}

    asyncio.run(scenario())


def test_an_inline_bootstrap_is_executable() -> None:
    with zipfile.ZipFile(io.BytesIO(zip_of({"bootstrap": b"#!/bin/sh"}, executable=True))) as archive:
        assert archive.infolist()[0].external_attr >> 16 == 0o100755


@pytest.mark.parametrize(
    ("config_map", "key", "found"),
    [
        pytest.param({"data": {"b.py": "b", "a.py": "a"}}, None, {"a.py": b"a", "b.py": b"b"}, id="every entry is a file"),
        pytest.param({"data": {"a.py": "a", "b.py": "b"}}, "a.py", {"a.py": b"a"}, id="one entry"),
        pytest.param(
            {"binaryData": {"code.zip": base64.b64encode(files({"x.py": "x"})).decode()}}, "code.zip", {"x.py": b"x"}, id="a zip"
        ),
    ],
)
def test_a_config_map_becomes_an_archive(config_map: dict[str, Any], key: str | None, found: dict[str, bytes]) -> None:
    assert contents(archive_in(config_map, key=key)) == found


def test_a_config_map_that_is_not_there_may_come_later() -> None:
    async def scenario() -> None:
        plane = Plane()
        refusal = await plane.refused(ConfigMapCode("code", None))
        assert refusal.passing
        assert refusal.reason == "The code is in ConfigMap code, which is not in namespace team."
        plane.config_maps.found["/api/v1/namespaces/team/configmaps/code"] = {"data": {"app.py": "x"}}
        assert (await plane.take(ConfigMapCode("code", None))).source == "configmap:code"
        assert (await plane.refused(ConfigMapCode("code", "other.py"))).reason == "ConfigMap code has no entry other.py."
        plane.config_maps.away = True
        assert (await plane.refused(ConfigMapCode("code", None))).passing

    asyncio.run(scenario())


def test_an_object_and_a_download_are_archives_already() -> None:
    async def scenario() -> None:
        plane = Plane()
        digest = hashlib.sha256(plane.archive.data).hexdigest()
        s3 = await plane.take(S3Code("bucket", "key.zip", None))
        https = await plane.take(HttpsCode("https://example.com/a.zip", Sha256(digest)))
        assert (s3.sha256, s3.source) == (digest, "s3://bucket/key.zip")
        assert (https.sha256, https.source) == (digest, "https://example.com/a.zip")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        pytest.param(DownloadError("gone"), False, id="for good"),
        pytest.param(DownloadError("busy", passing=True), True, id="for now"),
        pytest.param(OSError(28, "No space left on device"), True, id="disk"),
    ],
)
def test_a_failed_download_says_whether_it_may_pass(error: Exception, passing: bool) -> None:
    async def scenario() -> None:
        plane = Plane()
        plane.archive.error = error
        refusal = await plane.refused(HttpsCode("https://example.com/a.zip", Sha256("a" * 64)))
        assert refusal.passing is passing

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "code", "passing"),
    [
        pytest.param(InvalidParameterValueException("no such key"), "InvalidZipFileException", False, id="refused"),
        pytest.param(ServiceException("S3 is away"), "InternalError", True, id="away"),
    ],
)
def test_s3s_word_becomes_the_reason(error: Exception, code: str, passing: bool) -> None:
    async def scenario() -> None:
        plane = Plane()
        plane.archive.error = error
        refusal = await plane.refused(S3Code("bucket", "key", None))
        assert (refusal.code, refusal.passing, refusal.reason) == (code, passing, str(error))

    asyncio.run(scenario())


def test_what_is_no_archive_is_refused_as_an_upload_is() -> None:
    async def scenario() -> None:
        plane = Plane()
        plane.archive.data = b"no zip"
        assert (await plane.refused(S3Code("bucket", "key", None))).code == "InvalidZipFileException"

    asyncio.run(scenario())
