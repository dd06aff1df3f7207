"""`kappa dev` with its events in PostgreSQL instead of a file: the queue of a cluster and its worker in a process that is easily killed.

`POSTGRES_DSN=... python postgres_dev.py dev --port 0`. Everything else is as on a laptop.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Self

from kappa_core.ports.queue import Bounds
from kappa_gateway.cli.main import main
from kappa_gateway.embedded import gateway
from kappa_gateway.embedded.data_dir import DataDir
from kappa_gateway.events.assembly import AsyncEvents
from kappa_gateway.settings import Settings
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_queue import PostgresEventQueue


class PostgresEvents(AsyncEvents):
    """What EmbeddedEvents is with a file."""

    queue: PostgresEventQueue
    _close_connections: Callable[[], Any]

    @classmethod
    async def open(cls, settings: Settings, *, data_dir: DataDir) -> Self:
        postgres = await Postgres.open(os.environ["POSTGRES_DSN"])
        queue = await PostgresEventQueue.open(postgres, bounds=Bounds(total_bytes=settings.async_queue_bytes))
        events = cls(queue, settings, clock_ms=queue.clock_ms)
        events._close_connections = postgres.close
        return events

    def employ(self, **parts: Any) -> None:
        super().employ(**parts)
        self.queue.listen(self.wake)

    async def close(self) -> None:
        await self.queue.close()
        await self._close_connections()


if __name__ == "__main__":
    vars(gateway)["EmbeddedEvents"] = PostgresEvents
    main()
