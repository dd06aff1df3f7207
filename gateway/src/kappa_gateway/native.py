"""Kappa's own routes beside the Lambda API, under ``/_kappa/``: function logs as lines, and signed code downloads.

They stand behind the same door as everything else (host check, keys where required); a code link carries its own signature,
because whoever follows ``Code.Location`` sends no other.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from typing import Final
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from kappa_core.ports.blobs import BlobNotFound, BlobStore
from kappa_core.ports.logs import LogEvent, LogGroup, LogStore
from kappa_core.resources import AccountId, Region, Sha256

CODE_LINK_SECONDS: Final = 600  # AWS's links live ten minutes: docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html
_encode = msgspec.json.Encoder().encode

Scope = Callable[[Request], tuple[AccountId, Region]]
"""Account and region that a request speaks for."""


class CodeLinks:
    """Makes and checks links to archives. ``secret`` stays the same over restarts, so that a link survives one."""

    def __init__(self, secret: bytes, *, now: Callable[[], float]) -> None:
        self._secret = secret
        self._now = now

    def path(self, sha256: Sha256, *, name: str) -> str:
        """Path and query of a link that works for CODE_LINK_SECONDS."""
        expires = int(self._now()) + CODE_LINK_SECONDS
        return f"/_kappa/code/{sha256}?expires={expires}&name={quote(name, safe='')}&signature={self._sign(sha256, expires)}"

    def valid(self, sha256: str, expires: str, signature: str) -> bool:
        """Whether a link is ours and not yet expired."""
        if not expires.isascii() or not expires.isdigit() or len(expires) > 12 or int(expires) < self._now():
            return False
        return hmac.compare_digest(self._sign(sha256, int(expires)), signature)

    def _sign(self, sha256: str, expires: int) -> str:
        return hmac.new(self._secret, f"code/{sha256}/{expires}".encode(), hashlib.sha256).hexdigest()


def build_router(*, blobs: BlobStore, logs: LogStore, links: CodeLinks, scope: Scope) -> APIRouter:
    """The routes over their ports."""
    router = APIRouter(prefix="/_kappa", tags=["Kappa"])

    @router.get("/code/{sha256}", summary="Download an archive by a signed link")
    async def code(sha256: str, expires: str = "", signature: str = "", name: str = "code") -> Response:
        if not links.valid(sha256, expires, signature):
            return JSONResponse(
                {"message": "This link is not valid, or no longer; GetFunction makes a new one."}, status_code=403
            )
        try:
            path = await blobs.local_path(Sha256(sha256))
        except BlobNotFound:
            return JSONResponse({"message": "The archive is gone."}, status_code=404)
        return FileResponse(path, media_type="application/zip", filename=f"{name}.zip")

    @router.get("/logs/{function}", summary="Log events of a function as JSON lines")
    async def function_logs(
        request: Request, function: str, start: int | None = None, follow: bool = False, request_id: str | None = None
    ) -> Response:
        account, region = scope(request)
        group = LogGroup(account, region, function if function.startswith("/") else f"/aws/lambda/{function}")
        stored = logs.follow(group, start_ms=start) if follow else _stored(logs, group, start_ms=start)
        return StreamingResponse(_lines(stored, request_id), media_type="application/x-ndjson")

    return router


async def _stored(logs: LogStore, group: LogGroup, *, start_ms: int | None) -> AsyncIterator[LogEvent]:
    last = None
    while True:
        page = await logs.read(group, start_ms=start_ms, after_event_id=last)
        for event in page:
            yield event
        if not page:
            return
        last = page[-1].event_id


async def _lines(events: AsyncIterator[LogEvent], request_id: str | None) -> AsyncIterator[bytes]:
    async for event in events:
        if request_id is None or event.request_id == request_id:
            yield _encode(event) + b"\n"
