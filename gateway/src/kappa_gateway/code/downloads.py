"""Archives by their signed links, as plain ASGI: what pods fetch as they start does not wait for the web framework to load.

Stands before the control plane in a cluster's gateway. A link is its own permission (:mod:`.links`); an archive is sent in pieces from a
local file, never as a whole from memory. It refuses every link that is not ours or no longer good, in one sentence.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from kappa_core.link.frames import CODE_ALONG
from kappa_core.ports.blobs import BlobError, BlobNotFound, BlobStore
from kappa_core.resources import Sha256
from kappa_core.spec import VersionSpec
from kappa_gateway.code.links import CodeLinks

_log = logging.getLogger(__name__)

PREFIX: Final = "/_kappa/code/"
PIECE_BYTES: Final = 256 * 1024

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def code_along(blobs: BlobStore, spec: VersionSpec) -> bytes:
    """The archive of a version's code where it is small enough to be sent with its spec. Nothing where it is not, or cannot be read
    now: whoever gets none asks for it by its link, and hears why it is not to be had."""
    if spec.code is None or spec.code.size > CODE_ALONG:
        return b""
    try:
        return await blobs.read(Sha256(spec.code.sha256))
    except BlobError as error:
        _log.warning("archive %s cannot be sent along: %s", spec.code.sha256, error)
        return b""


class CodeDownloads:
    """See the module."""

    def __init__(self, *, blobs: BlobStore, links: CodeLinks) -> None:
        self._blobs = blobs
        self._links = links

    @staticmethod
    def serves(method: str, path: str) -> bool:
        return method in {"GET", "HEAD"} and path.startswith(PREFIX)

    async def __call__(self, scope: Mapping[str, Any], receive: object, send: Send) -> None:
        sha256 = scope["path"][len(PREFIX) :]
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        if not self._links.valid(sha256, expires=query.get("expires", ""), signature=query.get("signature", "")):
            await _say(send, 403, "This link is not valid, or no longer; GetFunction makes a new one.")
            return
        try:
            path = await self._blobs.local_path(Sha256(sha256))
        except BlobNotFound:
            await _say(send, 404, "The archive is gone.")
        except BlobError as error:
            _log.warning("archive %s cannot be sent: %s", sha256, error)
            await _say(send, 503, "The archive cannot be read now.")
        else:
            await _send_file(send, path, body=scope["method"] == "GET")


async def _send_file(send: Send, path: Path, *, body: bool) -> None:
    with path.open("rb") as file:  # open before the head: a copy that is swept meanwhile stays readable
        size = os.fstat(file.fileno()).st_size
        headers = [(b"content-type", b"application/zip"), (b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while body and (piece := await asyncio.to_thread(file.read, PIECE_BYTES)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _say(send: Send, status: int, message: str) -> None:
    text = msgspec.json.encode({"message": message})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
