"""PostgreSQL as the stores of a cluster's gateways want it: a small pool, short waits, and one word for everything that may go wrong.

Connections are made when they are needed and made anew when they were lost, so a gateway starts, and answers what needs no database,
while the database is away; the schema is brought up to date with the first connection (:mod:`.postgres_schema`). Whoever asks while the
server cannot be reached is refused at once: only one caller in :data:`REFUSE_SECONDS` finds out whether it is back. Whatever PostgreSQL
answers with becomes one :class:`~kappa_core.ports.store.StoreUnavailable` with a line for people, which never has the password in it.

It knows no tables. A commit that returned is on the server's disk (and on its synchronous standbys, where it has some): a server
configured with ``synchronous_commit = off`` is overruled. Statements are prepared per session: a pooler in between must pool sessions.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self

import asyncpg

from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores.postgres_schema import Migration, migrate, migrations

_log = logging.getLogger(__name__)

CONNECTIONS: Final = 10
"""At most, of one gateway; one more listens. The stores ask for fewer at once, so nobody waits. PostgreSQL's default is 100 in all."""
CONNECT_SECONDS: Final = 3.0
STATEMENT_SECONDS: Final = 10.0
"""After which a statement is cancelled, where the caller does not say otherwise."""
REFUSE_SECONDS: Final = 0.5
"""How long after a failed attempt to connect all are refused without another one."""
_IDLE_SECONDS: Final = 60.0

_SESSION: Final = {
    "application_name": f"kappa-gateway {socket.gethostname()}"[:63],
    "timezone": "UTC",
    # The locks of a gateway whose node vanished in the middle of a transaction must not outlive it for long.
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # Every statement here is short: compiling one takes longer than running it.
    "jit": "off",
    # Tables grow from nothing to a million rows and shrink again between two looks of the planner's statistics. Every statement here has
    # its index, and goes through it row by row.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

LOST: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ConnectionError)
"""What asyncpg raises on a connection, besides TimeoutError."""
_ERRORS: Final = (*LOST, OSError, ValueError)
"""What it raises while it connects; a timeout is an OSError, an address that means nothing a ValueError."""


class _Session(asyncpg.Connection):  # type: ignore[misc] # asyncpg has no types
    """A connection on which nothing is set for one caller alone, so that handing it on needs no statement."""

    def get_reset_query(self) -> str:
        return ""


class Postgres:
    """See the module. Use :meth:`open`; belongs to the event loop it was opened on."""

    def __init__(self, dsn: str, *, connections: int, schema: tuple[Migration, ...]) -> None:
        self._how: dict[str, Any] = {
            "dsn": dsn,
            "command_timeout": STATEMENT_SECONDS,
            "connection_class": _Session,
            "server_settings": _SESSION,
            "target_session_attrs": "read-write",
            "timeout": CONNECT_SECONDS,
        }
        self._pool = asyncpg.create_pool(
            **self._how, min_size=0, max_size=connections, max_inactive_connection_lifetime=_IDLE_SECONDS, init=_prepare
        )
        self._schema = schema
        self._migrated = False
        self._migrating = asyncio.Lock()
        self._refusal = StoreUnavailable("PostgreSQL has not been reached yet")
        self._refuse_until = 0.0
        self._closed = False

    @classmethod
    async def open(cls, dsn: str, /, *, connections: int = CONNECTIONS, schema: tuple[Migration, ...] | None = None) -> Self:
        """Connect and bring the schema up to date. ``dsn`` is a libpq URI; several hosts, for a failover, are separated by commas.

        A server that cannot be reached now is no error here, but a line in the log. Raises StoreUnavailable for a DSN that means nothing.
        """
        postgres = cls(dsn, connections=connections, schema=migrations() if schema is None else schema)
        await postgres._pool
        try:
            async with postgres.connection():
                pass
        except _Misconfigured:
            await postgres.close()
            raise
        except StoreUnavailable as error:
            _log.error("%s; it is tried again when it is needed", error)
        return postgres

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection of the pool, of a database with the schema this code knows. Raises StoreUnavailable, also for what the block
        meets of PostgreSQL."""
        connection = await self._acquire()
        try:
            if not self._migrated:
                await self._migrate(connection)
            yield connection
        except TimeoutError as error:
            # The statement may still run; nobody else is to wait for it on this connection.
            connection.terminate()
            raise StoreUnavailable("PostgreSQL did not answer in time") from error
        except LOST as error:
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                # A failover: what was the primary is a standby now.
                await self._pool.expire_connections()
            raise explain(error) from error
        finally:
            await self._release(connection)

    async def fetch(self, statement: str, /, *arguments: object, seconds: float | None = None) -> list[Any]:
        """One statement in a transaction of its own; its rows. Raises StoreUnavailable."""
        async with self.connection() as connection:
            rows: list[Any] = await connection.fetch(statement, *arguments, timeout=seconds)
        return rows

    async def listener(self) -> Any:
        """A connection beside the pool, for LISTEN; the caller closes it. Raises StoreUnavailable."""
        async with self.connection():
            pass  # the schema is there, and the server is
        try:
            return await asyncpg.connect(**self._how)
        except _ERRORS as error:
            raise explain(error) from error

    async def close(self) -> None:
        """Give callers under way a moment to finish, then close every connection. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(STATEMENT_SECONDS):
                await self._pool.close()
        except _ERRORS:
            self._pool.terminate()

    async def _acquire(self) -> Any:
        if self._closed:
            raise StoreUnavailable("the connections to PostgreSQL are closed")
        now = asyncio.get_running_loop().time
        if now() < self._refuse_until:
            raise StoreUnavailable(str(self._refusal))
        try:
            return await self._pool.acquire(timeout=CONNECT_SECONDS)
        except _ERRORS as error:
            self._refusal = explain(error)
            self._refuse_until = now() + REFUSE_SECONDS
            raise self._refusal from error

    async def _release(self, connection: Any) -> None:
        with suppress(*_ERRORS):  # it is lost, and the pool knows
            await self._pool.release(connection, timeout=CONNECT_SECONDS)

    async def _migrate(self, connection: Any) -> None:
        async with self._migrating:
            if self._migrated:
                return
            applied = await migrate(connection, self._schema)
            for migration in applied:
                _log.info("PostgreSQL: applied migration %04d_%s", migration.number, migration.name)
            self._migrated = True


class _Misconfigured(StoreUnavailable):
    """No server will ever be reached this way."""


async def _prepare(connection: Any) -> None:
    """Every new connection: never answer for what only the server's memory has."""
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )


def _misconfigured(error: BaseException) -> _Misconfigured:
    return _Misconfigured(f"KAPPA_POSTGRES_DSN is no usable address of a PostgreSQL server ({type(error).__name__})")


def explain(error: BaseException) -> StoreUnavailable:
    """The line for people behind an error of PostgreSQL or of the way to it."""
    match error:
        case StoreUnavailable():
            return error
        case asyncpg.DiskFullError() | asyncpg.OutOfMemoryError() | asyncpg.TooManyConnectionsError():
            return StoreUnavailable(f"PostgreSQL has no room: {error}")
        case (
            asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError() | asyncpg.InvalidCatalogNameError()
        ):
            return StoreUnavailable(f"PostgreSQL refuses this gateway: {error}")
        case asyncpg.InsufficientPrivilegeError():
            return StoreUnavailable(f"PostgreSQL does not let this gateway make or use its tables: {error}")
        case asyncpg.ReadOnlySQLTransactionError() | asyncpg.TargetServerAttributeNotMatched():
            return StoreUnavailable("PostgreSQL is a standby that cannot be written")
        case asyncpg.ClientConfigurationError():
            return _misconfigured(error)
        case asyncpg.PostgresError():
            return StoreUnavailable(f"PostgreSQL: {error}")
        case TimeoutError():
            return StoreUnavailable("PostgreSQL did not answer in time")
        case OSError():
            return StoreUnavailable(f"PostgreSQL cannot be reached: {error.strerror or error}")
        case ValueError():
            return _misconfigured(error)
        case _:
            return StoreUnavailable(f"the connection to PostgreSQL failed: {error}")
