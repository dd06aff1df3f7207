"""Keeps a connection to one gateway: dials, redials with growing pauses, tells its owner when one is made, lost, or was greeted.

It refuses to know what is said on the connection, except that a WELCOME proves the gateway accepted us: only that resets the pauses,
so that a gateway that refuses this supervisor (version, token) is not dialled in a loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from kappa_core.link.frames import Frame, FrameType
from kappa_core.link.transport import Link

FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0
DIAL_SECONDS: Final = 3.0


class AddressError(ValueError):
    """Not ``unix:/path`` or ``tcp:host:port``."""


def parse_address(address: str) -> str | tuple[str, int]:
    """The path of a Unix socket, or host and port. Raises AddressError."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix" and rest:
        return rest
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isdecimal():
        return host.strip("[]"), int(port)
    raise AddressError(f"{address!r} is neither unix:/path nor tcp:host:port")


class Dialler:
    """See the module. ``address`` is also the gateway's name in Parking."""

    def __init__(
        self,
        address: str,
        *,
        on_up: Callable[[Dialler, Link], None],
        on_frame: Callable[[Dialler, Frame], None],
        on_down: Callable[[Dialler, str], None],
    ) -> None:
        self.address = address
        self._target = parse_address(address)
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
        """Connections made so far."""

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
        loop = asyncio.get_running_loop()
        while not self._closing:
            self._lost.clear()
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    if isinstance(self._target, str):
                        await loop.create_unix_connection(self._make, self._target)
                    else:
                        await loop.create_connection(self._make, *self._target)
            except (OSError, TimeoutError):
                # Nobody there, for now: whether for good is the owner's clock to decide.
                pass
            else:
                await self._lost.wait()
            # Spread, so that a thousand supervisors do not dial a restarted gateway in step.
            await asyncio.sleep(self._pause * (0.5 + random.random()))  # noqa: S311 - no secret
            self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def _make(self) -> Link:
        return Link(on_made=self._made, on_frame=self._frame, on_lost=self._gone)

    def _made(self, link: Link) -> None:
        self.link = link
        self.dials += 1
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
