"""What other gateways have of a function's log lines, over HTTP: the client, and the signature by which gateways know each other.

The gateway that a user asks has decided what they may read; it asks the others in its own name. A request is signed with a key that
only gateways can derive (Secret kappa-signing) over everything it says, and is good for a minute; the other side is
:mod:`kappa_gateway.kubernetes.peer_logs_route`. A follower's answer never ends and has an empty line every few seconds, so that a
gateway behind a cut cable is noticed. It refuses to wait long: who does not answer is named as missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import parse_qsl, urlencode

import aiohttp
import msgspec
from yarl import URL

from kappa_core.ports.logs import LogEvent, LogGroup, LogQuery
from kappa_core.resources import AccountId, Region
from kappa_crds.api import ApiError
from kappa_gateway.kubernetes.gathered_logs import PeerError

PATH: Final = "/_kappa/gateways/logs"
GOOD_SECONDS: Final = 60
"""How long a signed request is good; clocks of nodes may differ by less."""
BEAT_SECONDS: Final = 5.0
"""A follower hears something at least so often."""
ADDRESSES_SECONDS: Final = 2.0
"""How long the addresses of gateways are believed, and how long the API server may take to name them."""
_CONNECT_SECONDS: Final = 2.0
_READ_SECONDS: Final = 10.0
_LINE_BYTES: Final = 4 * 1024 * 1024
"""Room for the longest line: 256 KiB, each byte of which JSON may write as six."""

_decode = msgspec.json.Decoder(LogEvent).decode
_log = logging.getLogger(__name__)

Locate = Callable[[], Awaitable[set[str]]]
"""Addresses (host:port) of the other gateways. Raises ApiError."""


class PeerSigner:
    """Signs and checks what gateways ask each other. ``secret`` is the release's signing key; ``now`` is Unix seconds."""

    def __init__(self, secret: bytes, *, now: Callable[[], float] = time.time) -> None:
        self._key = hmac.digest(secret, b"kappa between gateways", "sha256")
        self._now = now

    def signed(self, wanted: LogQuery, *, follow: bool) -> str:
        """The query of a request."""
        said = {name: value for name, value in wanted._asdict().items() if name != "group" and value is not None}
        said |= {**msgspec.structs.asdict(wanted.group), "follow": follow, "expires": int(self._now()) + GOOD_SECONDS}
        query = urlencode({name: int(value) if isinstance(value, bool) else value for name, value in said.items()})
        return f"{query}&signature={self._sign(query)}"

    def checked(self, query: str) -> tuple[LogQuery, bool] | None:
        """What a query asks for, and whether to follow; None where no gateway of this release has signed it, or too long ago."""
        said, _, signature = query.rpartition("&signature=")
        if not hmac.compare_digest(self._sign(said).encode(), signature.encode()):
            return None
        given = dict(parse_qsl(said, keep_blank_values=True))
        if int(given["expires"]) < self._now():
            return None

        def number(name: str) -> int | None:
            return int(given[name]) if name in given else None

        wanted = LogQuery(
            LogGroup(AccountId(given["account"]), Region(given["region"]), given["name"]),
            stream=given.get("stream"),
            stream_prefix=given.get("stream_prefix"),
            request_id=given.get("request_id"),
            start_ms=number("start_ms"),
            end_ms=number("end_ms"),
            after_event_id=given.get("after_event_id"),
            limit=int(given["limit"]),
            newest=given["newest"] == "1",
        )
        return wanted, given["follow"] == "1"

    def _sign(self, query: str) -> str:
        return hmac.digest(self._key, query.encode(), hashlib.sha256).hex()


class HttpPeers:
    """The other gateways by their HTTP ports: the Peers of :mod:`kappa_gateway.kubernetes.gathered_logs`. Belongs to one event loop."""

    def __init__(self, locate: Locate, signer: PeerSigner, *, believed_seconds: float = ADDRESSES_SECONDS) -> None:
        self._locate = locate
        self._signer = signer
        self._believed_seconds = believed_seconds
        self._session: aiohttp.ClientSession | None = None
        self._known: set[str] = set()
        self._known_until = float("-inf")
        self._locating = asyncio.Lock()

    async def addresses(self) -> set[str]:
        """See the port. Where nobody can say, those that were there last."""
        loop = asyncio.get_running_loop()
        async with self._locating:
            if loop.time() >= self._known_until:
                try:
                    async with asyncio.timeout(ADDRESSES_SECONDS):
                        self._known = await self._locate()
                except (ApiError, TimeoutError) as error:
                    _log.warning("nobody can say which other gateways there are: %s", error)
                self._known_until = loop.time() + self._believed_seconds
            return set(self._known)

    async def read(self, address: str, wanted: LogQuery, /) -> list[LogEvent]:
        """See the port."""
        async with self._asked(address, wanted, follow=False) as answer:
            return [_decode(line) for line in (await answer.read()).splitlines() if line]

    async def follow(self, address: str, wanted: LogQuery, /) -> AsyncGenerator[LogEvent, None]:
        """See the port."""
        async with self._asked(address, wanted, follow=True) as answer:
            async for line in answer.content:
                if not line.isspace():
                    yield _decode(line)

    async def close(self) -> None:
        """Idempotent."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _asked(self, address: str, wanted: LogQuery, *, follow: bool) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer with status 200. Everything that goes wrong, also while it is read, is a PeerError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False, read_bufsize=_LINE_BYTES)
        timeout = aiohttp.ClientTimeout(
            total=None if follow else _READ_SECONDS,
            sock_connect=_CONNECT_SECONDS,
            sock_read=3 * BEAT_SECONDS if follow else None,
        )
        # As it is: what yarl would write in another way would have another signature.
        url = URL(f"http://{address}{PATH}?{self._signer.signed(wanted, follow=follow)}", encoded=True)
        try:
            async with self._session.get(url, timeout=timeout) as answer:
                if answer.status != 200:
                    raise PeerError(f"it answers HTTP status {answer.status}")
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RuntimeError) as error:
            # ValueError: a line that is none of ours (msgspec) or is too long (aiohttp). RuntimeError: the session has been closed.
            raise PeerError(str(error) or type(error).__name__) from error
