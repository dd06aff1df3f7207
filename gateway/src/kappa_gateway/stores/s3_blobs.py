"""BlobStore in a bucket of S3, or of anything that speaks its protocol: ``<prefix><sha256>/<when it was stored>``.

An object's name has the time in it because S3 has no way to delete what is old and spare what was just stored again: storing again makes
another object (a copy made by the server) before the older ones go, and a sweep deletes only objects that it has seen. So neither loses
what the other has just promised, one listing answers for everything, and what is missing when it is read has only moved on to a later name.
An object appears when its upload is complete, and the server checks the upload against the digest it is signed with.

botocore does the work, on threads of the store's own. Readers get files from a local cache (:mod:`.blob_cache`).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, ParamSpec, Self, TypeVar

import msgspec

from kappa_core.ports.blobs import BlobError, BlobInfo, BlobNotFound, BlobStoreUnavailable
from kappa_core.resources import Sha256
from kappa_gateway.clock import epoch_ms
from kappa_gateway.stores.blob_cache import CACHE_BYTES, BlobCache, checked_digest, file_digest

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_CHUNK: Final = 1024 * 1024
_THREADS: Final = 4
_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final = 60
_ATTEMPTS: Final = 3
_DIGITS: Final = 15
"""Of the time in a name: milliseconds, in an order that is theirs as text."""
_GONE: Final = frozenset({"NoSuchKey", "404", "NotFound"})


class S3BlobSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Which bucket, and how to reach it."""

    bucket: str
    region: str
    prefix: str = ""
    endpoint: str | None = None
    """Base URL of the service; None: AWS's."""
    access_key_id: str | None = None
    """None: the SDK's usual chain, such as a role of the gateway's ServiceAccount."""
    secret_access_key: str | None = None
    path_style: bool = True
    """``endpoint/bucket/key``, which every server takes, instead of a host name per bucket. AWS's own is always asked by host name."""


class _Object(NamedTuple):
    """One stored blob. Of the same blob the last is the newest."""

    sha256: Sha256
    stored_ms: int
    size: int
    key: str


class S3BlobStore:
    """See the module. Use :meth:`open`."""

    def __init__(self, settings: S3BlobSettings, cache: BlobCache, *, clock_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._cache = cache
        self._clock_ms = clock_ms
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kappa-s3-blobs")
        self._client: Any = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        settings: S3BlobSettings,
        /,
        *,
        cache: Path,
        cache_bytes: int = CACHE_BYTES,
        clock_ms: Callable[[], int] = epoch_ms,
    ) -> Self:
        """``cache`` is a folder of this process alone, for local copies. A bucket that cannot be reached now is no error here, but a
        line in the log. Raises BlobStoreUnavailable where the cache cannot be written."""
        store = cls(settings, BlobCache(cache, limit=cache_bytes), clock_ms=clock_ms)
        try:
            await store._cache.open()
            store._client = await asyncio.get_running_loop().run_in_executor(store._threads, _connect, settings)
        except BaseException:
            await store.close()
            raise
        try:
            await store._run(store._probe)
        except BlobStoreUnavailable as error:
            _log.error("%s; it is tried again when it is needed", error)
        return store

    async def put(self, data: bytes | Path, /) -> BlobInfo:
        return await self._run(self._put, data, self._clock_ms())

    async def read(self, sha256: Sha256, /) -> bytes:
        content = io.BytesIO()
        await self._run(self._download, checked_digest(sha256), content)
        if hashlib.sha256(content.getbuffer()).hexdigest() != sha256:
            raise BlobError(f"blob {sha256} is damaged: its content does not match its name")
        return content.getvalue()

    async def stat(self, sha256: Sha256, /) -> BlobInfo | None:
        try:
            found = await self._run(self._newest, checked_digest(sha256))
        except BlobNotFound:
            return None
        return BlobInfo(sha256, found.size, found.stored_ms)

    async def local_path(self, sha256: Sha256, /) -> Path:
        self._check_open()
        return await self._cache.path(checked_digest(sha256), lambda path: self._run(self._download_to, sha256, path))

    async def all(self) -> AsyncIterator[BlobInfo]:
        for found in (await self._run(self._list_newest)).values():
            yield BlobInfo(found.sha256, found.size, found.stored_ms)

    async def sweep(self, keep: Iterable[Sha256], /, *, older_than_ms: int) -> list[Sha256]:
        gone = await self._run(self._sweep, set(keep), older_than_ms)
        await self._cache.drop(gone)
        return gone

    async def close(self) -> None:
        """Finish what is under way. Idempotent."""
        self._closed = True
        await self._cache.close()
        await asyncio.to_thread(self._threads.shutdown)
        if self._client is not None:
            self._client.close()

    async def _run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_open()

        def guarded() -> T:
            # Here and not at the top: only a gateway with a bucket loads botocore for its blobs.
            from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

            try:
                return work(*args, **kwargs)
            except (BotoCoreError, ClientError) as error:
                raise BlobStoreUnavailable(f"bucket {self._settings.bucket} cannot be used: {error}") from error
            except OSError as error:
                raise BlobStoreUnavailable(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)

    def _check_open(self) -> None:
        if self._closed:
            raise BlobStoreUnavailable("the blob store is closed")

    # -- threads ---------------------------------------------------------------------------------------------------
    def _probe(self) -> None:
        self._client.list_objects_v2(Bucket=self._settings.bucket, Prefix=self._settings.prefix, MaxKeys=1)

    def _put(self, data: bytes | Path, stored_ms: int) -> BlobInfo:
        digest = Sha256(hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else file_digest(data))
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        key = f"{self._settings.prefix}{digest}/{stored_ms:0{_DIGITS}d}"
        stored = sorted(self._list(f"{digest}/"), key=lambda one: one.stored_ms)
        if not (stored and stored[-1].size == size and (stored[-1].key == key or self._copy(stored[-1].key, key))):
            with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as body:
                self._client.put_object(Bucket=self._settings.bucket, Key=key, Body=body, ContentLength=size)
        for one in stored:
            if one.stored_ms < stored_ms:
                self._delete(one)
        return BlobInfo(digest, size, stored_ms)

    def _copy(self, source: str, key: str) -> bool:
        """Whether the server has copied it; it has not where it is gone by now."""
        try:
            bucket = self._settings.bucket
            self._client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": source})
        except self._client.exceptions.ClientError as error:
            if _is_gone(error):
                return False
            raise
        return True

    def _download_to(self, sha256: Sha256, path: Path) -> None:
        with path.open("wb") as target:
            self._download(sha256, target)

    def _download(self, sha256: Sha256, target: BinaryIO) -> None:
        while True:
            newest = self._newest(sha256)
            try:
                answer = self._client.get_object(Bucket=self._settings.bucket, Key=newest.key)
            except self._client.exceptions.ClientError as error:
                if _is_gone(error):
                    continue  # it was stored again just now, under a later name, or swept: the list says which
                raise
            with answer["Body"] as body:
                while chunk := body.read(_CHUNK):
                    target.write(chunk)
            return

    def _newest(self, sha256: Sha256) -> _Object:
        stored = list(self._list(f"{sha256}/"))
        if not stored:
            raise BlobNotFound(f"no blob {sha256}")
        return max(stored, key=lambda one: one.stored_ms)

    def _list_newest(self) -> dict[Sha256, _Object]:
        newest: dict[Sha256, _Object] = {}
        for found in self._list(""):
            known = newest.get(found.sha256)
            if known is None or known.stored_ms < found.stored_ms:
                newest[found.sha256] = found
        return newest

    def _sweep(self, keep: set[Sha256], older_than_ms: int) -> list[Sha256]:
        stored = [one for one in self._list("") if one.sha256 not in keep]
        young = {one.sha256 for one in stored if one.stored_ms >= older_than_ms}
        gone = []
        for one in stored:
            if one.sha256 not in young:
                self._delete(one)
                gone.append(one.sha256)
        return list(dict.fromkeys(gone))

    def _delete(self, one: _Object) -> None:
        self._client.delete_object(Bucket=self._settings.bucket, Key=one.key)

    def _list(self, below: str) -> Iterator[_Object]:
        """What is stored; what else lies in the bucket is left alone."""
        start = len(self._settings.prefix)
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._settings.bucket, Prefix=self._settings.prefix + below
        )
        for page in pages:
            for found in page.get("Contents", ()):
                digest, _, stored = found["Key"][start:].partition("/")
                if len(digest) == 64 and len(stored) == _DIGITS and stored.isdecimal():
                    yield _Object(Sha256(digest), int(stored), found["Size"], found["Key"])


def _connect(settings: S3BlobSettings) -> Any:
    from botocore.config import Config  # noqa: PLC0415 - see _run
    from botocore.session import Session  # noqa: PLC0415

    addressing = "path" if settings.path_style and settings.endpoint is not None else "virtual"
    return Session().create_client(
        "s3",
        region_name=settings.region,
        endpoint_url=settings.endpoint,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
        config=Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
            max_pool_connections=_THREADS,
            # The digest that requests are signed with is checked by every server, the newer checksums are not.
            s3={"addressing_style": addressing, "payload_signing_enabled": True},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _is_gone(error: Any) -> bool:
    return error.response.get("Error", {}).get("Code", "") in _GONE
