"""The EventQueue in PostgreSQL at its port: enqueues and acknowledgements a second, and what a million waiting events cost.

A server of its own with every commit on the disk, beside the gateway's part on the same machine; events of 1 KiB. What it measures is
one gateway's queue with its batches, without HTTP and without running anything.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from statistics import median

import uvloop
from bench.report import Report

import process_tree
from kappa_core.ports.queue import Event, Lease
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_queue import PostgresEventQueue
from postgres_server import PostgresServer, binaries, postgres

CALLERS = 256
IN_HAND = 100
ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
TITLE = "asynchronous: the queue in PostgreSQL, one gateway"


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:  # one signature for all
    """Run it and report."""
    if binaries() is None:
        report.add(TITLE, "enqueued", None, "/s", at_least=10_000.0, why_not="no PostgreSQL server is installed")
        return
    with postgres(durable=True) as server:
        uvloop.run(_measure(report, server, quick=quick))


async def _measure(report: Report, server: PostgresServer, *, quick: bool) -> None:
    connections = await Postgres.open(server.create_database("bench"))
    queue = await PostgresEventQueue.open(connections)
    batch = 10_000 if quick else 50_000
    before = process_tree.memory([os.getpid()]).resident
    waiting = 0
    rates = []
    cpu = time.process_time()
    for _ in range(3 if quick else 20):
        begun = time.monotonic()
        await _enqueue(queue, batch)
        waiting += batch
        rates.append(batch / (time.monotonic() - begun))
    report.add(TITLE, "enqueued", median(rates), "/s", at_least=10_000.0)
    report.add(TITLE, "enqueued, slowest batch", min(rates), "/s")
    report.add(TITLE, "CPU of gateway for each", (time.process_time() - cpu) / waiting * 1e6, "µs")
    report.add(TITLE, "events that wait then", waiting, "")
    report.add(
        TITLE, "memory of the gateway that they cost", (process_tree.memory([os.getpid()]).resident - before) / waiting, "B each"
    )
    waits = []
    for _ in range(20):
        begun = time.monotonic()
        await queue.enqueue(_event("another"))
        (lease,) = (await queue.lease(1, lease_ms=60_000, share=1, rooms={"uid-function": 0})).leases
        waits.append((time.monotonic() - begun) * 1000)
        await queue.ack(lease)
    report.add(TITLE, "enqueue and lease of another function's event: p50", median(waits), "ms", at_most=50.0)
    report.add(TITLE, "the same, worst", max(waits), "ms")
    begun, done = time.monotonic(), 0
    while done < (10_000 if quick else 100_000):
        leased = (await queue.lease(IN_HAND, lease_ms=60_000, share=IN_HAND, rooms={})).leases
        await _ack(queue, leased)
        done += len(leased)
    report.add(TITLE, f"leased, {IN_HAND} at once, and acknowledged", done / (time.monotonic() - begun), "/s")
    await queue.close()
    await connections.close()


async def _enqueue(queue: PostgresEventQueue, count: int) -> None:
    left = iter(range(count))

    async def call() -> None:
        for _ in left:
            await queue.enqueue(_event("function"))

    await asyncio.gather(*(call() for _ in range(CALLERS)))


async def _ack(queue: PostgresEventQueue, leases: list[Lease]) -> None:
    await asyncio.gather(*(queue.ack(lease) for lease in leases))


def _event(function: str) -> Event:
    return Event(event_id=os.urandom(16).hex(), function_uid=f"uid-{function}", function_arn=ARN + function, payload=b"x" * 1024)
