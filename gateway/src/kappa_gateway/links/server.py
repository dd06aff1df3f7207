"""Listens for links: supervisors and, where several gateways work together, the other gateways. Greets, checks, hands over.

The first frame decides what a connection is: HELLO from a supervisor, PEER_HELLO from a gateway. Until then it may say nothing else
and has a few seconds to say that. What follows on an accepted connection goes to whoever took it over; the server refuses to
understand it. A Unix socket is readable by this user only; a TCP listener can ask for a token. In a cluster the listener speaks TLS
and somebody vouches for every token: who a pod is, and which revision it runs, comes from there and never from the pod.
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
from ssl import SSLContext
from typing import Final, NamedTuple, Protocol

from kappa_core.link.addresses import AddressError, parse_address
from kappa_core.link.frames import OLDEST_VERSION, PROTOCOL_VERSION, Assigned, Frame, FrameType, Hello, PeerHello, Welcome
from kappa_core.link.transport import Link

logger = logging.getLogger("kappa.link")

GREETING_SECONDS: Final = 5.0
VOUCH_SECONDS: Final = 10.0
"""How long a greeting waits for an answer about its token; who greets dials again."""
BACKLOG: Final = 1024
"""A burst of cold starts dials at once."""
CLOSE_SECONDS: Final = 1.0
_ASSIGNED: Final = FrameType.ASSIGNED
_SOCKET_PATH_BYTES: Final = 100  # sun_path is 108 on Linux and 104 on macOS


class ListenError(Exception):
    """The link cannot be served at this address; the message is for the terminal."""


class LinkOwner(Protocol):
    """Who takes over a greeted connection."""

    def frame(self, frame: Frame, /) -> None: ...

    def lost(self, reason: str, /) -> None: ...


class PodIdentity(NamedTuple):
    """Who a pod is, by the word of the API server."""

    namespace: str
    name: str
    uid: str
    revision: str
    """The only one that it may run."""


class VouchError(Exception):
    """Whether a token is good cannot be found out now; the message is for the log. The peer is turned away and dials again."""


class Vouch(Protocol):
    """Who is behind a token. Both may take their time, and raise VouchError."""

    async def pod(self, token: str, /) -> PodIdentity | None:
        """The living pod that this token was made for; None if there is none."""

    async def gateway(self, token: str, /) -> bool:
        """Whether it is a gateway's."""


class LinkServer:
    """See the module. ``on_supervisor`` and ``on_peer`` return the owner of an accepted connection, or None to have it closed.

    ``ssl`` is for addresses that begin with ``tls:``. With ``vouch`` it is asked about every token, and ``token`` is not used.
    """

    def __init__(
        self,
        *,
        gateway_id: str,
        on_supervisor: Callable[[Link, Hello], LinkOwner | None],
        on_peer: Callable[[Link, PeerHello], LinkOwner | None],
        token: str = "",
        ssl: SSLContext | None = None,
        vouch: Vouch | None = None,
    ) -> None:
        self._gateway_id = gateway_id
        self._on_supervisor = on_supervisor
        self._on_peer = on_peer
        self._token = token
        self._ssl = ssl
        self._vouch = vouch
        self._questions: dict[Link, asyncio.Task[None]] = {}
        """Greetings that wait for an answer about their token."""
        self._early: dict[Link, list[Frame]] = {}
        """What came in one piece with such a greeting."""
        self._pods: dict[Link, PodIdentity] = {}
        self._owners: dict[Link, LinkOwner | None] = {}
        self._deadlines: dict[Link, asyncio.TimerHandle] = {}
        self._servers: list[asyncio.Server] = []
        self._paths: list[tuple[Path, int]] = []
        self._empty = asyncio.Event()
        self._empty.set()

    async def listen(self, address: str) -> str:
        """Serve at ``unix:/path``, ``tcp:host:port`` or ``tls:host:port`` (port 0: a free one) and return the address to dial.
        Raises ListenError."""
        loop = asyncio.get_running_loop()
        try:
            place = parse_address(address)
        except AddressError as error:
            raise ListenError(str(error)) from None
        if place.path:
            return await self._listen_unix(Path(place.path))
        if place.tls and self._ssl is None:
            raise ListenError(f"{address!r} needs a certificate")
        ssl = self._ssl if place.tls else None
        try:
            server = await loop.create_server(
                self._make,
                place.host,
                place.port,
                backlog=BACKLOG,
                ssl=ssl,
                ssl_handshake_timeout=GREETING_SECONDS if ssl is not None else None,
                ssl_shutdown_timeout=CLOSE_SECONDS if ssl is not None else None,
            )
        except OSError as error:
            raise ListenError(f"The link cannot listen on {address}: {error.strerror}") from error
        self._servers.append(server)
        return f"{address.rpartition(':')[0]}:{server.sockets[0].getsockname()[1]}"

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
        questions = list(self._questions.values())
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)
        for link in list(self._owners):
            link.close("the gateway stops")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), CLOSE_SECONDS)
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
            if frame.type is _ASSIGNED and (why := self._claims_another(link, frame.body)):
                self._refuse(link, why)
            else:
                owner.frame(frame)
        elif link in self._early:
            self._early[link].append(frame)
        elif frame.type is FrameType.HELLO or frame.type is FrameType.PEER_HELLO:
            self._greet(link, frame.body)
        elif frame.type is not FrameType.PONG:
            self._refuse(link, f"it began with {frame.type.name} instead of a greeting")

    def _claims_another(self, link: Link, assigned: Assigned) -> str:
        """Why a spare may not have become the supervisor of this revision; empty if it may."""
        pod = self._pods.get(link)
        if pod is None or assigned.revision == pod.revision:
            return ""
        return (
            f"it says that it was assigned {assigned.revision}, which is not the revision of the pod {pod.namespace}/{pod.name}"
        )

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
        elif self._vouch is not None:
            # The peer does not wait for its welcome, and may say no more than fits the socket until it is known who it is.
            link.hold()
            self._early[link] = []
            self._questions[link] = asyncio.get_running_loop().create_task(self._ask(link, hello, self._vouch))
        elif not hmac.compare_digest(hello.token.encode(), self._token.encode()):
            self._refuse(link, "its token is wrong")
        else:
            self._welcome(link, hello)

    async def _ask(self, link: Link, hello: Hello | PeerHello, vouch: Vouch) -> None:
        try:
            async with asyncio.timeout(VOUCH_SECONDS):
                if isinstance(hello, Hello):
                    pod = await vouch.pod(hello.token)
                    why = _objection(hello, pod)
                    if pod is not None:
                        self._pods[link] = pod
                else:
                    why = "" if await vouch.gateway(hello.token) else "its token is wrong"
        except TimeoutError:
            why = f"nobody could say within {VOUCH_SECONDS:g} s whether its token is good"
        except VouchError as error:
            why = f"nobody can say whether its token is good: {error}"
        except Exception:
            # Whatever went wrong: a peer that nobody has vouched for is not to stay. The log has the rest.
            logger.exception("no answer about the token of %s", link.peer)
            why = "nobody can say whether its token is good"
        finally:
            self._questions.pop(link, None)
            early = self._early.pop(link, [])
        if link not in self._owners:
            self._pods.pop(link, None)  # it was lost meanwhile
            return
        link.let_go()
        if why:
            self._refuse(link, why)
            return
        self._welcome(link, hello)
        for frame in early:
            if link.connected:
                self._frame(link, frame)

    def _welcome(self, link: Link, hello: Hello | PeerHello) -> None:
        link.send(FrameType.WELCOME, Welcome(gateway_id=self._gateway_id, version=min(hello.newest, PROTOCOL_VERSION)))
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
        question = self._questions.pop(link, None)
        if question is not None:
            question.cancel()
        self._pods.pop(link, None)
        owner = self._owners.pop(link, None)
        if not self._owners:
            self._empty.set()
        if owner is not None:
            owner.lost(reason)


def _objection(hello: Hello, pod: PodIdentity | None) -> str:
    """Why this greeting is not that pod's; empty if it is."""
    if pod is None:
        return "its token is wrong"
    if not hello.supervisor_id.startswith(f"{pod.uid}."):
        return f"its token is that of the pod {pod.namespace}/{pod.name}, which has another UID"
    if hello.revision and hello.revision != pod.revision:
        return f"it says that it runs {hello.revision}, which is not the revision of the pod {pod.namespace}/{pod.name}"
    return ""


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
