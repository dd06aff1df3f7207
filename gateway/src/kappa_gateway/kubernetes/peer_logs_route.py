"""The route by which gateways read each other's log lines: what this gateway has, and nothing that it would have to ask others for.

It believes a signature of :class:`kappa_gateway.kubernetes.peer_logs.PeerSigner` and no key or token of a caller; who may read what was
decided where the user asked. Answers are JSON lines, one event each; a follower's never ends, and has empty lines between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from kappa_core.ports.logs import LogEvent, LogStore
from kappa_gateway.kubernetes.gathered_logs import follow
from kappa_gateway.kubernetes.peer_logs import BEAT_SECONDS, PATH, PeerSigner

_encode = msgspec.json.Encoder().encode
_BATCH = 1000
"""Events that go out in one piece."""


def build_router(*, own: LogStore, signer: PeerSigner, beat_seconds: float = BEAT_SECONDS) -> APIRouter:
    """The route over this gateway's own store."""
    router = APIRouter()

    @router.get(PATH, include_in_schema=False)
    async def lines(request: Request) -> Response:
        asked = signer.checked(request.url.query)
        if asked is None:
            return JSONResponse({"message": "Gateways alone may ask this."}, status_code=403)
        wanted, follows = asked
        body = _followed(follow(own, wanted), beat_seconds) if follows else _stored(await own.read(wanted))
        return StreamingResponse(body, media_type="application/x-ndjson")

    return router


async def _stored(events: list[LogEvent]) -> AsyncIterator[bytes]:
    for first in range(0, len(events), _BATCH):
        yield b"".join(_encode(event) + b"\n" for event in events[first : first + _BATCH])


async def _followed(events: AsyncGenerator[LogEvent, None], beat_seconds: float) -> AsyncIterator[bytes]:
    yield b"\n"  # the head goes out at once
    async with aclosing(events):
        coming: asyncio.Future[LogEvent] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(events))
                done, _ = await asyncio.wait({coming}, timeout=beat_seconds)
                if not done:
                    yield b"\n"
                    continue
                finished, coming = coming, None
                try:
                    yield _encode(finished.result()) + b"\n"
                except StopAsyncIteration:
                    return
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
