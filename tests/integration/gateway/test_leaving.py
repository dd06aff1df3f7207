"""A server that is told to stop while clients keep their connections: nobody's next request is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

from kappa_gateway.process import Server, bind

REQUEST = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
LONG = 30.0
"""No test waits for it: a server that leaves ends with its last connection."""


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Client:
    """One connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def get(self) -> bytes:
        """The answer's head. Raises IncompleteReadError where the connection ends without one."""
        self.writer.write(REQUEST)
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert await self.reader.readexactly(5) == b"hello"
        return head

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(events: list[str] | None = None) -> AsyncIterator[tuple[Server, Callable[[], Awaitable[Client]]]]:
    """A server and what connects to it; at the end of the block the server has been told to stop, and is waited for."""
    begun = asyncio.Event()
    with contextlib.closing(bind("127.0.0.1", 0)) as listener:
        where = listener.getsockname()
        server = Server(
            cast(Any, hello),
            quick=None,
            graceful_seconds=round(LONG),
            linger_seconds=LONG,
            on_listening=begun.set,
            on_stopping=lambda: None if events is None else events.append("stopping"),
        )
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await begun.wait()

        async def connect() -> Client:
            return Client(*await asyncio.open_connection(*where))

        yield server, connect
        await running


def test_what_clients_send_on_kept_connections_after_the_signal_is_answered_and_ends_them() -> None:
    async def scenario() -> None:
        events: list[str] = []
        async with serving(events) as (server, connect):
            clients = [await connect() for _ in range(5)]
            for client in clients:
                assert b"connection: close" not in await client.get()
            server.handle_exit(signal.SIGTERM, None)
            for client in clients:
                while b"connection: close" not in await client.get():  # until the server's own turn has noticed the signal
                    assert not events
                assert await client.reader.read() == b""
                await client.close()
        assert events == ["stopping"]

    asyncio.run(scenario())


def test_a_new_connection_during_that_time_is_served_once() -> None:
    async def scenario() -> None:
        async with serving() as (server, connect):
            kept = await connect()
            await kept.get()
            server.handle_exit(signal.SIGTERM, None)
            closing = b""
            while b"connection: close" not in closing:
                late = await connect()
                closing = await late.get()
                await late.close()
            assert b"connection: close" in await kept.get()
            await kept.close()

    asyncio.run(scenario())


def test_a_second_signal_waits_for_nobody() -> None:
    async def scenario() -> None:
        async with serving() as (server, connect):
            idle = await connect()
            await idle.get()
            server.handle_exit(signal.SIGTERM, None)
            server.handle_exit(signal.SIGTERM, None)
        assert await idle.reader.read() == b""
        await idle.close()

    asyncio.run(scenario())
