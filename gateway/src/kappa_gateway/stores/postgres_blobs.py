"""BlobStore in PostgreSQL: a row that names an archive and its parts of 1 MiB, all of one transaction.

So an archive is there whole or not at all, for every gateway at once, and what a gateway that died was storing never was. Two that
store the same one wait for each other in the unique index; the second finds it stored and compares the digests of its parts, which repairs
what was damaged. Parts are sent and read one after the other: no archive is ever in memory here, except for a caller that asks for its
bytes. Readers get files from a local cache (:mod:`.blob_cache`), which answers for what it has while the database is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self

from kappa_core.ports.blobs import BlobError, BlobInfo, BlobNotFound, BlobStoreUnavailable
from kappa_core.ports.store import StoreUnavailable
from kappa_core.resources import Sha256
from kappa_gateway.clock import epoch_ms
from kappa_gateway.stores.blob_cache import CACHE_BYTES, BlobCache, checked_digest
from kappa_gateway.stores.postgres import Postgres

PART_BYTES: Final = 1024 * 1024
TRANSFERS: Final = 2
"""Archives on their way at once: they share the pool with the event queue."""
SECONDS: Final = 60.0
"""For one statement at most: whoever stores what another gateway is just storing waits for that."""
_AHEAD: Final = 4
"""Parts that are read ahead."""

_NAME_IT: Final = """
    INSERT INTO kappa.blobs (sha256, size, stored_ms) VALUES ($1, $2, $3)
    ON CONFLICT (sha256) DO UPDATE SET stored_ms = excluded.stored_ms, size = excluded.size
    RETURNING id"""
_DIGESTS: Final = "SELECT sha256(data) FROM kappa.blob_parts WHERE blob = $1 ORDER BY number"
_ADD_PART: Final = "INSERT INTO kappa.blob_parts (blob, number, data) VALUES ($1, $2, $3)"
_PARTS: Final = "SELECT data FROM kappa.blob_parts p JOIN kappa.blobs b ON b.id = p.blob WHERE b.sha256 = $1 ORDER BY p.number"
_INFO: Final = "SELECT sha256, size, stored_ms FROM kappa.blobs"
# A row that is being stored once more is waited for, and judged again by its new time.
_SWEEP: Final = "DELETE FROM kappa.blobs WHERE stored_ms < $1 AND sha256 <> ALL ($2::text[]) RETURNING sha256"


class PostgresBlobStore:
    """See the module. Use :meth:`open`."""

    def __init__(self, postgres: Postgres, cache: BlobCache, *, clock_ms: Callable[[], int]) -> None:
        self._postgres = postgres
        self._cache = cache
        self._clock_ms = clock_ms
        self._transfers = asyncio.Semaphore(TRANSFERS)
        self._closed = False

    @classmethod
    async def open(
        cls,
        postgres: Postgres,
        /,
        *,
        cache: Path,
        cache_bytes: int = CACHE_BYTES,
        clock_ms: Callable[[], int] = epoch_ms,
    ) -> Self:
        """The store over connections that stay the caller's. ``cache`` is a folder of this process alone, for local copies.

        Raises BlobStoreUnavailable where that cannot be written; the database need not be there yet.
        """
        store = cls(postgres, BlobCache(cache, limit=cache_bytes), clock_ms=clock_ms)
        await store._cache.open()
        return store

    async def put(self, data: bytes | Path, /) -> BlobInfo:
        self._check_open()
        with _unavailable():
            async with self._transfers:
                content = await asyncio.to_thread(_survey, data)
                stored_ms = self._clock_ms()
                async with self._postgres.connection() as connection, connection.transaction():
                    blob = await connection.fetchval(_NAME_IT, content.sha256, content.size, stored_ms, timeout=SECONDS)
                    await _store(connection, blob, data, content)
        return BlobInfo(content.sha256, content.size, stored_ms)

    async def read(self, sha256: Sha256, /) -> bytes:
        self._check_open()
        target = io.BytesIO()
        await self._download(checked_digest(sha256), target)
        content = target.getvalue()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BlobError(f"blob {sha256} is damaged: its content does not match its name")
        return content

    async def stat(self, sha256: Sha256, /) -> BlobInfo | None:
        self._check_open()
        with _unavailable():
            rows = await self._postgres.fetch(f"{_INFO} WHERE sha256 = $1", sha256)
        return BlobInfo(*rows[0]) if rows else None

    async def local_path(self, sha256: Sha256, /) -> Path:
        self._check_open()

        async def fetch(path: Path) -> None:
            with path.open("wb") as target:
                await self._download(sha256, target)

        return await self._cache.path(checked_digest(sha256), fetch)

    async def all(self) -> AsyncIterator[BlobInfo]:
        self._check_open()
        with _unavailable():
            rows = await self._postgres.fetch(f"{_INFO} ORDER BY sha256", seconds=SECONDS)
        for row in rows:
            yield BlobInfo(*row)

    async def sweep(self, keep: Iterable[Sha256], /, *, older_than_ms: int) -> list[Sha256]:
        self._check_open()
        with _unavailable():
            rows = await self._postgres.fetch(_SWEEP, older_than_ms, list(keep), seconds=SECONDS)
        gone = [Sha256(row["sha256"]) for row in rows]
        await self._cache.drop(gone)
        return gone

    async def close(self) -> None:
        """Idempotent; the connections stay open."""
        self._closed = True
        await self._cache.close()

    async def _download(self, sha256: Sha256, target: BinaryIO) -> None:
        with _unavailable():
            async with (
                self._transfers,
                self._postgres.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                if not await connection.fetch(f"{_INFO} WHERE sha256 = $1", sha256):
                    raise BlobNotFound(f"no blob {sha256}")
                async for row in connection.cursor(_PARTS, sha256, prefetch=_AHEAD, timeout=SECONDS):
                    await asyncio.to_thread(target.write, row["data"])

    def _check_open(self) -> None:
        if self._closed:
            raise BlobStoreUnavailable("the blob store is closed")


class _Content(NamedTuple):
    """What is about to be stored."""

    sha256: Sha256
    size: int
    parts: list[bytes]
    """Digest of each part."""


def _parts(data: bytes | Path) -> Iterator[bytes]:
    """The content piece by piece. Blocking."""
    with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as source:
        while part := source.read(PART_BYTES):
            yield part


def _survey(data: bytes | Path) -> _Content:
    whole = hashlib.sha256()
    size = 0
    digests = []
    for part in _parts(data):
        whole.update(part)
        size += len(part)
        digests.append(hashlib.sha256(part).digest())
    return _Content(Sha256(whole.hexdigest()), size, digests)


async def _store(connection: Any, blob: int, data: bytes | Path, content: _Content) -> None:
    """Add the parts to a row of this transaction, unless they are there already."""
    stored = [row[0] for row in await connection.fetch(_DIGESTS, blob, timeout=SECONDS)]
    if stored == content.parts:
        return
    if stored:
        await connection.execute("DELETE FROM kappa.blob_parts WHERE blob = $1", blob, timeout=SECONDS)
    add = await connection.prepare(_ADD_PART)
    parts = _parts(data)
    for number, digest in enumerate(content.parts):
        part = await asyncio.to_thread(next, parts, b"")
        if hashlib.sha256(part).digest() != digest:
            raise BlobError("the file changed while it was being stored")
        await add.fetch(blob, number, part, timeout=SECONDS)


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """The port's own word for what PostgreSQL, or the disk that is read from or written to, does not do."""
    try:
        yield
    except StoreUnavailable as error:
        raise BlobStoreUnavailable(str(error)) from error
    except OSError as error:
        raise BlobStoreUnavailable(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}") from error
