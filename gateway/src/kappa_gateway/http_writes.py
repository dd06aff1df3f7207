"""uvicorn's HTTP protocol with one write per answer: head and body leave together.

uvicorn writes the head of a response as soon as ASGI says it, and the body with the next message: two system calls and two packets
for every short answer. Here what is written during one turn of the event loop is handed to the transport at its end. A streamed
response is not delayed by this: its head and its pieces still leave in the turn in which they were sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


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


class GatheringProtocol(HttpToolsProtocol):
    """uvicorn's protocol on such a transport; a value for ``uvicorn.Config(http=…)``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(GatheredWrites(transport, self.loop))  # type: ignore[arg-type]  # complete through __getattr__
