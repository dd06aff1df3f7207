"""The log lines of a function from all gateways: each keeps those that reached it, and a reader sees them as if they were in one place.

    reader ─► the gateway that answers ─► its own LogStore, and over HTTP those of the other gateways (kubernetes.peer_logs)

Pages are merged by event id, which begins with the time of arrival and never collides (kappa_core.memory.logs). A follower gets what is
stored in that order, and then what arrives, from gateways that start meanwhile as well. A gateway that does not answer costs its own
lines and a short wait, not the answer: :attr:`missing` names it. It refuses to keep anything; the lines of a gateway that is gone are gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Final, Protocol

from kappa_core.memory.logs import ARRIVALS_PER_MS
from kappa_core.ports.logs import LogEvent, LogGroup, LogQuery, LogStore, event_id
from kappa_gateway.clock import epoch_ms

LOOK_SECONDS: Final = 5.0
"""How often a follower looks for gateways that have come or gone."""
AGAIN_SECONDS: Final = 1.0
"""Until a gateway that broke off is asked again."""
_WAITING: Final = 1000
"""Events between the gateways and a reader who is slower than they."""

logger = logging.getLogger(__name__)


class PeerError(Exception):
    """Another gateway cannot be asked; the message is for the log."""


class Peers(Protocol):
    """The other gateways. All but ``addresses`` raise PeerError."""

    async def addresses(self) -> Iterable[str]:
        """Those that there are now, as far as that is known."""

    async def read(self, address: str, wanted: LogQuery, /) -> list[LogEvent]:
        """Events that this gateway has."""

    def follow(self, address: str, wanted: LogQuery, /) -> AsyncGenerator[LogEvent, None]:
        """Its events behind ``after_event_id``, then those that arrive there, until one end breaks off."""


class GatheredLogs:
    """See the module. Reads as a LogStore does; ``own`` is this gateway's."""

    def __init__(
        self,
        own: LogStore,
        peers: Peers,
        *,
        clock_ms: Callable[[], int] = epoch_ms,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._own = own
        self._peers = peers
        self._clock_ms = clock_ms
        self._sleep = sleep
        self.missing: frozenset[str] = frozenset()
        """Gateways that did not answer when they were asked last."""

    async def read(self, query: LogQuery, /) -> list[LogEvent]:
        """As :meth:`LogStore.read`, over all gateways that answer."""
        return [event for event, _ in await self.page(query)]

    def follow(self, group: LogGroup, /, *, start_ms: int | None = None) -> AsyncGenerator[LogEvent, None]:
        """As :meth:`LogStore.follow`, over all gateways that there are and come."""
        return _Following(self, group, start_ms=start_ms, now_ms=self._clock_ms(), sleep=self._sleep).run()

    async def page(self, wanted: LogQuery) -> list[tuple[LogEvent, str]]:
        """Events in order, each with the address of its gateway; empty for this one."""
        addresses = sorted(await self._peers.addresses())
        pages = await asyncio.gather(self._own.read(wanted), *(self._ask(address, wanted) for address in addresses))
        found = [(event, address) for address, page in zip(("", *addresses), pages, strict=True) for event in page]
        found.sort(key=lambda each: each[0].event_id)
        return wanted.page(found)

    async def _ask(self, address: str, wanted: LogQuery) -> list[LogEvent]:
        try:
            found = await self._peers.read(address, wanted)
        except PeerError as error:
            self.lacks(address, error)
            return []
        self.has(address)
        return found

    # -- for followers ---------------------------------------------------------------------------------------------
    def lacks(self, address: str, error: PeerError) -> None:
        """A gateway does not answer."""
        if address not in self.missing:
            logger.warning("log lines of the gateway at %s are missing: %s", address, error)
            self.missing |= {address}

    def has(self, address: str) -> None:
        """A gateway answers."""
        self.missing -= {address}

    async def others(self) -> set[str]:
        """The addresses of the other gateways; who is none of them any more is not missed."""
        found = {*await self._peers.addresses()}
        self.missing &= found
        return found

    async def tail(self, address: str, wanted: LogQuery) -> AsyncGenerator[LogEvent, None]:
        """Events behind ``after_event_id``, stored and to come, of the gateway at ``address``, without an end. For this gateway itself
        (empty) it ends with the store."""
        if not address:
            async with aclosing(follow(self._own, wanted)) as own:
                async for event in own:
                    yield event
            return
        after = wanted.after_event_id
        while True:
            try:
                async with aclosing(self._peers.follow(address, wanted._replace(after_event_id=after))) as theirs:
                    async for event in theirs:
                        self.has(address)
                        after = event.event_id
                        yield event
            except PeerError as error:
                self.lacks(address, error)
            await self._sleep(AGAIN_SECONDS)


class _Following:
    """One follower: what is stored at all gateways in order, then a tail of each."""

    def __init__(
        self, logs: GatheredLogs, group: LogGroup, *, start_ms: int | None, now_ms: int, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self._logs = logs
        self._sleep = sleep
        # Without a beginning: what arrives from this millisecond on, by the clock of whichever gateway it arrives at.
        after = None if start_ms is not None else event_id(now_ms * ARRIVALS_PER_MS - 1, 0)
        self._wanted = LogQuery(group, start_ms=start_ms, after_event_id=after)
        self._seen: dict[str, str] = {}
        """Gateway → id of the last event that the follower has of it."""
        self._arrived: asyncio.Queue[LogEvent | None] = asyncio.Queue(_WAITING)
        self._tails: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> AsyncGenerator[LogEvent, None]:
        if self._wanted.start_ms is not None:
            after = self._wanted.after_event_id
            while page := await self._logs.page(self._wanted._replace(after_event_id=after)):
                for event, address in page:
                    after = self._seen[address] = event.event_id
                    yield event
        looking = asyncio.create_task(self._look(), name="follow the logs of all gateways")
        try:
            while (arrived := await self._arrived.get()) is not None:
                yield arrived
        finally:
            tasks = [looking, *self._tails.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            present = {"", *await self._logs.others()}
            for address in self._tails.keys() - present:
                self._tails.pop(address).cancel()
            for address in present - self._tails.keys():
                self._tails[address] = asyncio.create_task(
                    self._tail(address), name=f"follow logs of {address or 'this gateway'}"
                )
            await self._sleep(LOOK_SECONDS)

    async def _tail(self, address: str) -> None:
        after = self._seen.get(address, self._wanted.after_event_id)
        async with aclosing(self._logs.tail(address, self._wanted._replace(after_event_id=after))) as events:
            async for event in events:
                self._seen[address] = event.event_id
                await self._arrived.put(event)
        await self._arrived.put(None)  # this gateway's own store has closed


async def follow(store: LogStore, wanted: LogQuery) -> AsyncGenerator[LogEvent, None]:
    """The events of one store behind ``after_event_id``, stored and to come."""
    after = wanted.after_event_id or ""
    async with aclosing(store.follow(wanted.group, start_ms=wanted.start_ms or 0)) as events:
        async for event in events:
            if event.event_id > after:
                yield event
