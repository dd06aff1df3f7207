"""Archives by their signed links: fetched into a file, checked against size and digest.

The digest comes over the authenticated link, so a wrong byte on the way, or another server in the gateway's place, is found here. A
server that is away or busy is asked again until the pod ends; a link that has expired or an archive that is not the right one is an
error at once: the next life of the container is given a new link. Blocking. A pod loads it only if its code did not come along.
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

from kappa_core.spec import Archive
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


def fetch(archive: Archive, path: Path, *, stopped: threading.Event) -> None:
    """Write the archive to ``path``. Raises CodeUnavailable, OSError of the disk."""
    pauses = _pauses()
    said = ""
    while not stopped.is_set():
        try:
            return _attempt(archive, path, stopped)
        except _Again as error:
            if str(error) != said:
                said = str(error)
                logger.warning("the code cannot be fetched yet: %s", error)
        stopped.wait(next(pauses))
    raise CodeUnavailable("the pod ends before its code has come")


def _attempt(archive: Archive, path: Path, stopped: threading.Event) -> None:
    digest = hashlib.sha256()
    size = 0
    with _get(archive.url) as response, path.open("wb") as file:
        while size <= archive.size and (chunk := _read(response)):
            if stopped.is_set():
                raise _Again("the pod ends")
            size += len(chunk)
            digest.update(chunk)
            file.write(chunk)
    if size < archive.size:
        raise _Again(f"the answer ended after {size} of {archive.size} bytes")
    if size > archive.size or digest.hexdigest() != archive.sha256:
        raise CodeUnavailable("what was fetched as the code is something else: its size or its digest is wrong")


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
