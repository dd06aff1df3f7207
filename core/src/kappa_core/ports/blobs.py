"""BlobStore: archives by content. A blob that :meth:`BlobStore.put` returned for is durable, whole and readable by all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from kappa_core.resources import Sha256


class BlobError(Exception):
    """Base of what a BlobStore raises."""


class BlobNotFound(BlobError):
    """No blob has this digest."""


class BlobStoreUnavailable(BlobError):
    """The backend cannot be reached or is full; nothing was stored."""


class BlobInfo(msgspec.Struct, frozen=True):
    sha256: Sha256
    size: int
    stored_ms: int
    """Epoch milliseconds of the last put; the sweeper spares what is younger than a day."""


class BlobStore(Protocol):
    async def put(self, data: bytes | Path, /) -> BlobInfo:
        """Store bytes or a local file's content under its SHA-256. Storing what is there already refreshes ``stored_ms``."""

    async def read(self, sha256: Sha256, /) -> bytes:
        """The whole blob. Raises BlobNotFound; BlobError where the content no longer matches its digest."""

    async def stat(self, sha256: Sha256, /) -> BlobInfo | None: ...

    async def local_path(self, sha256: Sha256, /) -> Path:
        """A file with the content, for streaming and unpacking; to be read only. Raises BlobNotFound; BlobError where the
        content no longer matches its digest."""

    def all(self) -> AsyncIterator[BlobInfo]: ...

    async def sweep(self, keep: Iterable[Sha256], /, *, older_than_ms: int) -> list[Sha256]:
        """Delete what is not in ``keep`` and was last put before ``older_than_ms`` (epoch ms); returns what went."""

    async def close(self) -> None: ...
