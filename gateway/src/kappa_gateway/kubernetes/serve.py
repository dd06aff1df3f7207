"""``kappa gateway``: the process around the gateway of a cluster. Listens, serves, and leaves without cutting anything off.

On SIGTERM (the chart's preStop has waited until no Service sends new connections here) clients that keep their connection are answered once
more and told to come no more; then readiness, the scaler and idle environments go, connections are closed as their requests end, and
what runs may run to its end. A second signal does not wait. It refuses to decide anything about functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from typing import Final

import uvloop

from kappa_core.ports.blobs import BlobError
from kappa_core.ports.store import StoreError
from kappa_crds.api import ApiError, KubernetesApi
from kappa_gateway.kubernetes.gateway import ClusterGateway
from kappa_gateway.kubernetes.link_tls import LinkTlsError
from kappa_gateway.kubernetes.settings import ClusterSettings
from kappa_gateway.links.server import ListenError
from kappa_gateway.process import Server, StartError, bind

LINGER_SECONDS: Final = 2.0
"""Of connections on which nothing happens: a client in use sends its next request sooner."""


def run(settings: ClusterSettings) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartError and SettingsError."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    listener = bind(settings.host, settings.port)
    with contextlib.closing(listener):
        try:
            uvloop.run(_serve(settings, listener))
        except (StoreError, BlobError, ListenError, LinkTlsError, ApiError) as error:
            raise StartError(str(error)) from None


async def _serve(settings: ClusterSettings, listener: socket.socket) -> None:
    api = await KubernetesApi.connect()
    try:
        gateway = await ClusterGateway.open(settings, api)
        try:
            loop = asyncio.get_running_loop()
            left_at: list[float] = []

            def leave() -> None:
                left_at.append(loop.time())
                gateway.leave()

            server = Server(
                gateway.application,
                quick=gateway.quick,
                graceful_seconds=max(1, round(settings.drain_seconds - LINGER_SECONDS)),
                linger_seconds=LINGER_SECONDS,
                on_listening=gateway.load_control_plane,
                on_stopping=leave,
            )
            await server.serve(sockets=[listener])
            if left_at and not server.force_exit:
                await gateway.finish(settings.drain_seconds - LINGER_SECONDS - (loop.time() - left_at[0]))
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await gateway.close()
    finally:
        await api.close()
