"""A Runtime API for tests of bootstraps alone: hands out queued events, keeps every byte a runtime sends.

It stands where the supervisor stands, but judges nothing: no timeouts, no states, no logs. A test sees the raw answer (path, headers,
body, chunks, trailers) and can make the server misbehave. Threads, so that a test reads top to bottom.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedReader
from types import TracebackType
from typing import Any, Self

WAIT_SECONDS = 20.0
"""For an answer of the runtime; a loaded machine may be slow, a test that waits this long has failed."""

ARN = "arn:aws:lambda:us-east-1:000000000000:function:tried"


@dataclass(frozen=True)
class Sent:
    """One POST of the runtime."""

    kind: str
    """``response``, ``error`` or ``init/error``."""
    request_id: str
    headers: Mapping[str, str]
    body: bytes
    chunks: tuple[bytes, ...] = ()
    trailers: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class QueuedRuntimeApi:
    """Use as a context manager. ``piecemeal`` sends every answer in small parts, ``chunked`` with chunked transfer encoding,
    ``closing`` closes the connection after each answered POST."""

    def __init__(self, *, piecemeal: int = 0, chunked: bool = False, closing: bool = False) -> None:
        self._piecemeal = piecemeal
        self._chunked = chunked
        self._closing = closing
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent: queue.Queue[Sent] = queue.Queue()
        self.next_status = 200
        self.post_status = 202
        self.gets = 0
        """How often /next was asked for."""
        self._events: queue.Queue[tuple[dict[str, str], bytes] | None] = queue.Queue()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._numbers = 0
        self._ended = False

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended = True
        # Wakes accept(), which close() alone does not.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.disconnect()
        for _ in self._threads:
            self._events.put(None)
        for thread in self._threads:
            thread.join(WAIT_SECONDS)

    def queue_event(self, event: Any, *, headers: Mapping[str, str] | None = None, raw: bytes | None = None) -> str:
        """Queue an event (or ``raw`` bytes for its body) and return its request id."""
        self._numbers += 1
        request_id = f"00000000-0000-4000-8000-{self._numbers:012d}"
        told = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + 3000),
            "Lambda-Runtime-Invoked-Function-Arn": ARN,
            "Lambda-Runtime-Trace-Id": "Root=1-5e1b4151-5ac6c58f3ee2d8c8d0b0a0f5;Parent=53995c3f42cd8ad8;Sampled=0",
            "Content-Type": "application/json",
        } | dict(headers or {})
        self._events.put((told, json.dumps(event).encode() if raw is None else raw))
        return request_id

    def invoke(self, event: Any = None, *, headers: Mapping[str, str] | None = None, raw: bytes | None = None) -> Sent:
        """Queue an event and wait for what the runtime posts for it."""
        request_id = self.queue_event(event, headers=headers, raw=raw)
        sent = self.sent.get(timeout=WAIT_SECONDS)
        assert sent.request_id == request_id
        return sent

    def disconnect(self) -> None:
        """Close every connection, as a supervisor that dies does."""
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections.clear()

    def _start(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection.makefile("rb") as reader:
            while line := reader.readline():
                method, path, _ = line.decode().split(" ", 2)
                headers = _read_headers(reader)
                if method == "GET":
                    self.gets += 1
                    event = self._events.get()
                    if event is None:
                        return
                    self._answer(connection, self.next_status, *event)
                    continue
                sent = _read_post(reader, path, headers)
                self._answer(connection, self.post_status, {}, b'{"status":"OK"}', posted=True)
                self.sent.put(sent)
                if self._closing:
                    connection.close()
                    return

    def _answer(
        self, connection: socket.socket, status: int, headers: Mapping[str, str], body: bytes, *, posted: bool = False
    ) -> None:
        lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items())]
        if self._closing and posted:
            lines.append("Connection: close")
        if self._chunked:
            lines.append("Transfer-Encoding: chunked")
            halves = [half for half in (body[: len(body) // 2], body[len(body) // 2 :]) if half]
            body = b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves) + b"0\r\n\r\n"
        else:
            lines.append(f"Content-Length: {len(body)}")
        answer = "\r\n".join((*lines, "", "")).encode() + body
        step = self._piecemeal or len(answer)
        for start in range(0, len(answer), step):
            connection.sendall(answer[start : start + step])
            if self._piecemeal:
                time.sleep(0.0005)  # lets each part be read by itself


def _read_headers(reader: BufferedReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return headers


def _read_post(reader: BufferedReader, path: str, headers: Mapping[str, str]) -> Sent:
    parts = path.split("/")
    kind, request_id = ("init/error", "") if parts[-2:] == ["init", "error"] else (parts[-1], parts[-2])
    if headers.get("transfer-encoding") != "chunked":
        return Sent(kind, request_id, headers, reader.read(int(headers.get("content-length", "0"))))
    chunks: list[bytes] = []
    while size := int(reader.readline(), 16):
        chunks.append(reader.read(size))
        reader.readline()
    return Sent(kind, request_id, headers, b"".join(chunks), tuple(chunks), _read_headers(reader))
