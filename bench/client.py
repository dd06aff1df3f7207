"""HTTP/1.1 clients that cost little beside what they measure: prepared request bytes, a C parser, one connection each.

`BlockingConnection` is for one request at a time, where an event loop would add to every latency; `AsyncConnection` is for many.
Both keep their connection and know no redirects, retries or TLS. Used by `bench/load.py` and the measurements, not by the product.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import httptools

_READ_BYTES = 1 << 20

AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/lambda/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=0000000000000000000000000000000000000000000000000000000000000000"
)
"""What an SDK sends: the gateway reads account and region from it. Embedded without keys, the signature itself is not checked."""


class Answer(NamedTuple):
    """One response."""

    status: int
    function_error: bool
    """Whether it carries X-Amz-Function-Error."""
    body: bytes


class ConnectionLost(Exception):
    """The server closed the connection before the response was complete."""


def invocation(function: str, *, qualifier: str | None = None) -> str:
    """The path of Invoke."""
    return f"/2015-03-31/functions/{function}/invocations" + (f"?Qualifier={qualifier}" if qualifier else "")


def request_bytes(path: str, body: bytes, *, address: tuple[str, int], headers: Mapping[str, str] | None = None) -> bytes:
    """A whole POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\n"
        f"X-Amz-Date: 20260101T000000Z\r\nAuthorization: {AUTHORIZATION}\r\nContent-Length: {len(body)}\r\n"
    )
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"{head}{more}\r\n".encode() + body


class _Response:
    """Collects one response at a time from httptools' callbacks."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._function_error = False
        self.complete = False

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def take(self) -> Answer:
        answer = Answer(self._parser.get_status_code(), self._function_error, b"".join(self._body))
        self.complete = False
        self._body = []
        self._function_error = False
        return answer

    def on_header(self, name: bytes, value: bytes) -> None:  # httptools' signature
        if len(name) == 20 and name.lower() == b"x-amz-function-error":
            self._function_error = True

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


class BlockingConnection:
    """One request at a time on a blocking socket."""

    def __init__(self, address: tuple[str, int], *, timeout: float = 60.0) -> None:
        self.address = address
        self._socket = socket.create_connection(address, timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._response = _Response()

    def exchange(self, request: bytes) -> Answer:
        """Send prepared bytes and wait for the whole response. Raises ConnectionLost, TimeoutError."""
        self._socket.sendall(request)
        response = self._response
        while not response.complete:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionLost
            response.feed(data)
        return response.take()

    def invoke(self, function: str, event: bytes) -> Answer:
        """Invoke once."""
        return self.exchange(request_bytes(invocation(function), event, address=self.address))

    def close(self) -> None:
        self._socket.close()


class AsyncConnection(asyncio.Protocol):
    """One request at a time on an event loop; `on_answer` is called with each response, None when the connection is lost."""

    def __init__(self, on_answer: Callable[[Answer | None], None]) -> None:
        self._on_answer = on_answer
        self._response = _Response()
        self._transport: asyncio.Transport | None = None
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of it

    def send(self, request: bytes) -> None:
        """Send prepared bytes; the previous response must have been answered."""
        assert self._transport is not None
        self._waiting = True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._response.feed(data)
        if self._response.complete:
            self._waiting = False
            self._on_answer(self._response.take())

    def connection_lost(self, exc: Exception | None) -> None:  # asyncio's signature
        if self._waiting:
            self._waiting = False
            self._on_answer(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class AskingConnection(AsyncConnection):
    """The same with a coroutine to wait in, where a callback per answer would be harder to read."""

    def __init__(self) -> None:
        super().__init__(self._answered)
        self._answer: asyncio.Future[Answer | None] | None = None

    async def ask(self, request: bytes) -> Answer | None:
        """Send prepared bytes; the response, or None when the connection is lost."""
        self._answer = asyncio.get_running_loop().create_future()
        self.send(request)
        return await self._answer

    def _answered(self, answer: Answer | None) -> None:
        assert self._answer is not None
        self._answer.set_result(answer)
