"""Code and layers of a pod's function: fetched by their signed links, checked against size and digest, unpacked read-only.

The digest comes over the authenticated link, so a wrong byte on the way, or another server in the gateway's place, is found here;
what an archive may contain is said by :mod:`kappa_core.archives`, which the gateway asked before it stored it. A server that is away
or busy is asked again for as long as the pod lives; a link that has expired or an archive that is not the right one is an error at
once: the next life of the container is given a new link. Runs on threads; a container that was started anew in its pod begins with
empty folders.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

from kappa_core.archives.unpack import remove_tree, unpack
from kappa_core.errors import LambdaError
from kappa_core.spec import Archive, VersionSpec
from kappa_runtime.supervisor.errors import CodeUnavailable

logger = logging.getLogger("kappa.supervisor")

TIMEOUT_SECONDS: Final = 10.0
"""Of one wait for the server."""
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
REDIRECTS: Final = 3
"""What an S3 endpoint answers for a bucket of another region."""
_CHUNK: Final = 256 * 1024
_REDIRECTING: Final = frozenset({301, 302, 303, 307, 308})


class _Again(Exception):
    """Another attempt may work; the message says what was in the way."""


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

    def place(self, spec: VersionSpec) -> None:
        """Fetch and unpack all archives of a version. Blocking. Raises CodeUnavailable, OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder, archives in ((self._task, (spec.code,) if spec.code is not None else ()), (self._opt, spec.layers)):
            if not archives:
                continue
            clear(folder)
            fetched = [self._folder / f"{number}.zip" for number, _ in enumerate(archives)]
            try:
                for path, archive in zip(fetched, archives, strict=True):
                    self._fetch(archive, path)
                unpack(fetched, folder)
            except LambdaError as error:
                raise CodeUnavailable(f"the code cannot be unpacked: {error}") from error
            finally:
                for path in fetched:
                    path.unlink(missing_ok=True)

    def _fetch(self, archive: Archive, path: Path) -> None:
        pauses = _pauses()
        said = ""
        while not self._stopped.is_set():
            try:
                return self._attempt(archive, path)
            except _Again as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("the code cannot be fetched yet: %s", error)
            self._stopped.wait(next(pauses))
        raise CodeUnavailable("the pod ends before its code has come")

    def _attempt(self, archive: Archive, path: Path) -> None:
        digest = hashlib.sha256()
        size = 0
        with _get(archive.url) as response, path.open("wb") as file:
            while size <= archive.size and (chunk := _read(response)):
                if self._stopped.is_set():
                    raise _Again("the pod ends")
                size += len(chunk)
                digest.update(chunk)
                file.write(chunk)
        if size < archive.size:
            raise _Again(f"the answer ended after {size} of {archive.size} bytes")
        if size > archive.size or digest.hexdigest() != archive.sha256:
            raise CodeUnavailable("what was fetched as the code is something else: its size or its digest is wrong")


def clear(folder: Path) -> None:
    """Remove what an earlier life of the container has left; the folder itself, a mount, stays."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            remove_tree(entry)
        else:
            entry.unlink()


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE
    while True:
        # Spread: fifty pods that start at once ask one gateway.
        yield pause * (0.5 + random.random())  # noqa: S311 - no secret
        pause = min(LONGEST_PAUSE, pause * 2)


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"the answer broke off: {error}") from error


@contextlib.contextmanager
def _get(url: str) -> Iterator[http.client.HTTPResponse]:
    """A good answer, its body not read yet. Raises _Again and CodeUnavailable."""
    for _ in range(REDIRECTS + 1):
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CodeUnavailable("the link to the code is neither http nor https")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        with contextlib.closing(kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)) as connection:
            try:
                connection.request("GET", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}")
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise _Again(f"{parts.hostname}: {str(error) or type(error).__name__}") from error
            status = response.status
            location = response.getheader("Location", "")
            if status == http.client.OK:
                yield response
                return
            if status >= http.client.INTERNAL_SERVER_ERROR or status == http.client.TOO_MANY_REQUESTS:
                raise _Again(f"{parts.hostname} answers {status}")
            if status not in _REDIRECTING or not location:
                raise CodeUnavailable(f"the code cannot be fetched: {parts.hostname} answers {status}")
            url = urljoin(url, location)
    raise CodeUnavailable("the code cannot be fetched: too many redirects")
