"""Read-only trees of code, one for each archive and one for each list of layers, shared by all environments that run it.

A tree is unpacked beside its place and renamed into it: the name is the commit point, so a tree that can be seen is whole, and a
crash leaves only a nameless folder that the next start removes. Callers that ask at once share one unpacking, within a process
through a task and among processes through a lock. All of it can be made again from the blobs, so nothing is synced: after a reboot,
which may have lost written data, the trees begin anew.

It refuses to touch what a running process is unpacking, and to write to a tree once it has its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from kappa_core.archives.unpack import remove_tree, unpack
from kappa_core.ports.blobs import BlobStore
from kappa_core.resources import Sha256

logger = logging.getLogger(__name__)

UNPACKING_AT_ONCE = 2
SPARED_SECONDS = 3600.0
"""What was asked for that recently is not swept: another gateway may have handed it out since the list of what to keep was made."""
_ABANDONED_SECONDS = 60.0
"""An unlocked temporary folder that old has lost its process; a younger one may be about to be locked."""
_TEMPORARY = ".incoming-"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class TreesUnavailable(Exception):
    """Code cannot be unpacked, such as for lack of space; the message is one line, nothing was left behind."""


class CodeTrees:
    """See the module. Use :meth:`open`; belongs to the event loop it was opened on."""

    def __init__(self, root: Path, blobs: BlobStore, *, clock: Callable[[], float]) -> None:
        self._root = root
        self._blobs = blobs
        self._clock = clock
        self._threads = ThreadPoolExecutor(UNPACKING_AT_ONCE, thread_name_prefix="kappa-unpack")
        self._running: dict[Path, asyncio.Task[Path]] = {}

    @classmethod
    async def open(cls, root: Path, blobs: BlobStore, /, *, clock: Callable[[], float] = time.time) -> Self:
        """Open or create the folder and remove what a crash or reboot left. ``clock`` is in epoch seconds. Raises
        TreesUnavailable."""
        trees = cls(root, blobs, clock=clock)
        try:
            await asyncio.get_running_loop().run_in_executor(trees._threads, trees._prepare)
        except OSError as error:
            await trees.close()
            raise TreesUnavailable(f"{root} cannot be used: {error.strerror}") from error
        return trees

    async def task_root(self, sha256: Sha256, /) -> Path:
        """The folder with the unpacked archive, what a function sees as ``/var/task``.

        Raises BlobNotFound and BlobError, TreesUnavailable, and AWS's refusal of an archive.
        """
        return await self._shared(self._task_path(sha256), [sha256])

    async def opt_root(self, layers: Sequence[Sha256], /) -> Path | None:
        """The folder with all ``layers`` unpacked in order, later ones over earlier ones, what a function sees as ``/opt``;
        None without layers. Raises as :meth:`task_root`; InvalidParameterValueException where layers contradict each other."""
        return await self._shared(self._opt_path(layers), layers) if layers else None

    async def sweep(self, keep: Iterable[Sha256 | tuple[Sha256, ...]], /) -> list[Path]:
        """Remove the trees of all archives, and of all lists of layers (tuples), that are not in ``keep`` and were not asked for
        in the last hour; returns what went."""
        kept = {self._task_path(each) if isinstance(each, str) else self._opt_path(each) for each in keep}
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._sweep, kept)

    async def close(self) -> None:
        """Finish what is under way. Idempotent."""
        if self._running:
            await asyncio.wait(self._running.values())
        await asyncio.to_thread(self._threads.shutdown)

    async def _shared(self, path: Path, archives: Sequence[Sha256]) -> Path:
        running = self._running.get(path)
        if running is None:
            running = asyncio.get_running_loop().create_task(self._tree(path, archives))
            self._running[path] = running
            running.add_done_callback(lambda task: self._forget(path, task))
        # A caller that goes away takes the unpacking from nobody else.
        return await asyncio.shield(running)

    def _forget(self, path: Path, task: asyncio.Task[Path]) -> None:
        del self._running[path]
        if not task.cancelled():
            task.exception()  # seen here even if every caller has gone away

    async def _tree(self, path: Path, archives: Sequence[Sha256]) -> Path:
        loop = asyncio.get_running_loop()
        try:
            if await loop.run_in_executor(self._threads, self._ask, path):
                return path
            sources = [await self._blobs.local_path(sha256) for sha256 in archives]
            return await loop.run_in_executor(self._threads, self._unpack, path, sources)
        except OSError as error:
            raise TreesUnavailable(f"code cannot be unpacked to {path.parent}: {error.strerror}") from error

    def _task_path(self, sha256: Sha256) -> Path:
        return self._root / "task" / sha256

    def _opt_path(self, layers: Sequence[Sha256]) -> Path:
        return self._root / "opt" / hashlib.sha256("\n".join(layers).encode()).hexdigest()

    # -- threads ---------------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        for folder in ("task", "opt", "locks"):
            (self._root / folder).mkdir(parents=True, exist_ok=True)
        with self._lock(self._root / "boot"):
            boot = _boot_id()
            known = self._root / "boot-id"
            if not known.exists() or known.read_text() != boot:
                for tree in self._trees():
                    self._remove(tree)
                known.write_text(boot)
        self._remove_abandoned()

    def _ask(self, path: Path) -> bool:
        with self._lock(path):  # against a sweep that is just looking how old it is
            return self._touch(path)

    def _touch(self, path: Path) -> bool:
        """Whether the tree is there; notes that it was asked for."""
        try:
            os.utime(path, (self._clock(), self._clock()))
        except FileNotFoundError:
            return False
        return True

    def _unpack(self, path: Path, sources: Sequence[Path]) -> Path:
        with self._lock(path):
            if self._touch(path):
                return path  # another process was first
            with self._temporary(path.parent) as temporary:
                unpack(sources, temporary)
                temporary.rename(path)
                self._touch(path)
        return path

    @contextlib.contextmanager
    def _temporary(self, parent: Path) -> Iterator[Path]:
        """A folder that is removed unless it is renamed; locked, so that others see that its process lives."""
        folder = parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        folder.mkdir(mode=0o755)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield folder
        finally:
            remove_tree(folder)
            os.close(descriptor)

    def _sweep(self, kept: set[Path]) -> list[Path]:
        self._remove_abandoned()
        gone = []
        for tree in self._trees():
            if tree in kept:
                continue
            with self._lock(tree), contextlib.suppress(FileNotFoundError):
                if tree.stat().st_mtime < self._clock() - SPARED_SECONDS:
                    self._remove(tree)
                    gone.append(tree)
        return gone

    def _remove(self, tree: Path) -> None:
        """Take the name first, so that nobody sees half a tree."""
        nameless = tree.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
        tree.rename(nameless)
        remove_tree(nameless)

    def _trees(self) -> list[Path]:
        return [
            tree
            for folder in ("task", "opt")
            for tree in sorted((self._root / folder).iterdir())
            if not tree.name.startswith(_TEMPORARY)
        ]

    def _remove_abandoned(self) -> None:
        for folder in self._root.glob(f"*/{_TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):  # its process finished, or is at it
                if self._clock() - folder.stat().st_mtime < _ABANDONED_SECONDS:
                    continue
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(folder)
                finally:
                    os.close(descriptor)

    @contextlib.contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        # A few hundred lock files at most: by the first digits of a name, not one for each tree.
        with (self._root / "locks" / path.name[:2]).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _boot_id() -> str:
    """Differs after a reboot, where the system says so (Linux)."""
    try:
        return _BOOT_ID.read_text()
    except FileNotFoundError:
        return ""
