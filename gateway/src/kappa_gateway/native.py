"""Kappa's own routes beside the Lambda API, under ``/_kappa/``: function logs as lines, and signed code downloads.

They stand behind the same door as everything else (host check, keys where required) and refuse in the form of the Lambda API's
errors; a code link carries its own signature, because whoever follows ``Code.Location`` sends no other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from kappa_core.errors import LambdaError
from kappa_core.ports.blobs import BlobNotFound, BlobStore
from kappa_core.ports.logs import PAGE, LogEvent, LogGroup, LogQuery, LogReader
from kappa_core.resources import AccountId, Region, Sha256
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.wire import error_response, new_request_id

LAST_MS: Final = 1 << 53
"""Milliseconds since the epoch that every JSON reader can hold; beyond any log line and within a column of the log store."""

READ_LOGS: Final = "ReadLogs"
"""The action of the route for logs."""

MISSING: Final = "x-kappa-logs-missing"
"""Header that names, separated by commas, the gateways whose lines an answer lacks because they do not answer."""

_encode = msgspec.json.Encoder().encode

Scope = Callable[[Request, str, str], Awaitable[tuple[AccountId, Region]]]
"""Account and region that a request speaks for, if its caller may do this: an action, such as ReadLogs, and the function's name."""


def build_router(*, blobs: BlobStore, logs: LogReader, links: CodeLinks, scope: Scope) -> APIRouter:
    """The routes over their ports."""
    router = APIRouter(prefix="/_kappa", tags=["Kappa"])

    @router.get("/code/{sha256}", summary="Download an archive by a signed link")
    async def code(sha256: str, expires: str = "", signature: str = "", name: str = "code") -> Response:
        if not links.valid(sha256, expires=expires, signature=signature):
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
        request: Request,
        function: str,
        start: Annotated[int | None, Query(ge=0, le=LAST_MS)] = None,
        follow: bool = False,
        request_id: str | None = None,
    ) -> Response:
        try:
            account, region = await scope(request, READ_LOGS, function)
        except LambdaError as error:
            status, headers, body = error_response(error, new_request_id())
            return Response(body, status_code=status, headers=headers)
        group = LogGroup(account, region, function if function.startswith("/") else f"/aws/lambda/{function}")
        # A first look, so that the head can say what the answer will lack.
        first = await logs.read(LogQuery(group, start_ms=start, limit=1 if follow else PAGE))
        headers = {MISSING: ",".join(sorted(logs.missing))} if logs.missing else {}
        found = logs.follow(group, start_ms=start) if follow else _stored(logs, group, first, start_ms=start)
        return StreamingResponse(_lines(found, request_id), media_type="application/x-ndjson", headers=headers)

    return router


async def _stored(logs: LogReader, group: LogGroup, page: list[LogEvent], *, start_ms: int | None) -> AsyncIterator[LogEvent]:
    """``page`` and what comes behind it."""
    while page:
        for event in page:
            yield event
        page = await logs.read(LogQuery(group, start_ms=start_ms, after_event_id=page[-1].event_id, limit=PAGE))


async def _lines(events: AsyncIterator[LogEvent], request_id: str | None) -> AsyncIterator[bytes]:
    async for event in events:
        if request_id is None or event.request_id == request_id:
            yield _encode(event) + b"\n"
