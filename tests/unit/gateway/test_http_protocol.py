"""What is written in one turn of the loop leaves in one write, and a request's head is bounded in size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from http_wire import Wire
from kappa_gateway import http_protocol
from kappa_gateway.http_protocol import HEAD_BYTES, LambdaHttpProtocol


async def answer(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def connected(made: type[LambdaHttpProtocol] = LambdaHttpProtocol) -> tuple[LambdaHttpProtocol, Wire]:
    config = uvicorn.Config(cast(Any, answer), lifespan="off", access_log=False, log_config=None)
    config.load()
    protocol = made(config=config, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop())
    wire = Wire()
    protocol.connection_made(wire)
    return protocol, wire


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_head_and_body_of_an_answer_leave_in_one_write() -> None:
    async def scenario() -> None:
        protocol, wire = connected()
        protocol.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await turns()
        assert len(wire.writes) == 1
        assert wire.writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
        assert wire.writes[0].endswith(b"\r\n\r\nok")
        protocol.connection_lost(None)

    asyncio.run(scenario())


def test_a_head_over_the_bound_is_refused_and_the_connection_closed() -> None:
    async def scenario() -> None:
        protocol, wire = connected()
        protocol.data_received(b"GET / HTTP/1.1\r\n")
        for _ in range(HEAD_BYTES // 1000 + 1):
            protocol.data_received(b"x-more: " + b"x" * 990 + b"\r\n")
        await turns()
        assert b"".join(wire.writes).startswith(b"HTTP/1.1 431 ")
        assert wire.closed
        protocol.connection_lost(None)

    asyncio.run(scenario())


def test_a_large_body_is_no_large_head() -> None:
    async def scenario() -> None:
        protocol, wire = connected()
        protocol.data_received(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n" + b"x" * 100_000)
        protocol.data_received(b"x" * 100_000)
        await turns()
        assert wire.writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
        assert not wire.closed
        protocol.connection_lost(None)

    asyncio.run(scenario())


def test_a_head_that_takes_too_long_ends_the_connection_and_a_complete_one_does_not(monkeypatch: Any) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.0)
        slow, wire = connected()
        slow.data_received(b"GET / HT")
        await turns()
        assert wire.closed
        slow.connection_lost(None)
        whole, wire = connected()
        whole.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await turns()
        assert not wire.closed
        whole.connection_lost(None)

    asyncio.run(scenario())


def test_a_request_on_an_idle_connection_of_a_server_that_leaves_is_answered_and_is_the_last() -> None:
    async def scenario() -> None:
        made = LambdaHttpProtocol.with_quick(None)
        protocol, wire = connected(made)
        protocol.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await turns()
        assert b"connection: close" not in wire.written
        made.leave()
        protocol.see_off()
        assert not wire.closed
        protocol.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await turns()
        assert len(wire.writes) == 2
        assert b"connection: close\r\n" in wire.writes[1]
        assert wire.writes[1].endswith(b"ok")
        assert wire.closed
        protocol.connection_lost(None)

    asyncio.run(scenario())


def test_an_answer_under_way_in_a_server_that_leaves_ends_its_connection() -> None:
    async def scenario() -> None:
        made = LambdaHttpProtocol.with_quick(None)
        protocol, wire = connected(made)
        protocol.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        made.leave()
        protocol.see_off()
        await turns()
        assert b"connection: close\r\n" in wire.written
        assert wire.closed
        protocol.connection_lost(None)

    asyncio.run(scenario())


def test_only_the_server_that_leaves_ends_its_connections() -> None:
    async def scenario() -> None:
        LambdaHttpProtocol.with_quick(None).leave()
        protocol, wire = connected(LambdaHttpProtocol.with_quick(None))
        protocol.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        await turns()
        assert wire.writes
        assert not wire.closed
        protocol.connection_lost(None)

    asyncio.run(scenario())
