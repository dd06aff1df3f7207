"""InvokeWithResponseStream: the pieces of a response as events of one HTTP answer, as they come.

Stands behind :mod:`.path`, which has authenticated the request and found the version. Status and headers leave with the first piece, so
that what fails before it is an ordinary error; what fails after it is told in the last event, InvokeComplete. The link hands over no
more than its window before a piece has been written to the client: a slow client slows the function down, and a client that hangs up
does not stop it. It refuses to look into the response: the prelude of an HTTP integration response passes untouched.

One task per invocation runs the event, the request's own writes; both end before the request does.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from kappa_core.errors import LambdaError, ServiceException
from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_gateway.hot.event_stream import CONTENT_TYPE, EventType
from kappa_gateway.hot.path import Authenticate, Headers, HotPath, InFlight, Links, Router, Send
from kappa_gateway.hot.request import INVOKE_WITH_RESPONSE_STREAM, InvokeRequest
from kappa_gateway.hot.routes import Route

_log = logging.getLogger(__name__)

EVENT_BYTES: Final = 64 * 1024
"""Most bytes of the response in one event, and between two looks at whether the client takes them."""
STALLED_SECONDS: Final = 120.0
"""A client that takes nothing for so long has hung up without saying so."""

_PAYLOAD_CHUNK: Final = EventType("PayloadChunk", content_type="application/octet-stream")
_INVOKE_COMPLETE: Final = EventType("InvokeComplete", content_type="application/json")

Answer = tuple[frames.Result, bytes]


class _Complete(msgspec.Struct, omit_defaults=True):
    """The JSON of InvokeComplete. A function that failed has ``Unhandled`` as its code, and its error as the details."""

    ErrorCode: str = ""
    ErrorDetails: str = ""
    LogResult: str = ""


class StreamPath(HotPath):
    """POST …/response-streaming-invocations."""

    operation = INVOKE_WITH_RESPONSE_STREAM

    __slots__ = ("_stalled_seconds",)

    def __init__(
        self,
        *,
        authenticate: Authenticate,
        router: Router,
        links: Links,
        limits: Limits,
        in_flight: InFlight,
        stalled_seconds: float = STALLED_SECONDS,
    ) -> None:
        super().__init__(authenticate=authenticate, router=router, links=links, limits=limits, in_flight=in_flight)
        self._stalled_seconds = stalled_seconds

    async def _run(
        self, route: Route[Any], request: InvokeRequest, event: bytes, send: Send, *, request_id: str, started: float
    ) -> int:
        trace_id = route.enter(request.trace_id)
        version = route.choose()
        spec = version.spec or await version.make_spec()
        arriving = _Arriving()
        running = asyncio.ensure_future(
            self._links.invoke(
                spec=spec,
                function_key=route.function_key,
                reserved=route.reserved,
                invoke=frames.Invoke(
                    request_id,
                    route.function_arn,
                    trace_id,
                    request.client_context,
                    "",
                    request.tenant_id,
                    request.tail,
                    streaming=True,
                ),
                payload=event,
                on_data=arriving.take,
            )
        )
        running.add_done_callback(arriving.ended)
        headers: Headers = [
            (b"content-type", CONTENT_TYPE.encode()),
            (b"x-amzn-requestid", request_id.encode()),
            (b"x-amz-executed-version", version.label),
            (b"x-amzn-trace-id", trace_id.encode("latin-1")),
        ]
        answer = _EventAnswer(send, headers, stalled_seconds=self._stalled_seconds)
        try:
            while (piece := await arriving.next()) is not None:
                data, passed_on = piece
                await answer.chunks(data)
                passed_on(len(data))
            outcome, cold = "ok", False
            try:
                result, rest = running.result()
            except LambdaError as error:
                if not answer.begun:
                    raise
                outcome, complete = "platform_error", _Complete(error.code, error.message or "")
            except Exception:
                if not answer.begun:
                    raise
                _log.exception("invocation %s failed", request_id)
                text = f"Internal error; the gateway's log names request {request_id}."
                outcome, complete = "platform_error", _Complete(ServiceException.code, text)
            else:
                cold = result.init_ms > 0
                if result.function_error:
                    outcome, complete = "function_error", _Complete(result.function_error, rest.decode("utf-8", "replace"))
                else:
                    await answer.chunks(rest)
                    complete = _Complete()
                if request.tail:
                    complete.LogResult = base64.b64encode(result.log_tail).decode("ascii")
            route.record(outcome, time.perf_counter() - started, cold=cold)
            await answer.complete(complete)
        finally:
            running.cancel()  # only where this request was: the server stops
        return 200


class _Arriving:
    """Pieces on their way from the link to the client; the link's window bounds them."""

    __slots__ = ("_ended", "_pieces", "_waiter")

    def __init__(self) -> None:
        self._pieces: deque[tuple[bytes, Callable[[int], None]]] = deque()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def take(self, data: bytes, passed_on: Callable[[int], None], /) -> None:
        self._pieces.append((data, passed_on))
        self._wake()

    def ended(self, _: asyncio.Future[Answer], /) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> tuple[bytes, Callable[[int], None]] | None:
        """The next piece; None once there are no more."""
        while not self._pieces:
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._pieces.popleft()


class _EventAnswer:
    """The HTTP answer. Its head leaves with the first event; once the client has stalled nothing more does."""

    __slots__ = ("_headers", "_send", "_stalled", "_stalled_seconds", "begun")

    def __init__(self, send: Send, headers: Headers, *, stalled_seconds: float) -> None:
        self._send = send
        self._headers = headers
        self._stalled_seconds = stalled_seconds
        self._stalled = False
        self.begun = False

    async def chunks(self, data: bytes) -> None:
        for start in range(0, len(data), EVENT_BYTES):
            await self._write(_PAYLOAD_CHUNK.encode(data[start : start + EVENT_BYTES]), more=True)

    async def complete(self, complete: _Complete) -> None:
        await self._write(_INVOKE_COMPLETE.encode(msgspec.json.encode(complete)), more=False)

    async def _write(self, event: bytes, *, more: bool) -> None:
        if self._stalled:
            return
        try:
            async with asyncio.timeout(self._stalled_seconds):
                if not self.begun:
                    self.begun = True
                    await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
                await self._send({"type": "http.response.body", "body": event, "more_body": more})
                # The server writes at the end of the loop's turn, and says only then that the next event has to wait.
                await asyncio.sleep(0)
        except TimeoutError:
            # The answer stays incomplete, upon which the server closes the connection.
            self._stalled = True
