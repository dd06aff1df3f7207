"""``kappa dev``: the process around the embedded gateway. Listens, prints the banner, serves, and stops everything within two seconds.

The socket is bound before anything is started, so that a taken port is one line at once; requests that arrive early wait in its
backlog. It refuses to decide anything about functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
import uvloop

from kappa_core.ports.blobs import BlobError
from kappa_core.ports.store import StoreError
from kappa_gateway.embedded.banner import banner
from kappa_gateway.embedded.data_dir import DataDir, DataDirError
from kappa_gateway.embedded.gateway import EmbeddedGateway
from kappa_gateway.http_protocol import LambdaHttpProtocol
from kappa_gateway.links.server import ListenError
from kappa_gateway.settings import Settings, is_loopback

STOP_SECONDS: Final = 1.0
"""How long answers under way may still take after Ctrl-C; functions that run longer are cut off."""
KEEP_ALIVE_SECONDS: Final = 65
_BACKLOG: Final = 2048
GC_THRESHOLD: Final = (20_000, 20, 50)


class StartError(Exception):
    """The gateway cannot start; the message is one line for the terminal."""


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartError."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    listener = _bind(settings.host, settings.port)
    with contextlib.closing(listener):
        try:
            data_dir = DataDir(settings.data_dir, shared=bool(settings.peers or settings.scaler))
        except DataDirError as error:
            raise StartError(str(error)) from None
        with contextlib.closing(data_dir):
            try:
                uvloop.run(_serve(settings, data_dir, listener))
            except (StoreError, BlobError, ListenError) as error:
                raise StartError(str(error)) from None


async def _serve(settings: Settings, data_dir: DataDir, listener: socket.socket) -> None:
    endpoint = _endpoint(settings.host, listener)
    gateway = await EmbeddedGateway.open(settings, data_dir, endpoint=endpoint, environment=os.environ)
    # Every invocation makes and drops some dozens of small objects, none of them in cycles: the default would collect all the time.
    gc.set_threshold(*GC_THRESHOLD)
    try:
        surroundings: list[asyncio.Task[None]] = []

        def listening() -> None:
            gateway.load_control_plane()
            print(banner(settings, endpoint=endpoint), flush=True)
            surroundings.append(asyncio.create_task(_say_surroundings(settings), name="surroundings"))

        server = _Server(
            on_listening=listening,
            config=uvicorn.Config(
                gateway.application,
                http=LambdaHttpProtocol.with_quick(gateway.quick),
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
                timeout_graceful_shutdown=1,
                backlog=_BACKLOG,
            ),
        )
        await server.serve(sockets=[listener])
        for task in surroundings:
            task.cancel()
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await gateway.close()


async def _say_surroundings(settings: Settings) -> None:
    """The last line of the banner: what functions see of this machine takes a process to find out, and nobody waits for it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "kappa_runtime.supervisor.probing", settings.sandbox,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if said:
        print(f"  {said.decode(errors='replace').strip()}\n", flush=True)


class _Server(uvicorn.Server):
    """uvicorn's server without its habit of raising the signal again after it has stopped: we still have to close the rest."""

    def __init__(self, *, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

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
        """A second signal does not wait for answers under way."""
        self.force_exit = self.should_exit
        self.should_exit = True


def _bind(host: str, port: int) -> socket.socket:
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


def _endpoint(host: str, listener: socket.socket) -> str:
    """The URL under which this machine, and so every function, reaches the gateway."""
    port = listener.getsockname()[1]
    if host in ("0.0.0.0", "::", "[::]") or is_loopback(host):  # noqa: S104 - compared, not bound
        return f"http://127.0.0.1:{port}" if ":" not in host else f"http://[::1]:{port}"
    return f"http://{host}:{port}"
