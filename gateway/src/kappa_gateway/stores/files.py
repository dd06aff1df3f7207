"""BlobStore on files: ``<root>/<first two digits>/<sha256>``, each file written beside, synced, and renamed into place.

A name therefore always stands for whole content; what a crash leaves is a nameless file under ``incoming``, which the next start
removes. Content is checked against its digest whenever it is read or handed out. Several processes may share the folder: a lock
file keeps the sweeper of one from removing what another is just storing. All I/O runs on two threads of the store's own.

It refuses to report a blob as stored before its content and its name are on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, ParamSpec, Self, TypeVar

from kappa_core.ports.blobs import BlobError, BlobInfo, BlobNotFound, BlobStoreUnavailable
from kappa_core.resources import Sha256
from kappa_gateway.clock import epoch_ms

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK = 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ABANDONED_SECONDS = 60.0
"""An unlocked file under ``incoming`` that old has lost its writer; a younger one may be about to be locked."""


class FileBlobStore:
    """See the module. Use :meth:`open`."""

    def __init__(self, root: Path, *, clock_ms: Callable[[], int]) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._clock_ms = clock_ms
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="kappa-blobs")
        self._closed = False

    @classmethod
    async def open(cls, root: Path, /, *, clock_ms: Callable[[], int] = epoch_ms) -> Self:
        """Open or create the folder and remove what a crash left. Raises BlobStoreUnavailable."""
        store = cls(root, clock_ms=clock_ms)
        try:
            await store._run(store._prepare)
        except BlobStoreUnavailable:
            await store.close()
            raise
        return store

    async def put(self, data: bytes | Path, /) -> BlobInfo:
        return await self._run(self._put, data)

    async def read(self, sha256: Sha256, /) -> bytes:
        return await self._run(self._read, sha256)

    async def stat(self, sha256: Sha256, /) -> BlobInfo | None:
        return await self._run(self._stat, sha256)

    async def local_path(self, sha256: Sha256, /) -> Path:
        return await self._run(self._checked_path, sha256)

    async def all(self) -> AsyncIterator[BlobInfo]:
        for info in await self._run(self._list):
            yield info

    async def sweep(self, keep: Iterable[Sha256], /, *, older_than_ms: int) -> list[Sha256]:
        return await self._run(self._sweep, set(keep), older_than_ms)

    async def close(self) -> None:
        """Finish what is under way. Idempotent."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)

    async def _run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise BlobStoreUnavailable(f"{self._root} is closed")

        def guarded() -> T:
            try:
                return work(*args, **kwargs)
            except OSError as error:
                raise BlobStoreUnavailable(f"{self._root} cannot be used: {_reason(error)}") from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)

    # -- threads ---------------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        self._incoming.mkdir(parents=True, exist_ok=True)
        _sync_folder(self._root)
        self._remove_abandoned()

    def _put(self, data: bytes | Path) -> BlobInfo:
        temporary = self._incoming / uuid.uuid4().hex
        try:
            # The lock tells a starting process that this file has a living writer.
            with temporary.open("xb") as target:
                fcntl.flock(target, fcntl.LOCK_EX)
                digest, size = _copy(data, target)
                target.flush()
                os.fchmod(target.fileno(), 0o400)
                os.fsync(target.fileno())
                return self._adopt(temporary, digest, size)
        finally:
            temporary.unlink(missing_ok=True)

    def _adopt(self, temporary: Path, digest: Sha256, size: int) -> BlobInfo:
        path = self._path(digest)
        stored_ms = self._clock_ms()
        with self._lock(fcntl.LOCK_SH):
            # What is there is kept only if it is whole: storing a blob again repairs a damaged one.
            if not (path.exists() and _digest(path) == digest):
                if not path.parent.exists():
                    path.parent.mkdir(exist_ok=True)
                    _sync_folder(self._root)
                temporary.rename(path)
            os.utime(path, ns=(stored_ms * 1_000_000, stored_ms * 1_000_000))
            _sync_folder(path.parent)
        return BlobInfo(digest, size, stored_ms)

    def _read(self, sha256: Sha256) -> bytes:
        try:
            content = self._path(sha256).read_bytes()
        except FileNotFoundError:
            raise BlobNotFound(f"no blob {sha256}") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BlobError(f"{self._path(sha256)} is damaged: its content does not match its name")
        return content

    def _checked_path(self, sha256: Sha256) -> Path:
        path = self._path(sha256)
        try:
            whole = _digest(path) == sha256
        except FileNotFoundError:
            raise BlobNotFound(f"no blob {sha256}") from None
        if not whole:
            raise BlobError(f"{path} is damaged: its content does not match its name")
        return path

    def _stat(self, sha256: Sha256) -> BlobInfo | None:
        try:
            found = self._path(sha256).stat()
        except (FileNotFoundError, BlobNotFound):
            return None
        return BlobInfo(sha256, found.st_size, found.st_mtime_ns // 1_000_000)

    def _list(self) -> list[BlobInfo]:
        names = sorted(path.name for path in self._root.glob("[0-9a-f][0-9a-f]/*") if _DIGEST.fullmatch(path.name))
        return [info for name in names if (info := self._stat(Sha256(name))) is not None]

    def _sweep(self, keep: set[Sha256], older_than_ms: int) -> list[Sha256]:
        self._remove_abandoned()
        gone = []
        for info in self._list():
            if info.sha256 in keep:
                continue
            with self._lock(fcntl.LOCK_EX):
                # Again under the lock: it may just have been stored once more.
                current = self._stat(info.sha256)
                if current is not None and current.stored_ms < older_than_ms:
                    self._path(info.sha256).unlink()
                    gone.append(info.sha256)
        return gone

    def _remove_abandoned(self) -> None:
        for path in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # its writer finished, or is at it
                if time.time() - path.stat().st_mtime < _ABANDONED_SECONDS:
                    continue
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()

    def _path(self, sha256: Sha256) -> Path:
        if not _DIGEST.fullmatch(sha256):
            raise BlobNotFound(f"{sha256!r} is no digest")
        return self._root / sha256[:2] / sha256

    @contextlib.contextmanager
    def _lock(self, mode: int) -> Iterator[None]:
        with (self._root / "lock").open("ab") as file:
            fcntl.flock(file, mode)
            yield


def _copy(data: bytes | Path, target: BinaryIO) -> tuple[Sha256, int]:
    digest = hashlib.sha256()
    if isinstance(data, bytes):
        digest.update(data)
        target.write(data)
        return Sha256(digest.hexdigest()), len(data)
    size = 0
    with data.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
            size += len(chunk)
    return Sha256(digest.hexdigest()), size


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return "no space left on the device"
    return f"{error.strerror}{': ' + str(error.filename) if error.filename else ''}"
