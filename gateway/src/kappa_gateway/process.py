"""The HTTP server around a gateway, on a laptop and in a cluster: the socket, uvicorn with our protocol, and the signals that end it.

The socket is bound before anything is started, so that a taken port is one line at once; requests that arrive early wait in its
backlog. It refuses to know what it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn

from kappa_gateway.asgi import Gateway
from kappa_gateway.hot.quick import QuickInvoke
from kappa_gateway.http_protocol import LambdaHttpProtocol

KEEP_ALIVE_SECONDS: Final = 65
GC_THRESHOLD: Final = (20_000, 20, 50)
_BACKLOG: Final = 2048
_POLL_SECONDS: Final = 0.05


class StartError(Exception):
    """The gateway cannot start; the message is one line for the terminal."""


class Server(uvicorn.Server):
    """uvicorn's server without its habit of raising the signal again after it has stopped: we still have to close the rest.

    Parameters
    ----------
    graceful_seconds
        How long answers under way may still take after the first SIGINT or SIGTERM; a second one does not wait for them.
    linger_seconds
        How long after the first signal it still serves everything, with answers that end their connections; less once nobody is connected.
        Then connections on which nothing happens are closed.
    on_listening, on_stopping
        Called once it serves, and when that time is over.
    """

    def __init__(
        self,
        application: Gateway,
        *,
        quick: QuickInvoke | None,
        graceful_seconds: int,
        linger_seconds: float = 0.0,
        on_listening: Callable[[], None],
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        self._protocol = LambdaHttpProtocol.with_quick(quick)
        super().__init__(
            uvicorn.Config(
                application,
                http=self._protocol,
                loop="none",
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                proxy_headers=False,
                date_header=True,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=graceful_seconds,
                backlog=_BACKLOG,
            )
        )
        self._linger_seconds = linger_seconds
        self._on_listening = on_listening
        self._on_stopping = on_stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Every invocation makes and drops some dozens of small objects, none of them in cycles: the default would collect all the time.
        gc.set_threshold(*GC_THRESHOLD)
        if self.started:
            self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._see_off()
        self._on_stopping()
        await super().shutdown(sockets)

    async def _see_off(self) -> None:
        """A client that keeps its connection may be sending its next request at any time: it is answered, and told to come no more."""
        self._protocol.leave()
        for connection in self.server_state.connections:
            assert isinstance(connection, LambdaHttpProtocol)
            connection.see_off()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._linger_seconds
        # uvicorn tells nobody when its last connection ends, and waits for it in this way itself.
        while self.server_state.connections and not self.force_exit and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises StartError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        hint = ": another program uses it; choose one with --port" if error.errno == errno.EADDRINUSE else ""
        raise StartError(f"cannot listen on {host}:{port} ({error.strerror}){hint}") from None
    return listener
