"""What a function keeps in its ``/tmp``, where the filesystem below does not say when that is full, and the end of one that keeps too much.

On AWS, in a sandbox and in a pod whose ``/tmp`` is in memory the filesystem has the size itself: a write beyond it fails. A folder on a
disk that others use has none. There what is in it is added up once a second while something runs, and a function that is over its
size is ended like one that is over its memory; its files go with it. In a pod that comes before the kubelet, which would evict all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

WATCH_SECONDS: Final = 1.0
_BLOCK: Final = 512
"""Of st_blocks, whatever the filesystem's own are (POSIX)."""


class Keeper(Protocol):
    """An environment."""

    @property
    def busy(self) -> bool: ...

    def end_for_storage(self) -> None: ...


K = TypeVar("K", bound=Keeper)


class StorageWatch(Generic[K]):
    """See the module. ``folder_of`` is an environment's ``/tmp``, which may hold ``limit_mb`` MiB."""

    def __init__(self, *, limit_mb: int, folder_of: Callable[[K], Path]) -> None:
        self._limit = limit_mb << 20
        self._folder_of = folder_of
        self._watched: set[K] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def watch(self, keeper: K) -> None:
        """Something runs in it: look at its folder until nothing does."""
        self._watched.add(keeper)
        if self._timer is None and self._looking is None:
            self._later()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._looking = asyncio.get_running_loop().create_task(self._look(), name="add up what is in /tmp")

    async def _look(self) -> None:
        self._watched = {keeper for keeper in self._watched if keeper.busy}
        for keeper in list(self._watched):
            if await asyncio.to_thread(exceeds, self._folder_of(keeper), self._limit) and keeper.busy:
                keeper.end_for_storage()
        self._looking = None
        if self._watched:
            self._later()


def has_size(folder: Path, *, limit_mb: int) -> bool:
    """Whether the filesystem of a folder has no more room than that in all."""
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize <= limit_mb << 20


def exceeds(folder: Path, limit: int) -> bool:
    """Whether the files below a folder take more than ``limit`` bytes on the disk. What comes or goes meanwhile may be missed."""
    total = 0
    linked: set[tuple[int, int]] = set()
    folders = [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif found.st_nlink > 1:
                        if (found.st_dev, found.st_ino) in linked:
                            continue
                        linked.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * _BLOCK
                    if total > limit:
                        return True
    return False


def empty(folder: Path) -> None:
    """Remove what is in a folder, as far as that goes."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                entry.unlink()
