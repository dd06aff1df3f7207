"""uvicorn's HTTP protocol with one write per answer, and with bounds on what a client may send before it is known.

uvicorn writes the head of a response as soon as ASGI says it, and the body with the next message: two system calls and two packets
for every short answer. Here what is written during one turn of the event loop is handed to the transport at its end. A streamed
response is not delayed by this: its head and its pieces still leave in the turn in which they were sent.

httptools keeps headers of any size and waits for them for ever. Here a request's head may have HEAD_BYTES and take HEAD_SECONDS.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 64 * 1024
"""More than any AWS client sends: a client context has 3,583 bytes, a signed session token a few KB."""
HEAD_SECONDS: Final = 30.0
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class GatheredWrites:
    """A transport that gathers writes until the end of the loop's turn. What it does not define is the real transport's."""

    __slots__ = ("_call_soon", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._flush()
        self._transport.set_protocol(protocol)

    def _flush(self) -> None:
        parts = self._parts
        if parts and not self._transport.is_closing():
            self._transport.writelines(parts)
        self._parts = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class LambdaHttpProtocol(HttpToolsProtocol):
    """See the module; a value for ``uvicorn.Config(http=…)``."""

    _head_bytes = 0
    """Of a head that is not complete yet."""
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(GatheredWrites(transport, self.loop))  # type: ignore[arg-type]  # complete through __getattr__
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_takes_too_long)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head:
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            if not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_takes_too_long)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)

    def _head_takes_too_long(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()
