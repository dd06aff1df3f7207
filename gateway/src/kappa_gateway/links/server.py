"""Listens for links: supervisors and, where several gateways work together, the other gateways. Greets, checks, hands over.

The first frame decides what a connection is: HELLO from a supervisor, PEER_HELLO from a gateway. Until then it may say nothing else
and has a few seconds to say that. What follows on an accepted connection goes to whoever took it over; the server refuses to
understand it. A Unix socket is readable by this user only; a TCP listener can ask for a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from kappa_core.link.frames import OLDEST_VERSION, PROTOCOL_VERSION, Frame, FrameType, Hello, PeerHello, Welcome
from kappa_core.link.transport import Link

logger = logging.getLogger("kappa.link")

GREETING_SECONDS: Final = 5.0
BACKLOG: Final = 1024
"""A burst of cold starts dials at once."""
_SOCKET_PATH_BYTES: Final = 100  # sun_path is 108 on Linux and 104 on macOS


class ListenError(Exception):
    """The link cannot be served at this address; the message is for the terminal."""


class LinkOwner(Protocol):
    """Who takes over a greeted connection."""

    def frame(self, frame: Frame, /) -> None: ...

    def lost(self, reason: str, /) -> None: ...


class LinkServer:
    """See the module. ``on_supervisor`` and ``on_peer`` return the owner of an accepted connection, or None to have it closed."""

    def __init__(
        self,
        *,
        gateway_id: str,
        on_supervisor: Callable[[Link, Hello], LinkOwner | None],
        on_peer: Callable[[Link, PeerHello], LinkOwner | None],
        token: str = "",
    ) -> None:
        self._gateway_id = gateway_id
        self._on_supervisor = on_supervisor
        self._on_peer = on_peer
        self._token = token
        self._owners: dict[Link, LinkOwner | None] = {}
        self._deadlines: dict[Link, asyncio.TimerHandle] = {}
        self._servers: list[asyncio.Server] = []
        self._paths: list[tuple[Path, int]] = []
        self._empty = asyncio.Event()
        self._empty.set()

    async def listen(self, address: str) -> str:
        """Serve at ``unix:/path`` or ``tcp:host:port`` (port 0: a free one) and return the address to dial. Raises ListenError."""
        loop = asyncio.get_running_loop()
        scheme, _, rest = address.partition(":")
        if scheme == "unix":
            return await self._listen_unix(Path(rest))
        host, _, port = rest.rpartition(":")
        if scheme != "tcp" or not host or not port.isdecimal():
            raise ListenError(f"{address!r} is neither unix:/path nor tcp:host:port")
        try:
            server = await loop.create_server(self._make, host.strip("[]"), int(port), backlog=BACKLOG)
        except OSError as error:
            raise ListenError(f"The link cannot listen on {host}:{port}: {error.strerror}") from error
        self._servers.append(server)
        return f"tcp:{host}:{server.sockets[0].getsockname()[1]}"

    async def _listen_unix(self, path: Path) -> str:
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            raise ListenError(f"The path of a Unix socket is limited to {_SOCKET_PATH_BYTES} bytes, which {path} is not")
        loop = asyncio.get_running_loop()
        _clear(path)
        before = os.umask(0o177)
        try:
            server = await loop.create_unix_server(self._make, str(path), backlog=BACKLOG)
        except OSError as error:
            raise ListenError(f"The link cannot listen on {path}: {error.strerror}") from error
        finally:
            os.umask(before)
        self._servers.append(server)
        self._paths.append((path, _inode(path)))
        return f"unix:{path}"

    async def close(self) -> None:
        """Stop listening and close every connection. Idempotent."""
        for server in self._servers:
            server.close()
        for link in list(self._owners):
            link.close("the gateway stops")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), 1.0)
        for link in list(self._owners):
            link.abort("the gateway stops")
        if self._owners:
            await asyncio.sleep(0)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        for path, inode in self._paths:
            if _inode(path) == inode:  # not if another gateway has taken the place meanwhile
                _clear(path)
        self._paths.clear()

    # -- connections --------------------------------------------------------------------------------------------------
    def _make(self) -> Link:
        return Link(on_made=self._made, on_frame=self._frame, on_lost=self._lost)

    def _made(self, link: Link) -> None:
        self._owners[link] = None
        self._empty.clear()
        self._deadlines[link] = asyncio.get_running_loop().call_later(GREETING_SECONDS, link.abort, "it did not say hello")

    def _frame(self, link: Link, frame: Frame) -> None:
        owner = self._owners.get(link)
        if owner is not None:
            owner.frame(frame)
        elif frame.type is FrameType.HELLO or frame.type is FrameType.PEER_HELLO:
            self._greet(link, frame.body)
        elif frame.type is not FrameType.PONG:
            self._refuse(link, f"it began with {frame.type.name} instead of a greeting")

    def _greet(self, link: Link, hello: Hello | PeerHello) -> None:
        self._deadlines.pop(link).cancel()
        link.peer = f"supervisor {hello.supervisor_id}" if isinstance(hello, Hello) else f"gateway {hello.gateway_id}"
        version = min(hello.newest, PROTOCOL_VERSION)
        if version < max(hello.oldest, OLDEST_VERSION):
            self._refuse(
                link,
                f"it speaks versions {hello.oldest} to {hello.newest} of the link and this gateway "
                f"{OLDEST_VERSION} to {PROTOCOL_VERSION}",
            )
            return
        if not hmac.compare_digest(hello.token.encode(), self._token.encode()):
            self._refuse(link, "its token is wrong")
            return
        link.send(FrameType.WELCOME, Welcome(gateway_id=self._gateway_id, version=version))
        owner = self._on_supervisor(link, hello) if isinstance(hello, Hello) else self._on_peer(link, hello)
        if owner is None:
            link.close("not wanted")
        else:
            self._owners[link] = owner

    def _refuse(self, link: Link, why: str) -> None:
        logger.warning("link to %s refused: %s", link.peer or "an unknown peer", why)
        link.close(why)

    def _lost(self, link: Link, reason: str) -> None:
        deadline = self._deadlines.pop(link, None)
        if deadline is not None:
            deadline.cancel()
        owner = self._owners.pop(link, None)
        if not self._owners:
            self._empty.set()
        if owner is not None:
            owner.lost(reason)


def _clear(path: Path) -> None:
    """Remove a socket, such as one that a killed gateway left; a living one holds the lock of its data directory."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(f"{path} is in the way and is no socket")
        path.unlink()


def _inode(path: Path) -> int:
    """0 if there is no such file."""
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return 0
