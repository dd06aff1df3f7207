"""Gateways that share environments: each dials the one that holds the scaler and tells it who waits here.

Membership is static: every gateway is given the link addresses of all others and of the holder. The holder starts environments,
answers who is turned away and asks everyone what is in flight (COLLECT); the environments themselves are linked to every gateway and
need no word from here. When the connection to the holder is lost, waiters wait and nobody is started or turned away until it is back.

It refuses to elect: who holds the scaler is a setting on one machine, and a Lease in a cluster.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

import msgspec

from kappa_core.link.frames import OLDEST_VERSION, PROTOCOL_VERSION, Frame, FrameType, PeerHello
from kappa_core.link.transport import Link
from kappa_gateway.links.scaling import Scaling

logger = logging.getLogger("kappa.link")

REDIAL_SECONDS: Final = 0.25
DIAL_SECONDS: Final = 3.0


class PeerLink:
    """The holder's end of a connection with another gateway."""

    def __init__(self, link: Link, name: str, scaling: Scaling) -> None:
        self._link = link
        self._name = name
        self._scaling = scaling

    def send(self, kind: FrameType, body: msgspec.Struct) -> None:
        self._link.send(kind, body)

    def frame(self, frame: Frame, /) -> None:
        self._scaling.from_peer(self._name, frame.type, frame.body)

    def lost(self, reason: str, /) -> None:
        logger.warning("gateway %s is out of reach: %s", self._name, reason)
        self._scaling.peer_down(self._name, self)


def accept_peer(link: Link, hello: PeerHello, scaling: Scaling) -> PeerLink:
    """Take over a connection that another gateway has made."""
    peer = PeerLink(link, hello.gateway_id, scaling)
    scaling.peer_up(hello.gateway_id, peer)
    return peer


class HolderLink:
    """The connection to the gateway that holds the scaler: dialled for as long as this gateway runs."""

    def __init__(self, *, me: str, address: str, scaling: Scaling, token: str = "") -> None:
        self._me = me
        self._address = address
        self._scaling = scaling
        self._token = token
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    def send(self, kind: FrameType, body: msgspec.Struct) -> None:
        if self._link is not None:
            self._link.send(kind, body)

    async def close(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._link is not None:
            self._lost.clear()
            self._link.abort("the gateway stops")
            await self._lost.wait()

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        scheme, _, rest = self._address.partition(":")
        said = False
        while True:
            self._lost.clear()
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    if scheme == "unix":
                        await loop.create_unix_connection(self._make, rest)
                    else:
                        host, _, port = rest.rpartition(":")
                        await loop.create_connection(self._make, host.strip("[]"), int(port))
            except (OSError, TimeoutError) as error:
                if not said:
                    said = True
                    logger.warning("the gateway that starts environments, %s, is out of reach: %s", self._address, error)
            else:
                said = False
                await self._lost.wait()
            await asyncio.sleep(REDIAL_SECONDS * (0.5 + random.random()))  # noqa: S311 - no secret

    def _make(self) -> Link:
        return Link(on_made=self._made, on_frame=self._frame, on_lost=self._gone)

    def _made(self, link: Link) -> None:
        self._link = link
        link.peer = f"gateway {self._address}"
        link.send(
            FrameType.PEER_HELLO,
            PeerHello(gateway_id=self._me, oldest=OLDEST_VERSION, newest=PROTOCOL_VERSION, token=self._token),
        )

    def _frame(self, link: Link, frame: Frame) -> None:
        if link is not self._link:
            return
        if frame.type is FrameType.WELCOME:
            self._scaling.holder_up(self)
        else:
            self._scaling.from_holder(frame.type, frame.body)

    def _gone(self, link: Link, reason: str) -> None:
        if link is not self._link:
            return
        self._link = None
        self._lost.set()
        self._scaling.holder_down()
