"""Local copies of archives that lie elsewhere: a folder of bounded size, each file named by its SHA-256 and checked when it is handed out.

A copy that is being fetched is fetched once, whoever asks, written beside and renamed. Since a name stands for its content, what is
here is right whether or not the backend can be reached. When the folder is over its size the copies that were handed out longest ago
go, but none of the last minutes: somebody may be about to open it. The folder belongs to one process; what it finds there it keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from kappa_core.ports.blobs import BlobError, BlobNotFound, BlobStoreUnavailable
from kappa_core.resources import Sha256

CACHE_BYTES: Final = 2 * 1024**3
RECENT_SECONDS: Final = 600.0
"""Copies handed out within this time are kept whatever the size: as long as the slowest reader may take to open one."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

Fetch = Callable[[Path], Awaitable[None]]
"""Writes the content of a blob to a file. Raises BlobNotFound, BlobStoreUnavailable."""


def checked_digest(sha256: str) -> Sha256:
    """The digest itself. Raises BlobNotFound for what is none: nothing can have that name."""
    if not _DIGEST.fullmatch(sha256):
        raise BlobNotFound(f"{sha256!r} is no digest")
    return Sha256(sha256)


def file_digest(path: Path) -> str:
    """SHA-256 of a file. Blocking."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class BlobCache:
    """See the module. Not thread-safe; its file work runs on threads."""

    def __init__(self, root: Path, *, limit: int = CACHE_BYTES, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._limit = limit
        self._clock = clock
        self._fetching: dict[Sha256, asyncio.Task[Path]] = {}

    async def open(self) -> None:
        """Make the folder and remove what a crash left half written. Raises BlobStoreUnavailable."""
        with _refusing(self._root):
            await asyncio.to_thread(self._prepare)

    async def path(self, sha256: Sha256, fetch: Fetch) -> Path:
        """The local copy, fetched where there is none. Raises what ``fetch`` raises, and BlobError for damaged content."""
        task = self._fetching.get(sha256)
        if task is None:
            task = self._fetching[sha256] = asyncio.create_task(self._provide(sha256, fetch), name=f"fetch blob {sha256[:12]}")
            task.add_done_callback(lambda done: self._fetched(sha256, done))
        # Shielded: whoever gives up waiting does not take it from the others.
        return await asyncio.shield(task)

    async def drop(self, digests: Iterable[Sha256]) -> None:
        """Remove copies of blobs that were deleted."""
        for digest in digests:
            await asyncio.to_thread((self._root / digest).unlink, missing_ok=True)

    async def close(self) -> None:
        """Give up what is being fetched."""
        fetching = list(self._fetching.values())
        for task in fetching:
            task.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)

    def _fetched(self, sha256: Sha256, done: asyncio.Task[Path]) -> None:
        del self._fetching[sha256]
        if not done.cancelled():
            done.exception()  # heard, also where everybody has given up waiting

    async def _provide(self, sha256: Sha256, fetch: Fetch) -> Path:
        with _refusing(self._root):
            path = self._root / sha256
            if await asyncio.to_thread(self._is_whole, path):
                return path
            temporary = self._root / f".{uuid.uuid4().hex}"
            try:
                await fetch(temporary)
                if await asyncio.to_thread(file_digest, temporary) != sha256:
                    raise BlobError(f"blob {sha256} is damaged: its content does not match its name")
                await asyncio.to_thread(self._adopt, temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        return path

    # -- threads ---------------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        for path in self._root.glob(".*"):
            path.unlink(missing_ok=True)

    def _is_whole(self, path: Path) -> bool:
        try:
            if file_digest(path) != path.name:
                return False
            self._touch(path)
        except FileNotFoundError:
            return False
        return True

    def _touch(self, path: Path) -> None:
        now = self._clock()
        os.utime(path, (now, now))

    def _adopt(self, temporary: Path, path: Path) -> None:
        temporary.chmod(0o400)
        temporary.rename(path)
        self._touch(path)
        copies = sorted((found.stat().st_mtime, found.stat().st_size, found) for found in self._root.glob("[0-9a-f]*"))
        excess = sum(size for _, size, _ in copies) - self._limit
        for used, size, copy in copies:
            if excess <= 0 or used > self._clock() - RECENT_SECONDS:
                break
            copy.unlink(missing_ok=True)
            excess -= size


@contextlib.contextmanager
def _refusing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BlobStoreUnavailable(f"{root} cannot be used: {error.strerror}") from error
