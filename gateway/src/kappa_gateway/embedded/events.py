"""Asynchronous invocations of an embedded gateway: :class:`~kappa_gateway.events.assembly.AsyncEvents` over the queue's file.

Opened before the gateway listens, so that no event is refused for want of a queue, and closed before the links: what runs is put down
first, then the environments end.
"""

from __future__ import annotations

from typing import Self

from kappa_core.ports.queue import Bounds
from kappa_gateway.embedded.data_dir import DataDir
from kappa_gateway.events.assembly import AsyncEvents
from kappa_gateway.settings import Settings
from kappa_gateway.stores.queue import SqliteEventQueue


class EmbeddedEvents(AsyncEvents):
    """See the module. :meth:`open` first, :meth:`close` at the end."""

    @classmethod
    async def open(cls, settings: Settings, *, data_dir: DataDir) -> Self:
        """Open the queue. Raises StoreUnavailable."""
        alone = not (settings.peers or settings.scaler)
        bounds = Bounds(total_bytes=settings.async_queue_bytes)
        return cls(await SqliteEventQueue.open(data_dir.events, alone=alone, bounds=bounds), settings)

    async def close(self) -> None:
        await self.queue.close()
