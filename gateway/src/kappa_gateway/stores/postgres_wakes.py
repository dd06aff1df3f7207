"""Carries the news that something was put into the queue to the workers of other gateways: LISTEN and NOTIFY on one connection.

NOTIFY takes a lock of the whole server until its commit, so it is no part of the transaction that stores an event: what was put in within
:data:`GATHER_SECONDS` is told at once, on the listening connection, without waiting for the disk. News may get lost, with a connection or
a gateway that dies between the two; a worker therefore also looks from time to time by itself. Nothing is ever decided by them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores.postgres import CONNECT_SECONDS, LOST, Postgres

_log = logging.getLogger(__name__)

CHANNEL: Final = "kappa_events"
GATHER_SECONDS: Final = 0.01
FUNCTIONS: Final = 64
"""More than this many at once are told as "any": a payload of NOTIFY has less than 8,000 bytes."""
RECONNECT_SECONDS: Final = 1.0
Look = Callable[[Any], Awaitable[None]]
Leave = Callable[[Any], Awaitable[None]]


class Wakes:
    """See the module. :meth:`start`, :meth:`tell` at any time, :meth:`close`."""

    def __init__(self, postgres: Postgres, *, look: Look, leave: Leave, lost: Callable[[], None], heartbeat: float) -> None:
        """``look`` is called with the connection while there is one, at least every ``heartbeat`` seconds: a connection that is none any
        more is noticed by that. ``leave`` is called before it is closed on purpose, ``lost`` when it is gone."""
        self._postgres = postgres
        self._heartbeat = heartbeat
        self._look, self._leave, self._lost = look, leave, lost
        self._untold: set[str] = set()
        self._something = asyncio.Event()
        self._listening = False
        self._task: asyncio.Task[None] | None = None

    def start(self, wake: Callable[[str], None]) -> None:
        """Begin to listen and to tell. ``wake`` gets a function's uid, or "" where it may be any."""
        self._task = asyncio.create_task(self._run(wake), name="listen for events of other gateways")

    def tell(self, function_uid: str) -> None:
        """Something of this function was put into the queue. While nobody listens here, nobody is told either."""
        if self._listening:
            self._untold.add(function_uid)
            self._something.set()

    async def close(self) -> None:
        """Tell the last, then stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, wake: Callable[[str], None]) -> None:
        while True:
            try:
                connection = await self._postgres.listener()
                try:
                    await self._serve(connection, wake)
                finally:
                    self._listening = False
                    self._lost()
                    await self._tell_last(connection)
            except (StoreUnavailable, *LOST, OSError) as error:
                _log.info("news of other gateways' events does not arrive: %s", error)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _serve(self, connection: Any, wake: Callable[[str], None]) -> None:
        own = connection.get_server_pid()

        def heard(_: Any, sender: int, __: str, payload: str) -> None:
            if sender != own:  # this gateway's worker is woken without a detour
                for function_uid in payload.split() or ("",):
                    wake(function_uid)

        # No event depends on it: its commit need not reach the disk.
        await connection.execute("SET synchronous_commit = off")
        await connection.add_listener(CHANNEL, heard)
        self._listening = True
        wake("")  # what came before, or while there was no connection
        while True:
            await self._look(connection)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat):
                    await self._something.wait()
            await asyncio.sleep(GATHER_SECONDS)
            await self._flush(connection)

    async def _flush(self, connection: Any) -> None:
        """Tell what there is."""
        self._something.clear()
        untold, self._untold = self._untold, set()
        if untold:
            payload = " ".join(untold) if len(untold) <= FUNCTIONS else ""
            await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)

    async def _tell_last(self, connection: Any) -> None:
        """What a gateway that stops has put back is for the others to take up."""
        try:
            if not connection.is_closed():
                if self._untold:
                    await self._flush(connection)
                await self._leave(connection)
            await connection.close(timeout=CONNECT_SECONDS)
        except (*LOST, OSError):
            connection.terminate()
