"""Gateways that share environments: each dials the one that holds the scaler and tells it who waits here.

The holder starts environments, answers who is turned away and asks everyone what is in flight (COLLECT); the environments themselves
are linked to every gateway and need no word from here. When the connection to the holder is lost, waiters wait and nobody is started
or turned away until it is back, or until another one is named (:meth:`HolderLink.follow`).

It refuses to elect: who holds the scaler is a setting on one machine, and a Lease in a cluster.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

import msgspec

from kappa_core.link.addresses import Tls, connect, parse_address
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

    def close(self, reason: str) -> None:
        self._link.close(reason)

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
    """The connection to the gateway that holds the scaler: dialled for as long as there is one to follow."""

    def __init__(self, *, me: str, scaling: Scaling, token: Callable[[], str], tls: Tls | None = None) -> None:
        """``token`` is asked before each greeting; it may raise OSError. ``tls`` is for addresses that begin with ``tls:``."""
        self._me = me
        self._scaling = scaling
        self._token = token
        self._tls = tls
        self._address = ""
        self._link: Link | None = None
        """The one in use."""
        self._connections: set[Link] = set()
        """With those that are being closed."""
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ended: list[asyncio.Task[None]] = []

    def follow(self, address: str) -> None:
        """``address`` holds the scaler from now on; empty: nobody that is known."""
        if address == self._address:
            return
        self._address = address
        self._ended = [task for task in self._ended if not task.done()]
        if self._task is not None:
            self._task.cancel()
            self._ended.append(self._task)
            self._task = None
        link, self._link = self._link, None
        if link is not None:
            link.abort("another gateway holds the scaler")
            self._scaling.holder_down()
        if address:
            self._task = asyncio.get_running_loop().create_task(self._keep_connected(address))

    def send(self, kind: FrameType, body: msgspec.Struct) -> None:
        if self._link is not None:
            self._link.send(kind, body)

    async def close(self) -> None:
        """Idempotent."""
        self.follow("")
        await asyncio.gather(*self._ended, return_exceptions=True)
        while self._connections:
            self._lost.clear()
            await self._lost.wait()

    async def _keep_connected(self, address: str) -> None:
        said = False
        while True:
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    await self._dial(address)
            except (OSError, TimeoutError) as error:
                if not said:
                    said = True
                    logger.warning("the gateway that starts environments, %s, is out of reach: %s", address, error)
            else:
                said = False
                while self._link is not None:
                    self._lost.clear()
                    await self._lost.wait()
            await asyncio.sleep(REDIAL_SECONDS * (0.5 + random.random()))  # noqa: S311 - no secret

    async def _dial(self, address: str) -> None:
        token = self._token()

        def made(link: Link) -> None:
            self._connections.add(link)
            if address != self._address:
                link.abort("another gateway holds the scaler")
                return
            self._link = link
            link.peer = f"gateway {address}"
            hello = PeerHello(gateway_id=self._me, oldest=OLDEST_VERSION, newest=PROTOCOL_VERSION, token=token)
            link.send(FrameType.PEER_HELLO, hello)

        def make() -> Link:
            return Link(on_made=made, on_frame=self._frame, on_lost=self._gone)

        await connect(make, parse_address(address), tls=self._tls)

    def _frame(self, link: Link, frame: Frame) -> None:
        if link is not self._link:
            return
        if frame.type is FrameType.WELCOME:
            self._scaling.holder_up(self)
        else:
            self._scaling.from_holder(frame.type, frame.body)

    def _gone(self, link: Link, reason: str) -> None:
        self._connections.discard(link)
        self._lost.set()
        if link is self._link:
            self._link = None
            self._scaling.holder_down()
