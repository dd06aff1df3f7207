"""The Lambda Runtime API of one environment: an HTTP/1.1 server on a loopback port of its own.

It listens before the runtime is started and until the environment ends. It knows the wire and the states of one exchange (waiting
for an event, running one, answered); what an answer means for the invocation is the lifecycle's, told through the Listener.

Three rules keep official clients alive (they exit, or crash, on what looks harmless): ``/next`` is answered with 200 or not at
all; a parked ``/next`` is never closed; a client that dies on a refused POST is answered 202 and the refusal only counts here.
A response over the limit is read to its end and discarded. A web page in a browser on this machine gets 403, whatever it asks.

The warm path: a bootstrap that posts its result and asks for the next event in one write gets both answers in one write, too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import socket
from typing import Final, Protocol, cast

import httptools
import msgspec

from kappa_core.limits import STREAMED_RESPONSE_BYTES
from kappa_core.link.frames import Invoke
from kappa_runtime.supervisor import http_answers as answers
from kappa_runtime.supervisor.response_stream import ResponseStream

HEADER_BYTES: Final = 1024 * 1024 + 64 * 1024
"""Clients put up to 1 MiB of X-Ray error cause into a header."""
_ERROR_TYPE: Final = re.compile(r"(Runtime|Function)\.[A-Z][A-Za-z]+")
_RUNTIME: Final = b"/2018-06-01/runtime/"
_INVOCATION: Final = _RUNTIME + b"invocation/"
_NEXT: Final = _INVOCATION + b"next"
_DIES_ON_REFUSAL: Final = b"aws-lambda-python"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime posted for the invocation that it had been given."""

    body: bytes
    content_type: str = "application/json"
    failed: bool = False
    """Posted to ``/error``, or a stream that ended with an error in its trailers."""
    error_type: str = ""
    too_large: int = 0
    """How many bytes it was allowed to have, if it had more."""


class Listener(Protocol):
    """The lifecycle of the environment. Called from the event loop; must not raise."""

    def runtime_waits(self) -> None: ...
    def init_failed(self, body: bytes, error_type: str) -> None: ...
    def answered(self, answer: Answer) -> None: ...
    def stream_started(self, stream: ResponseStream, content_type: str) -> bool:
        """Whether the response is wanted as it comes; otherwise it is collected."""
        ...

    def response_broken(self) -> None:
        """The connection ended inside a response."""
        ...


class RuntimeApi:
    """The server. ``port`` is known after ``listen``."""

    def __init__(
        self, listener: Listener, *, response_bytes: int, streamed_response_bytes: int = STREAMED_RESPONSE_BYTES
    ) -> None:
        self.listener = listener
        self.response_bytes = response_bytes
        self.streamed_response_bytes = streamed_response_bytes
        self.port = 0
        self.hosts: frozenset[bytes] = frozenset()
        self.parked: Connection | None = None
        self.initialised = False
        """Since the runtime was started last, it has asked for an event."""
        self.running = b""
        """Path prefix of the invocation that has no answer yet."""
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._arn = ""
        self._head = b""
        self._usual_tail = b""
        self.usual_start = b""
        """With this begins, and with ``usual_end`` ends, what Kappa's own bootstraps send after most events."""
        self.usual_end = b""

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        # Bound here: given a name, even this one, the loop starts a thread to resolve it, which takes milliseconds of every cold start.
        listening = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._server = await loop.create_server(lambda: Connection(self), sock=listening, backlog=16)
        self.port = self._server.sockets[0].getsockname()[1]
        rest = f" HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
        self._usual_tail = f"response{rest}Content-Type: application/json\r\nContent-Length: ".encode()
        self.usual_end = b"GET " + _NEXT + rest.encode() + b"\r\n"
        self.hosts = frozenset(
            f"{host}:{self.port}".encode() for host in ("127.0.0.1", "localhost", "sandbox.localdomain", "sandbox")
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def deliver(self, invoke: Invoke, payload: bytes, deadline_ms: int) -> None:
        """Answer the parked ``/next`` with this event."""
        connection = self.parked
        assert connection is not None, "nothing is parked"
        self.parked = None
        running = self.running = _INVOCATION + invoke.request_id.encode() + b"/"
        self.usual_start = b"POST " + running + self._usual_tail
        if invoke.function_arn != self._arn:
            self._arn = invoke.function_arn
            self._head = (
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Invoked-Function-Arn: {self._arn}\r\n"
                "Lambda-Runtime-Aws-Request-Id: "
            ).encode()
        head = f"{invoke.request_id}\r\nLambda-Runtime-Deadline-Ms: {deadline_ms}\r\nContent-Length: {len(payload)}\r\n"
        if invoke.trace_id:
            head += f"Lambda-Runtime-Trace-Id: {_one_line(invoke.trace_id)}\r\n"
        if invoke.client_context:
            head += f"Lambda-Runtime-Client-Context: {_one_line(invoke.client_context)}\r\n"
        if invoke.cognito_identity:
            head += f"Lambda-Runtime-Cognito-Identity: {_one_line(invoke.cognito_identity)}\r\n"
        if invoke.tenant_id:
            head += f"Lambda-Runtime-Aws-Tenant-Id: {_one_line(invoke.tenant_id)}\r\n"
        connection.send_event(b"".join((self._head, head.encode(), b"\r\n", payload)))

    def restart(self) -> None:
        """The runtime has been ended: forget its connections and what it ran."""
        self.parked = None
        self.running = b""
        self.initialised = False
        for connection in list(self._connections):
            connection.abort()
        self._connections.clear()

    async def close(self) -> None:
        self.restart()
        if self._server is not None:
            self._server.close()
            self._server = None

    # -- told by connections ---------------------------------------------------------------------------------------
    def joined(self, connection: Connection) -> None:
        self._connections.add(connection)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if self.parked is connection:
            self.parked = None

    def park(self, connection: Connection) -> None:
        # A second /next while one is parked cannot be refused (see the module); the last one that asked gets the event.
        self.parked = connection
        self.initialised = True
        if not self.running:
            self.listener.runtime_waits()


def _one_line(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


_HEADER_SLOTS: Final = {
    b"content-type": "content_type",
    b"expect": "expect",
    b"host": "host",
    b"lambda-runtime-function-error-type": "error_type",
    b"lambda-runtime-function-error-body": "error_body",
    b"lambda-runtime-function-response-mode": "mode",
    b"origin": "origin",
    b"sec-fetch-site": "origin",
    b"user-agent": "agent",
}


class Connection(asyncio.Protocol):
    """One connection of the runtime, or of one of its threads."""

    content_type = expect = host = error_type = error_body = mode = origin = agent = b""

    def __init__(self, api: RuntimeApi) -> None:
        self._api = api
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._out = b""
        self._url = b""
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._size = 0
        self._limit = 0
        self._refusal = b""
        self._mine = False
        """This request is the answer to the running invocation."""
        self._in_request = False
        self._stream: ResponseStream | None = None
        self._closing = False

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._api.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        api = self._api
        api.left(self)
        self._transport = None
        if self._stream is not None:
            self._stream.end()
            self._stream = None
        if self._in_request and self._mine and api.running:
            api.listener.response_broken()

    def data_received(self, data: bytes) -> None:
        api = self._api
        if not self._in_request and api.running and data.startswith(api.usual_start) and self._take_usual(data):
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # Not HTTP, or a request that asks to become something else. A runtime that does this is told so and cut off.
            self._out += answers.MALFORMED
            self._closing = True
        if self._out and (api.parked is not self or self._closing):
            self._write_out()

    def _take_usual(self, data: bytes) -> bool:
        """A result and the question for the next event, byte for byte as our bootstraps send them: no parser needed."""
        api = self._api
        start = len(api.usual_start)
        split = data.find(b"\r\n\r\n", start, start + 12)
        if split < 0 or not data[start:split].isdigit():
            return False
        body, end = split + 4, split + 4 + int(data[start:split])
        if end - body > api.response_bytes or data[end:] != api.usual_end:
            return False
        api.running = b""
        self._out += answers.ACCEPTED
        api.listener.answered(Answer(body=data[body:end]))
        api.park(self)
        return True

    def eof_received(self) -> bool | None:
        return False

    def pause_writing(self) -> None:
        """An event of at most 6 MB is given to the kernel as a whole; nothing else follows before it is read."""

    # -- sending ---------------------------------------------------------------------------------------------------
    def _write_out(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._out:
            transport.write(self._out)
            self._out = b""
        if self._closing:
            transport.close()

    def send_event(self, event: bytes) -> None:
        if self._transport is not None:
            self._transport.write(self._out + event if self._out else event)
            self._out = b""

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- httptools -------------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self._url = b""
        self._header_bytes = 0
        self._mine = False
        self._refusal = b""
        self._in_request = True
        self.content_type = self.expect = self.host = self.error_type = self.error_body = self.mode = self.origin = self.agent = (
            b""
        )

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        slot = _HEADER_SLOTS.get(name.lower())
        if slot is not None:
            setattr(self, slot, value)

    def on_headers_complete(self) -> None:
        api = self._api
        if self._body:
            self._body = []
        self._size = 0
        self._limit = api.response_bytes
        if self.origin or (self.host and self.host not in api.hosts) or self._header_bytes > HEADER_BYTES:
            self._refusal = answers.FORBIDDEN
            return
        url = self._url
        if api.running and url.startswith(api.running):
            self._mine = True
            if self.mode and url.endswith(b"/response"):
                self._begin_mode()
        if self.expect.lower() == b"100-continue" and self._transport is not None:
            self._transport.write(self._out + answers.CONTINUE)
            self._out = b""

    def _begin_mode(self) -> None:
        if self.mode.lower() != b"streaming":
            self._refusal = answers.INVALID_RESPONSE_MODE
            self._mine = False
            return
        stream = ResponseStream(self._pause, self._resume)
        if self._api.listener.stream_started(stream, self.content_type.decode("latin-1")):
            self._stream = stream
            self._limit = self._api.streamed_response_bytes

    def on_body(self, body: bytes) -> None:
        before = self._size
        self._size += len(body)
        if self._size > self._limit or self._refusal:
            if self._body:
                self._body = []  # read on and forget
            if self._stream is not None and before < self._limit:
                self._stream.push(body[: self._limit - before])
        elif self._stream is not None:
            self._stream.push(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._in_request = False
        if not self._parser.should_keep_alive():
            self._closing = True
        if self._refusal:
            self._out += self._refusal
        elif self._url == _NEXT:
            if self._parser.get_method() == b"GET":
                self._api.park(self)
            else:
                self._out += answers.METHOD_NOT_ALLOWED
        elif self._mine:
            self._answer()
        else:
            self._out += self._other()
        self._body = []

    def _pause(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    # -- routes ----------------------------------------------------------------------------------------------------
    def _answer(self) -> None:
        api = self._api
        url = self._url
        what = url[len(api.running) :]
        if what not in (b"response", b"error") or self._parser.get_method() != b"POST":
            self._out += answers.NOT_FOUND
            return
        api.running = b""
        self._out += answers.ACCEPTED
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        too_large = self._limit if self._size > self._limit else 0
        content_type = self.content_type.decode("latin-1") or "application/json"
        if self._stream is not None:
            self._stream.end()
            self._stream = None
        if self.mode and (self.error_type or self.error_body):
            answer = self._trailed(content_type)
        elif what == b"error":
            answer = Answer(body=body, content_type=content_type, failed=True, error_type=self._named("Function.Unknown"))
        else:
            answer = Answer(body=b"" if too_large else body, content_type=content_type, too_large=too_large)
        api.listener.answered(answer)

    def _trailed(self, content_type: str) -> Answer:
        """A stream that failed on the way: type and base64 of the error JSON in the trailers."""
        try:
            body = base64.b64decode(self.error_body, validate=True)
        except (binascii.Error, ValueError):
            body = self.error_body
        return Answer(body=body, content_type=content_type, failed=True, error_type=self._named("Function.Unknown"))

    def _named(self, otherwise: str) -> str:
        text = self.error_type.decode("latin-1")
        return text if _ERROR_TYPE.fullmatch(text) else otherwise

    def _other(self) -> bytes:
        api = self._api
        method, url = self._parser.get_method(), self._url
        if url.startswith(_INVOCATION):
            # Unknown, answered already, or of an invocation that has timed out since.
            return answers.ACCEPTED if self.agent.startswith(_DIES_ON_REFUSAL) else answers.INVALID_REQUEST_ID
        if url == b"/2018-06-01/ping":
            return answers.PONG
        if url == _RUNTIME + b"init/error":
            if method != b"POST":
                return answers.METHOD_NOT_ALLOWED
            if api.initialised:
                return answers.ACCEPTED if self.agent.startswith(_DIES_ON_REFUSAL) else answers.INIT_ERROR_TOO_LATE
            api.listener.init_failed(b"".join(self._body), self._named("Runtime.Unknown"))
            return answers.ACCEPTED
        if url.startswith(_RUNTIME + b"restore/"):
            return answers.NO_RESTORE
        if url.startswith(b"/2020-01-01/extension/"):
            return answers.NO_EXTENSIONS
        if url.startswith(b"/2022-07-01/telemetry"):
            return answers.NO_TELEMETRY
        if url.startswith(b"/2020-08-15/logs"):
            return answers.NO_LOGS
        return answers.NOT_FOUND
