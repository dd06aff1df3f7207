"""Whether the gateways that hold leases are still there: an advisory lock each, and an end to the leases of those whose lock nobody has.

A gateway takes a number and, on the connection on which it listens (:mod:`.postgres_wakes`), the lock of that number. PostgreSQL gives a
lock back with its session, at once when a process is killed. The others look every :data:`LOOK_SECONDS`; a number whose lock was free
whenever one of them looked for :data:`GONE_SECONDS` is gone, and what it leased may be leased again.

It is a guess like the end of a lease by time, only a better one, and as safe: the events lose their epoch, so that whatever a gateway
still says that was thought to be gone is refused. A gateway that has lost its connection (a restart of the server) has GONE_SECONDS to
take its lock again before any of its events may run twice. One whose node vanished keeps its lock until the server's keepalives fail:
its leases end by time.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from kappa_gateway.stores import postgres_queue_rows as rows

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
GONE_SECONDS: Final = 6.0
"""Longer than a gateway needs to connect again: RECONNECT_SECONDS of its wakes, CONNECT_SECONDS of PostgreSQL, and one look."""


class Presence:
    """See the module. ``freed`` is called with the uids of functions of which leases were ended."""

    def __init__(
        self, freed: Callable[[set[str]], None], *, gone_seconds: float = GONE_SECONDS, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._freed = freed
        self._gone_seconds = gone_seconds
        self._look_seconds = look_seconds
        self._number: int | None = None
        self._locked = False
        self._look_at = 0.0
        self._free_since: dict[int, float] = {}
        """When the lock of a number was first seen free, of those that were free ever since."""
        self.looks = 0

    @property
    def holder(self) -> int | None:
        """This gateway's number, while it can be known to be there."""
        return self._number if self._locked else None

    @property
    def look_seconds(self) -> float:
        """How often :meth:`look` wants to be called."""
        return self._look_seconds

    def lost(self) -> None:
        """The connection is gone, and the lock with it. What was seen meanwhile is nothing: nobody looked."""
        self._locked = False
        self._look_at = 0.0
        self._free_since.clear()

    async def look(self, connection: Any, *, now: int | None, lease_ms: int) -> None:
        """Take the lock if it is not taken, and end the leases of who is gone; does nothing if the last time was just now. ``now`` is the
        queue's time, ``lease_ms`` how long a lease is at most. Raises what asyncpg raises."""
        moment = time.monotonic()
        if moment < self._look_at:
            return
        self._look_at = moment + self._look_seconds
        if not self._locked:
            self._number, self._locked = await rows.be_present(connection, self._number, session=socket.gethostname())
        free = await rows.free_holders(connection)
        self._free_since = {number: self._free_since.get(number, moment) for number in free if number != self._number}
        for number, since in list(self._free_since.items()):
            if moment - since >= self._gone_seconds:
                del self._free_since[number]
                await self._end(connection, number, now=now, lease_ms=lease_ms)
        self.looks += 1

    async def _end(self, connection: Any, number: int, *, now: int | None, lease_ms: int) -> None:
        ended = await rows.end_leases(connection, number, now=now, lease_ms=lease_ms)
        if ended:
            _log.info("the gateway with number %d is gone: %d events that it had in hand are free", number, len(ended))
            self._freed(set(ended))

    async def leave(self, connection: Any) -> None:
        """This gateway stops, and has put back what it had. Raises what asyncpg raises."""
        if self._number is not None:
            await rows.leave(connection, self._number)
            self._number, self._locked = None, False
