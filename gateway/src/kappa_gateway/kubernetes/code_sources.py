"""Code that stands in a resource, or that a resource points to, as an archive in the BlobStore.

One file in the resource and the entries of a ConfigMap become a zip here, the same bytes for the same files, so that nothing changes
when they are taken in again; an object in S3 and a download are archives already. All are then checked like an upload. It
writes no resource: the caller records what this returns.
"""

from __future__ import annotations

import base64
import binascii
import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from kappa_core.errors import LambdaError
from kappa_core.ports.blobs import BlobError
from kappa_core.resources import Code
from kappa_core.rules import states
from kappa_crds.api import ApiError, NotFound, api_path
from kappa_crds.code import CodeSource, ConfigMapCode, HttpsCode, Inline, S3Code
from kappa_gateway.kubernetes.code_download import Download, DownloadError
from kappa_gateway.operations.preparing import Unready

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Of every file in a zip that is made here."""
_ZIP: Final = b"PK\x03\x04"


class SourceMissing(Unready):
    """The object that the code is to come from is not there, or not any more."""


class ConfigMapApi(Protocol):
    """What this module needs of the API."""

    async def get(self, path: str, /) -> dict[str, Any]: ...


class Intake(Protocol):
    """Checks and stores archives; see kappa_gateway.code.intake."""

    async def from_zip(self, data: bytes, /, *, source: str) -> Code: ...
    async def from_file(self, path: Path, /, *, source: str) -> Code: ...
    async def from_s3(self, bucket: str, key: str, version: str | None, /, *, region: str) -> Code: ...


class CodeSources:
    """See the module."""

    def __init__(self, *, api: ConfigMapApi, intake: Intake, download: Download) -> None:
        self._api = api
        self._intake = intake
        self._download = download

    async def take(self, source: CodeSource, /, *, namespace: str, region: str) -> Code:
        """The stored code of a source in a resource of ``namespace``. Raises Unready."""
        try:
            match source:
                case Inline():
                    files = {source.path: source.text.encode()}
                    return await self._intake.from_zip(zip_of(files, executable=source.executable), source=source.described)
                case ConfigMapCode():
                    return await self._intake.from_zip(await self._config_map(source, namespace), source=source.described)
                case S3Code():
                    return await self._intake.from_s3(source.bucket, source.key, source.version, region=region)
                case HttpsCode():
                    return await self._https(source)
        except LambdaError as error:
            passing = error.status >= 500
            raise Unready(
                error.message or "The code is not usable.",
                states.INTERNAL_ERROR if passing else states.INVALID_ZIP,
                passing=passing,
            ) from error
        except BlobError as error:
            raise Unready(f"The code cannot be stored: {error}", states.INTERNAL_ERROR, passing=True) from error

    async def _config_map(self, source: ConfigMapCode, namespace: str) -> bytes:
        try:
            found = await self._api.get(api_path("v1", "configmaps", namespace=namespace, name=source.name))
        except NotFound as error:
            raise SourceMissing(
                f"The code is in ConfigMap {source.name}, which is not in namespace {namespace}.",
                states.INVALID_ZIP,
                passing=True,
            ) from error
        except ApiError as error:
            raise Unready(f"ConfigMap {source.name} cannot be read: {error}", states.INTERNAL_ERROR, passing=True) from error
        try:
            return archive_in(found, key=source.key)
        except KeyError as error:
            raise Unready(f"ConfigMap {source.name} has no entry {source.key}.", states.INVALID_ZIP, passing=True) from error
        except binascii.Error as error:
            raise Unready(f"ConfigMap {source.name} has an entry that is not base64.", states.INVALID_ZIP) from error

    async def _https(self, source: HttpsCode) -> Code:
        try:
            with tempfile.TemporaryDirectory(prefix="kappa-https-") as folder:
                path = Path(folder, "code.zip")
                await self._download.fetch(source.url, path, sha256=source.sha256)
                return await self._intake.from_file(path, source=source.described)
        except DownloadError as error:
            raise Unready(f"The code cannot be fetched: {error}", states.INVALID_ZIP, passing=error.passing) from error
        except OSError as error:
            raise Unready(f"The code cannot be kept: {error.strerror}", states.INTERNAL_ERROR, passing=True) from error


def archive_in(config_map: Mapping[str, Any], *, key: str | None) -> bytes:
    """The archive that a ConfigMap stands for: its entries as files; of one entry that file, or itself where it is a zip.

    Raises KeyError for an entry that is not there, binascii.Error for one that cannot be read.
    """
    files: dict[str, bytes] = {name: text.encode() for name, text in (config_map.get("data") or {}).items()}
    files |= {name: base64.b64decode(data, validate=True) for name, data in (config_map.get("binaryData") or {}).items()}
    if key is None:
        return zip_of(files)
    if files[key].startswith(_ZIP):
        return files[key]
    return zip_of({key: files[key]})


def zip_of(files: Mapping[str, bytes], *, executable: bool = False) -> bytes:
    """A zip of these files by their paths: equal files make equal bytes. A ``bootstrap`` is always executable."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix: what follows is a mode
            info.external_attr = (0o100755 if executable or name == "bootstrap" else 0o100644) << 16
            archive.writestr(info, files[name])
    return buffer.getvalue()
