"""Keeps a connection to one gateway: dials, redials with growing pauses, tells its owner when one is made, lost, or was greeted.

It refuses to know what is said on the connection, except that a WELCOME proves the gateway accepted us: only that resets the pauses,
so that a gateway that refuses this supervisor (version, token) is not dialled in a loop. In a cluster the connection is TLS, and
what a gateway's certificate has to prove is given by a :class:`Trust`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from kappa_core.link.addresses import Address, AddressError, Tls, connect, parse_address
from kappa_core.link.frames import Frame, FrameType
from kappa_core.link.transport import Link

logger = logging.getLogger("kappa.supervisor")

FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0
DIAL_SECONDS: Final = 3.0


class Trust:
    """What a gateway has to prove: a certificate of this authority for this name, whatever address it was found at."""

    def __init__(self, authority: Path, *, name: str) -> None:
        """``authority`` is a PEM file. It may be replaced while the process lives, and counts from the next dial on."""
        self._authority = authority
        self.name = name
        self._read = b""
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Raises OSError: no such file, or no certificate in it."""
        read = self._authority.read_bytes()
        if self._context is None or read != self._read:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_verify_locations(cadata=read.decode("ascii", errors="replace"))
            self._read, self._context = read, context
        return self._context


class Dialler:
    """See the module. ``address`` is also the gateway's name in Parking."""

    def __init__(
        self,
        address: str,
        *,
        trust: Trust | None = None,
        numbers: Iterator[int],
        on_up: Callable[[Dialler, Link], None],
        on_frame: Callable[[Dialler, Frame], None],
        on_down: Callable[[Dialler, str], None],
    ) -> None:
        """``numbers`` go up, for connections that are made one after the other. Raises AddressError."""
        self.address = address
        self._target = parse_address(address)
        if self._target.tls and trust is None:
            raise AddressError(f"{address!r} needs an authority that certifies it")
        self._trust = trust
        self._numbers = numbers
        self._on_up = on_up
        self._on_frame = on_frame
        self._on_down = on_down
        self._task: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._pause = FIRST_PAUSE
        self._closing = False
        self.link: Link | None = None
        """The connection in use, None while there is none."""
        self.dials = 0
        """Number of the last connection that was made."""
        self._complaint = ""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def close(self) -> None:
        """End for good; what was sent before still leaves if the gateway reads."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        link = self.link
        if link is not None:
            self._lost.clear()
            link.close("the supervisor ends")
            try:
                await asyncio.wait_for(self._lost.wait(), 1.0)
            except TimeoutError:
                link.abort("the gateway does not read")

    async def _keep_connected(self) -> None:
        while not self._closing:
            self._lost.clear()
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    await self._dial(self._target)
            except ssl.SSLError as error:
                # Somebody there, whom we do not trust: that does not pass by itself, and somebody has to be told.
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    logger.warning("gateway %s is not trusted: %s", self.address, error)
            except (OSError, TimeoutError) as error:
                # Nobody there, for now: whether for good is the owner's clock to decide.
                logger.info("gateway %s is out of reach: %s", self.address, error)
            else:
                self._complaint = ""
                await self._lost.wait()
            # Spread, so that a thousand supervisors do not dial a restarted gateway in step.
            await asyncio.sleep(self._pause * (0.5 + random.random()))  # noqa: S311 - no secret
            self._pause = min(LONGEST_PAUSE, self._pause * 2)

    async def _dial(self, target: Address) -> None:
        tls = Tls(self._trust.context(), self._trust.name) if target.tls and self._trust is not None else None
        await connect(self._make, target, tls=tls)

    def _make(self) -> Link:
        return Link(on_made=self._made, on_frame=self._frame, on_lost=self._gone)

    def _made(self, link: Link) -> None:
        self.link = link
        self.dials = next(self._numbers)
        link.peer = f"gateway {self.address}"
        self._on_up(self, link)

    def _frame(self, link: Link, frame: Frame) -> None:
        if link is not self.link:
            return
        if frame.type is FrameType.WELCOME:
            self._pause = FIRST_PAUSE
        self._on_frame(self, frame)

    def _gone(self, link: Link, reason: str) -> None:
        if link is not self.link:
            return
        self.link = None
        self._lost.set()
        self._on_down(self, reason)
