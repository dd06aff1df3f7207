"""Code and layers of a pod's function, unpacked read-only: what came along with the function, and the rest from its signed links.

What an archive may contain is said by :mod:`kappa_core.archives`, which the gateway asked before it stored it. Runs on threads; a
container that was started anew in its pod begins with empty folders. It refuses to fetch: :mod:`.downloads` does.
"""

from __future__ import annotations

import threading
from pathlib import Path

from kappa_core.archives.unpack import remove_tree, unpack
from kappa_core.errors import LambdaError
from kappa_core.spec import Archive, VersionSpec
from kappa_runtime.supervisor.errors import CodeUnavailable


class Archives:
    """See the module. ``folder`` is where archives are kept while they are unpacked; ``task`` and ``opt`` can be written to."""

    def __init__(self, folder: Path, *, task: Path, opt: Path) -> None:
        self._folder = folder
        self._task = task
        self._opt = opt
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have what is under way fail soon."""
        self._stopped.set()

    def place(self, spec: VersionSpec, code: bytes = b"") -> None:
        """Unpack all archives of a version. ``code``: that of its code, if it came over the link. Blocking. Raises CodeUnavailable,
        OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._unpack(self._task, (spec.code,) if spec.code is not None else (), code)
        self._unpack(self._opt, spec.layers)

    def _unpack(self, folder: Path, archives: tuple[Archive, ...], first: bytes = b"") -> None:
        if not archives:
            return
        clear(folder)
        paths = [self._folder / f"{number}.zip" for number, _ in enumerate(archives)]
        try:
            for path, archive in zip(paths, archives, strict=True):
                if first:
                    path.write_bytes(first)
                    first = b""
                else:
                    self._fetch(archive, path)
            unpack(paths, folder)
        except LambdaError as error:
            raise CodeUnavailable(f"the code cannot be unpacked: {error}") from error
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    def _fetch(self, archive: Archive, path: Path) -> None:
        # What speaks HTTP takes longer to load than small code takes to be unpacked, and most code is small.
        from kappa_runtime.pod.downloads import fetch  # noqa: PLC0415

        fetch(archive, path, stopped=self._stopped)


def clear(folder: Path) -> None:
    """Remove what an earlier life of the container has left; the folder itself, a mount, stays."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(entry)
        else:
            entry.unlink()
