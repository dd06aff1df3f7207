"""Random histories of an EventQueue against a model of a few lines: nothing is lost, nothing ends twice, whatever the consumers forget.

Consumers forget leases, as a killed process does, and speak up late; enqueues are given up half way; durable drivers are closed and
opened again in between. The seed of a failure is its test id.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kappa_core.memory import MemoryEventQueue
from kappa_core.ports.queue import NOBODY, Dead, EventQueue, Lease, LeaseLost
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_queue import PostgresEventQueue
from kappa_gateway.stores.queue import SqliteEventQueue
from postgres_server import PostgresServer
from queue_samples import event

STEPS = 400
LEASE_MS = 1_000
FUNCTIONS = ("a", "b", "c")


class History:
    """One history: the queue under test, and what must be true of it."""

    def __init__(self, reopen: Callable[[EventQueue | None], Coroutine[Any, Any, EventQueue]], dice: random.Random) -> None:
        self.now = 1_000_000
        self._reopen = reopen
        self._dice = dice
        self.queue: EventQueue
        self.leases: list[Lease] = []
        """Every lease there ever was; consumers speak up for any of them."""
        self.holder: dict[str, tuple[int, int]] = {}
        """Epoch of the last lease and when it ends, of events that wait."""
        self.dead: set[str] = set()
        self.ended: list[str] = []
        self.purged: set[str] = set()
        self.unsure: set[str] = set()
        """Their enqueue was given up before it was answered."""
        self.count = 0

    async def run(self) -> None:
        self.queue = await self._reopen(None)
        steps = [self.enqueue] * 6 + [self.abandon, self.take, self.take, self.take]
        steps += [self.speak] * 6 + [self.wait, self.wait, self.redrive, self.purge, self.restart]
        for _ in range(STEPS):
            await self._dice.choice(steps)()
        await self.drain()
        await self.queue.close()

    async def enqueue(self) -> None:
        self.count += 1
        name = f"e{self.count}"
        payload = b"x" * self._dice.choice((0, 10, 100_000))
        await self.queue.enqueue(
            event(name, function=self._dice.choice(FUNCTIONS), payload=payload), delay_ms=self._dice.choice((0, 300))
        )
        self.holder[name] = (NOBODY, 0)

    async def abandon(self) -> None:
        self.count += 1
        name = f"e{self.count}"
        half_way = asyncio.create_task(self.queue.enqueue(event(name, function=self._dice.choice(FUNCTIONS))))
        await asyncio.sleep(0)
        half_way.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await half_way
        self.unsure.add(name)

    async def take(self) -> None:
        rooms = {f"uid-{self._dice.choice(FUNCTIONS)}": self._dice.randrange(3)}
        leased = await self.queue.lease(
            self._dice.randrange(1, 6), lease_ms=LEASE_MS, share=self._dice.randrange(1, 4), rooms=rooms
        )
        for lease in leased.leases:
            name = lease.event.event_id
            epoch, until = self.holder.get(name, (NOBODY, 0))
            assert name in self.holder or name in self.unsure
            assert until <= self.now, "leased while somebody held it"
            assert lease.epoch > epoch
            self.unsure.discard(name)
            self.holder[name] = (lease.epoch, self.now + LEASE_MS)
            self.leases.append(lease)

    async def speak(self) -> None:
        if not self.leases:
            return
        lease = self._dice.choice(self.leases)
        name = lease.event.event_id
        mine = self.holder.get(name, (NOBODY, 0))[0] == lease.epoch
        what = self._dice.choice(("ack", "nack", "kill", "extend"))
        try:
            if what == "ack":
                await self.queue.ack(lease)
            elif what == "nack":
                await self.queue.nack(lease, after_ms=self._dice.choice((0, 500)))
            elif what == "kill":
                await self.queue.kill(lease, reason="RetriesExhausted")
            else:
                await self.queue.extend(lease, lease_ms=LEASE_MS)
        except LeaseLost:
            assert not mine
            return
        assert mine
        if what == "nack":
            self.holder[name] = (NOBODY, 0)
        elif what == "extend":
            self.holder[name] = (lease.epoch, self.now + LEASE_MS)
        else:
            del self.holder[name]
            (self.ended.append if what == "ack" else self.dead.add)(name)

    async def wait(self) -> None:
        self.now += self._dice.choice((1, 400, LEASE_MS, 5 * LEASE_MS))

    async def redrive(self) -> None:
        function = f"uid-{self._dice.choice(FUNCTIONS)}"
        there = {one.event.event_id for one in await self.queue.dead_letters(function, limit=STEPS)}
        assert there <= self.dead
        assert await self.queue.redrive(function) == len(there)
        self.dead -= there
        self.holder |= dict.fromkeys(there, (NOBODY, 0))

    async def purge(self) -> None:
        name = f"e{self._dice.randrange(self.count + 1)}"
        found = await self.queue.find(name)
        if found is not None and await self.queue.purge(found.event.function_uid, dead=isinstance(found, Dead), event_id=name):
            self.holder.pop(name, None)
            self.dead.discard(name)
            self.unsure.discard(name)
            self.purged.add(name)

    async def restart(self) -> None:
        """A crash of the process: what it had leased is free at once where it worked alone."""
        reopened = await self._reopen(self.queue)
        if reopened is not self.queue:
            self.queue = reopened
            self.holder = dict.fromkeys(self.holder, (NOBODY, 0))

    async def drain(self) -> None:
        """Run everything that is left to its end: each event that was accepted is there, once."""
        self.now += 10 * LEASE_MS
        for function in FUNCTIONS:
            await self.queue.redrive(f"uid-{function}")
        left = set(self.holder) | self.dead
        found: set[str] = set()
        while leased := (await self.queue.lease(50, lease_ms=LEASE_MS, share=50, rooms={})).leases:
            for lease in leased:
                assert lease.event.event_id not in found
                found.add(lease.event.event_id)
                await self.queue.ack(lease)
        assert left <= found <= left | self.unsure
        assert not found & self.purged
        assert len(set(self.ended)) == len(self.ended)
        assert not found & set(self.ended)
        stats = await self.queue.stats()
        assert [(one.depth, one.depth_bytes, one.dead) for one in stats] == [(0, 0, 0)] * len(stats)
        assert sum(one.done for one in stats) == len(self.ended) + len(found)


@pytest.mark.parametrize(
    ("driver", "seed"),
    [*[(driver, seed) for driver in ("memory", "sqlite") for seed in range(12)], *[("postgres", n) for n in range(6)]],
)
def test_no_history_loses_an_event_or_ends_it_twice(
    driver: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dice = random.Random(seed)
    server: PostgresServer | None = request.getfixturevalue("postgres_server") if driver == "postgres" else None
    dsn: str = request.getfixturevalue("postgres_dsn") if driver == "postgres" else ""

    async def main() -> None:
        async def memory(before: EventQueue | None) -> EventQueue:
            return before or MemoryEventQueue(clock_ms=lambda: history.now)

        async def sqlite(before: EventQueue | None) -> EventQueue:
            if before is not None:
                await before.close()
            return await SqliteEventQueue.open(tmp_path / "events.db", alone=True, clock_ms=lambda: history.now)

        async def postgres(before: EventQueue | None) -> EventQueue:
            if before is None:
                return await PostgresEventQueue.open(connections, clock_ms=lambda: history.now)
            assert server is not None
            await asyncio.to_thread(dice.choice([server.restart, *[lambda: server.kill_connections(dsn)] * 4]))
            await until_usable(before)
            return before

        async with asyncio.timeout(120), contextlib.AsyncExitStack() as stack:
            if dsn:
                connections = await Postgres.open(dsn)
                stack.push_async_callback(connections.close)
            history = History({"memory": memory, "sqlite": sqlite, "postgres": postgres}[driver], dice)
            await history.run()

    asyncio.run(main())


async def until_usable(queue: EventQueue) -> None:
    """Until a queue whose connections were lost has new ones."""
    while True:
        try:
            await queue.stats()
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        else:
            return
