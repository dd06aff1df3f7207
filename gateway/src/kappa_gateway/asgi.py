"""The outer ASGI callable: what every request meets first, and the fork between the hot path and FastAPI.

Order: the browser guard (a foreign web page gets no further), Invoke on its raw path, health and metrics, InvokeWithResponseStream, in
a cluster the archives that pods fetch, and everything else to FastAPI.
It adds the access line where asked for, and decides nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from kappa_core.errors import LambdaError
from kappa_gateway.auth.browser import BrowserGuard
from kappa_gateway.code.downloads import CodeDownloads
from kappa_gateway.hot.invoke import InvokePath
from kappa_gateway.hot.request import INVOKE, INVOKE_WITH_RESPONSE_STREAM, Receive
from kappa_gateway.hot.stream import StreamPath
from kappa_gateway.observe.access import AccessLog
from kappa_gateway.observe.metrics import CONTENT_TYPE, Metrics
from kappa_gateway.wire import REQUEST_ID_HEADER, error_response, new_request_id

Send = Callable[[dict[str, Any]], Awaitable[None]]
_ID = REQUEST_ID_HEADER.lower().encode()


class Application(Protocol):
    """FastAPI, as ASGI sees it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Gateway:
    """See the module. ``control_plane`` is called for the application once it is needed, so that a start need not wait for it."""

    def __init__(
        self,
        *,
        guard: BrowserGuard,
        invoke: InvokePath,
        stream: StreamPath,
        control_plane: Callable[[], Awaitable[Application]],
        metrics: Metrics,
        access_log: AccessLog | None,
        healthy: Callable[[], str | None],
        alive: Callable[[], str | None] | None = None,
        downloads: CodeDownloads | None = None,
    ) -> None:
        self._guard = guard
        self._invoke = invoke
        self._stream = stream
        self._control_plane = control_plane
        self._metrics = metrics
        self._access_log = access_log
        self._healthy = healthy
        """None, or why no requests should be sent here now."""
        self._alive = alive or healthy
        """None, or why the gateway will never serve again."""
        self._downloads = downloads

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # WebSocket handshakes are refused by the server when nothing is sent; lifespan is not used
        if self._access_log is None:
            await self._serve(scope, receive, send)
            return
        started, seen = time.perf_counter(), _Seen(send)
        await self._serve(scope, receive, seen)
        client = scope.get("client")
        self._access_log.write(
            method=scope["method"],
            path=scope["path"],
            status=seen.status,
            seconds=time.perf_counter() - started,
            request_id=seen.request_id,
            client=client[0] if client else "",
            now=time.time(),
        )

    async def _serve(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        try:
            self._guard.check(scope["headers"])
        except LambdaError as error:
            await _whole(send, *error_response(error, new_request_id()))
            return
        path = scope["path"]
        if INVOKE.matches(scope["method"], path):
            await self._invoke(scope, receive, send)
        elif path in {"/healthz", "/livez"}:
            trouble = self._healthy() if path == "/healthz" else self._alive()
            status, text = (200, "ok\n") if trouble is None else (503, trouble + "\n")
            await _whole(send, status, {"content-type": "text/plain; charset=utf-8"}, text.encode())
        elif path == "/metrics":
            await _whole(send, 200, {"content-type": CONTENT_TYPE}, self._metrics.render())
        elif INVOKE_WITH_RESPONSE_STREAM.matches(scope["method"], path):
            await self._stream(scope, receive, send)
        elif self._downloads is not None and self._downloads.serves(scope["method"], path):
            await self._downloads(scope, receive, send)
        else:
            application = await self._control_plane()
            await application(scope, receive, send)


class _Seen:
    """Passes messages on and remembers what the access line needs."""

    __slots__ = ("_send", "request_id", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 499  # nothing was answered: the client had gone
        self.request_id = ""

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                if name.lower() == _ID:
                    self.request_id = value.decode("latin-1")
        await self._send(message)


async def _whole(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    lines = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    lines.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
