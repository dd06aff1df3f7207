"""BlobStore in a dictionary. Only a caller that asks for a path touches the disk: the blob is then written to a temporary folder
that goes with the store."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from kappa_core.ports.blobs import BlobInfo, BlobNotFound, BlobStoreUnavailable
from kappa_core.resources import Sha256


class MemoryBlobStore:
    """The twin of every durable BlobStore."""

    def __init__(self, *, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._blobs: dict[Sha256, tuple[bytes, BlobInfo]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._closed = False

    async def put(self, data: bytes | Path, /) -> BlobInfo:
        self._check_open()
        content = data if isinstance(data, bytes) else _content(data)
        digest = Sha256(hashlib.sha256(content).hexdigest())
        info = BlobInfo(digest, len(content), self._clock_ms())
        self._blobs[digest] = (content, info)
        return info

    async def read(self, sha256: Sha256, /) -> bytes:
        return self._blob(sha256)[0]

    async def stat(self, sha256: Sha256, /) -> BlobInfo | None:
        self._check_open()
        blob = self._blobs.get(sha256)
        return None if blob is None else blob[1]

    async def local_path(self, sha256: Sha256, /) -> Path:
        return self._materialize(sha256)

    async def all(self) -> AsyncIterator[BlobInfo]:
        self._check_open()
        for _, info in list(self._blobs.values()):
            yield info

    async def sweep(self, keep: Iterable[Sha256], /, *, older_than_ms: int) -> list[Sha256]:
        self._check_open()
        kept = set(keep)
        gone = [digest for digest, (_, info) in self._blobs.items() if digest not in kept and info.stored_ms < older_than_ms]
        for digest in gone:
            del self._blobs[digest]
        return gone

    async def close(self) -> None:
        self._closed = True
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _blob(self, sha256: Sha256) -> tuple[bytes, BlobInfo]:
        self._check_open()
        try:
            return self._blobs[sha256]
        except KeyError:
            raise BlobNotFound(f"no blob {sha256}") from None

    def _materialize(self, sha256: Sha256) -> Path:
        content, _ = self._blob(sha256)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="kappa-blobs-")
        path = Path(self._folder.name, sha256)
        if not path.exists():
            path.write_bytes(content)
        return path

    def _check_open(self) -> None:
        if self._closed:
            raise BlobStoreUnavailable("the blob store is closed")


def _content(path: Path) -> bytes:
    return path.read_bytes()
