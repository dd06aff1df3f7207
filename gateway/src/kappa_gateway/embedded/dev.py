"""``kappa dev``: the process around the embedded gateway. Listens, prints the banner, serves, and stops everything within two seconds.

It refuses to decide anything about functions; the HTTP server itself is :mod:`kappa_gateway.process`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from typing import Final

import uvloop

from kappa_core.ports.blobs import BlobError
from kappa_core.ports.store import StoreError
from kappa_gateway.embedded.banner import banner
from kappa_gateway.embedded.data_dir import DataDir, DataDirError
from kappa_gateway.embedded.gateway import EmbeddedGateway
from kappa_gateway.links.server import ListenError
from kappa_gateway.process import Server, StartError, bind
from kappa_gateway.settings import Settings, is_loopback

STOP_SECONDS: Final = 1.0
"""How long answers under way may still take after Ctrl-C; functions that run longer are cut off."""


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartError."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    listener = bind(settings.host, settings.port)
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
    try:
        surroundings: list[asyncio.Task[None]] = []

        def listening() -> None:
            gateway.load_control_plane()
            print(banner(settings, endpoint=endpoint), flush=True)
            surroundings.append(asyncio.create_task(_say_surroundings(settings), name="surroundings"))

        server = Server(gateway.application, quick=gateway.quick, graceful_seconds=round(STOP_SECONDS), on_listening=listening)
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


def _endpoint(host: str, listener: socket.socket) -> str:
    """The URL under which this machine, and so every function, reaches the gateway."""
    port = listener.getsockname()[1]
    if host in ("0.0.0.0", "::", "[::]") or is_loopback(host):  # noqa: S104 - compared, not bound
        return f"http://127.0.0.1:{port}" if ":" not in host else f"http://[::1]:{port}"
    return f"http://{host}:{port}"
