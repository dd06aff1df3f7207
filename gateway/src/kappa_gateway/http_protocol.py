"""uvicorn's HTTP protocol with one write per answer, and with bounds on what a client may send before it is known.

uvicorn writes the head of a response as soon as ASGI says it, and the body with the next message: two system calls and two packets
for every short answer. Here what is written during one turn of the event loop is handed to the transport at its end. A streamed
response is not delayed by this: its head and its pieces still leave in the turn in which they were sent.

httptools keeps headers of any size and waits for them for ever. Here a request's head may have HEAD_BYTES and take HEAD_SECONDS.

The usual Invoke does not go through ASGI at all: :class:`LambdaHttpProtocol` offers it to :mod:`kappa_gateway.hot.quick`, which takes
it or declines it. What is declined becomes uvicorn's as if nothing had been. For that an :class:`_Exchange` stands where uvicorn keeps the
cycle of the current request, so that pipelining, shutdown and lost connections work as they do for every other request.

A server that is about to stop says so with every answer (``connection: close``) before it closes connections on which nothing happens:
on those a client may be sending its next request, which a close would lose.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kappa_gateway.hot.quick import QUICK_BYTES, QuickInvoke, target_of

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

HEAD_BYTES: Final = 64 * 1024
"""More than any AWS client sends: a client context has 3,583 bytes, a signed session token a few KB."""
HEAD_SECONDS: Final = 30.0
_DIGITS: Final = len(str(QUICK_BYTES)) + 1
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class GatheredWrites:
    """A transport that gathers writes until the end of the loop's turn. What it does not define is the real transport's."""

    __slots__ = ("_call_soon", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._parts: list[bytes] = []

    def write_at_once(self, data: bytes) -> None:
        """A whole answer: nothing is to be gathered with it."""
        if self._parts:
            self._parts.append(data)
        else:
            self._transport.write(data)

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


class _Exchange:
    """An Invoke on the short way, in the place of uvicorn's RequestResponseCycle: what the protocol reads and writes of one."""

    __slots__ = ("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete", "started")

    def __init__(self, *, keep_alive: bool) -> None:
        self.body = b""
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.started = False
        """Taken: nothing can be declined any more."""
        self.message_event = self

    def set(self) -> None:
        """Of uvicorn's event that more of the body is there: nobody waits for it here."""


class LambdaHttpProtocol(HttpToolsProtocol):
    """See the module; a value for ``uvicorn.Config(http=…)``. :meth:`with_quick` makes the class that knows the short way."""

    _quick: QuickInvoke | None = None
    _head_bytes = 0
    """Of a head that is not complete yet."""
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None
    _announced = b""
    """Content-Length, as it came."""
    _exchange: _Exchange | None = None
    """The request that is being read, as long as it may take the short way."""
    _before: RequestResponseCycle | None = None
    """What stood in its place."""
    _idle_since = 0.0
    _idle_timer: asyncio.TimerHandle | None = None
    _leaving = False
    """Every answer is the last one of its connection. Of the class that :meth:`with_quick` made: new connections learn it, too."""

    @classmethod
    def leave(cls) -> None:
        """From now on every answer ends its connection. Answers under way: :meth:`see_off`."""
        cls._leaving = True

    @classmethod
    def with_quick(cls, quick: QuickInvoke | None) -> type[LambdaHttpProtocol]:
        """The protocol of a gateway: uvicorn makes its instances itself."""
        return type("LambdaHttpProtocol", (cls,), {"_quick": quick})

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

    # -- the parser's callbacks ---------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self.url = b""
        self.headers = []
        self._announced = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self._announced = value
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if (
            self._quick is not None
            and (self.cycle is None or self.cycle.response_complete)  # type: ignore[redundant-expr]  # None at first
            and target_of(self.url) is not None
            and len(self._announced) < _DIGITS  # more is refused on the long way, before any of it has come
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.flow.write_paused
        ):
            self._before = self.cycle
            keep_alive = self.parser.should_keep_alive() and not self._leaving
            self._exchange = self.cycle = _Exchange(keep_alive=keep_alive)  # type: ignore[assignment]
        else:
            self._long_way()

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            super().on_body(body)
            return
        exchange.body += body
        if len(exchange.body) > QUICK_BYTES:
            self._declined(exchange)

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            super().on_message_complete()
            return
        assert self._quick is not None
        self._exchange = None
        exchange.more_body = False

        def finish(head: bytes, body: bytes) -> None:
            self._finish(exchange, head, body)

        if not self._quick.begin(self.url, self.headers, exchange.body, finish):
            self._declined(exchange)
            super().on_message_complete()

    # -- the short way ------------------------------------------------------------------------------------------------
    def _long_way(self) -> None:
        """From here on the request is uvicorn's."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers += headers  # the same list as in the scope
        self.expect_100_continue = any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def _declined(self, exchange: _Exchange) -> None:
        self._exchange = None
        self.cycle = self._before  # type: ignore[assignment]
        self._long_way()
        if exchange.body:
            super().on_body(exchange.body)

    def _finish(self, exchange: _Exchange, head: bytes, body: bytes) -> None:
        exchange.response_complete = True
        transport: Any = self.transport
        if exchange.disconnected or transport.is_closing():
            return
        lines = b"".join([b"%b: %b\r\n" % line for line in self.server_state.default_headers])
        if exchange.keep_alive:
            transport.write_at_once(b"%b%b\r\n%b" % (head, lines, body))
        else:
            transport.write_at_once(b"%b%bconnection: close\r\n\r\n%b" % (head, lines, body))
            transport.close()
            return
        self.server_state.total_requests += 1
        if self.pipeline:
            self.on_response_complete()
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_at(self._idle_since + self.timeout_keep_alive, self._idle)

    def _idle(self) -> None:
        """One timer for the connection instead of one per request: it looks when the last answer was."""
        self._idle_timer = None
        if self.timeout_keep_alive_task is not None or self.transport.is_closing():
            return  # uvicorn's own runs, since a request that went the long way
        if not self.cycle.response_complete:
            return  # at work; its end sets the next timer
        at = self._idle_since + self.timeout_keep_alive
        if at <= self.loop.time():
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_at(at, self._idle)

    # -- ends ---------------------------------------------------------------------------------------------------------
    def see_off(self) -> None:
        """The answer under way is the connection's last; without one it stays open for a request that is on its way."""
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]  # None at first
            self.cycle.keep_alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._idle_timer = None
        super().connection_lost(exc)

    def _head_takes_too_long(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()
