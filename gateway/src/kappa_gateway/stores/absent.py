"""What stands behind a port that nothing is configured for: every use is one clear error that names the setting.

So a gateway without PostgreSQL still shows functions, runs what it can and says of the rest what is missing, instead of not starting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Final, NoReturn

from kappa_core.errors import ServiceUnavailableException
from kappa_core.ports.blobs import BlobInfo, BlobStoreUnavailable
from kappa_core.ports.queue import Dead, Event, FunctionStats, Lease, Leased, Waiting
from kappa_core.ports.store import StoreUnavailable
from kappa_core.resources import Sha256

NO_BLOBS: Final = "There is no place for code: set KAPPA_POSTGRES_DSN, or KAPPA_BLOBS_S3_BUCKET, for the gateways."
NO_QUEUE: Final = "Asynchronous invocations need a database: set KAPPA_POSTGRES_DSN for the gateways."


class AbsentBlobStore:
    """Implements BlobStore."""

    async def put(self, data: bytes | Path, /) -> BlobInfo:
        _no_blobs()

    async def read(self, sha256: Sha256, /) -> bytes:
        _no_blobs()

    async def stat(self, sha256: Sha256, /) -> BlobInfo | None:
        _no_blobs()

    async def local_path(self, sha256: Sha256, /) -> Path:
        _no_blobs()

    def all(self) -> AsyncIterator[BlobInfo]:
        _no_blobs()

    async def sweep(self, keep: Iterable[Sha256], /, *, older_than_ms: int) -> list[Sha256]:
        _no_blobs()

    async def close(self) -> None:
        return None


class AbsentEventQueue:
    """Implements EventQueue, as far as people ask it anything, and the hot path's Events; no worker runs over it."""

    async def accept(self, *, request_id: str, function_key: str, function_arn: str, trace_id: str, payload: bytes) -> None:
        """The invoke path's: raises ServiceUnavailableException."""
        raise ServiceUnavailableException(NO_QUEUE)

    async def enqueue(self, event: Event, /, *, delay_ms: int = 0, dedupe: str = "") -> str:
        _no_queue()

    async def lease(self, limit: int, /, *, lease_ms: int, share: int, rooms: Mapping[str, int]) -> Leased:
        _no_queue()

    async def extend(self, lease: Lease, /, *, lease_ms: int, note: bytes | None = None) -> None:
        _no_queue()

    async def ack(self, lease: Lease, /) -> None:
        _no_queue()

    async def nack(self, lease: Lease, /, *, after_ms: int, note: bytes | None = None) -> None:
        _no_queue()

    async def kill(self, lease: Lease, /, *, reason: str, detail: str = "") -> None:
        _no_queue()

    async def find(self, event_id: str, /) -> Waiting | Dead | None:
        _no_queue()

    async def dead_letters(self, function_uid: str, /, *, after: str = "", limit: int = 100) -> list[Dead]:
        _no_queue()

    async def redrive(self, function_uid: str, /, *, event_id: str = "") -> int:
        _no_queue()

    async def purge(self, function_uid: str, /, *, dead: bool, event_id: str = "") -> int:
        _no_queue()

    async def expire(self, before_ms: int, /) -> int:
        _no_queue()

    async def stats(self) -> list[FunctionStats]:
        _no_queue()

    async def close(self) -> None:
        return None


def _no_blobs() -> NoReturn:
    raise BlobStoreUnavailable(NO_BLOBS)


def _no_queue() -> NoReturn:
    raise StoreUnavailable(NO_QUEUE)
