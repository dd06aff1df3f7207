"""A gateway that leases what is due in PostgreSQL for minutes, says what, and holds it until it is killed: `python lease_holder.py DSN`."""

from __future__ import annotations

import asyncio
import sys

from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_queue import PostgresEventQueue


async def hold(dsn: str) -> None:
    queue = await PostgresEventQueue.open(await Postgres.open(dsn), look_seconds=0.05)
    queue.listen(lambda _: None)
    while queue.holder is None:
        await asyncio.sleep(0.02)
    leased = await queue.lease(10, lease_ms=300_000, share=10, rooms={})
    print(*(lease.event.event_id for lease in leased.leases), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(hold(sys.argv[1]))
