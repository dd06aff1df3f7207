"""A process of its own that works on an EventQueue until it is killed: ``python queue_process.py FILE-OR-DSN PREFIX``.

Some of its tasks enqueue, the others lease, run nothing, and acknowledge, return or give up. After each answer it prints a line:
``in ID``, ``done ID``, ``dead ID``; ``unsure ID`` where the queue went away instead of answering.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import zlib
from pathlib import Path

from kappa_core.ports.queue import EventQueue, LeaseLost
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_queue import PostgresEventQueue
from kappa_gateway.stores.queue import SqliteEventQueue
from queue_samples import event


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def opened(where: str) -> EventQueue:
    if where.startswith("postgresql:"):
        return await PostgresEventQueue.open(await Postgres.open(where))
    return await SqliteEventQueue.open(Path(where), alone=True)


async def work(where: str, prefix: str) -> None:
    queue = await opened(where)

    async def produce(number: int) -> None:
        for turn in itertools.count():
            name = f"{prefix}-{number}-{turn}"
            payload = name.encode() * (10_000 if turn % 20 == 0 else 1)
            try:
                await queue.enqueue(event(name, function=f"f{number}", payload=payload))
            except StoreUnavailable:
                await asyncio.sleep(0.02)  # nobody was told that it is there
            else:
                say(f"in {name}")

    async def consume() -> None:
        while True:
            try:
                leased = await queue.lease(5, lease_ms=60_000, share=5, rooms={})
            except StoreUnavailable:
                await asyncio.sleep(0.02)
                continue
            for lease in leased.leases:
                name = lease.event.event_id
                assert lease.event.payload.startswith(name.encode())
                fate = zlib.crc32(name.encode()) % 10
                try:
                    if fate < 3:
                        await queue.nack(lease, after_ms=3_600_000)
                    elif fate < 5:
                        await queue.kill(lease, reason="RetriesExhausted")
                        say(f"dead {name}")
                    elif fate < 9:
                        await queue.ack(lease)
                        say(f"done {name}")
                except LeaseLost:
                    say(f"lost {name}")
                except StoreUnavailable:
                    say(f"unsure {name}")
            await asyncio.sleep(0.001)

    await asyncio.gather(*(produce(number) for number in range(3)), *(consume() for _ in range(2)))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2]))
