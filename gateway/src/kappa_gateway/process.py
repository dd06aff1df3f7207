"""The HTTP server around a gateway, on a laptop and in a cluster: the socket, uvicorn with our protocol, and the signals that end it.

The socket is bound before anything is started, so that a taken port is one line at once; requests that arrive early wait in its
backlog. It refuses to know what it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn

from kappa_gateway.asgi import Gateway
from kappa_gateway.hot.quick import QuickInvoke
from kappa_gateway.http_protocol import LambdaHttpProtocol

KEEP_ALIVE_SECONDS: Final = 65
_BACKLOG: Final = 2048


class StartError(Exception):
    """The gateway cannot start; the message is one line for the terminal."""


class Server(uvicorn.Server):
    """uvicorn's server without its habit of raising the signal again after it has stopped: we still have to close the rest.

    Parameters
    ----------
    graceful_seconds
        How long answers under way may still take after the first SIGINT or SIGTERM; a second one does not wait for them.
    on_listening, on_stopping
        Called once it serves, and with the first signal.
    """

    def __init__(
        self,
        application: Gateway,
        *,
        quick: QuickInvoke | None,
        graceful_seconds: int,
        on_listening: Callable[[], None],
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                application,
                http=LambdaHttpProtocol.with_quick(quick),
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
        self._on_listening = on_listening
        self._on_stopping = on_stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_listening()

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
        if not self.should_exit:
            self._on_stopping()
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
