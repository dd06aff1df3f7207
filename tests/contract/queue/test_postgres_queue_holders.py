"""What a gateway had in hand that was killed is free seconds later, not at the end of its leases; and nobody else's is."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

import lease_holder
from kappa_core.ports.queue import Lease, LeaseLost
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_queue import PostgresEventQueue
from postgres_server import PostgresServer
from queue_samples import event

LONG_MS = 600_000
"""A lease that does not end by time while a test runs."""


@contextlib.asynccontextmanager
async def gateway(dsn: str, *, gone_seconds: float = 0.2) -> AsyncIterator[PostgresEventQueue]:
    """One that listens, and is known to be there."""
    postgres = await Postgres.open(dsn, connections=4)
    queue = await PostgresEventQueue.open(postgres, gone_seconds=gone_seconds, look_seconds=0.05)
    queue.listen(lambda _: None)
    await until(lambda: present(queue))
    yield queue
    await queue.close()
    await postgres.close()


async def present(queue: PostgresEventQueue) -> bool:
    return queue.holder is not None


async def until(true: Callable[[], Awaitable[Any]]) -> Any:
    """What it answers once that is true; the scenario has a limit of its own."""
    while True:
        with contextlib.suppress(StoreUnavailable):
            if found := await true():
                return found
        await asyncio.sleep(0.02)


async def lease(queue: PostgresEventQueue, *, lease_ms: int = LONG_MS) -> list[Lease]:
    return (await queue.lease(10, lease_ms=lease_ms, share=10, rooms={})).leases


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(main())


def test_what_a_killed_gateway_had_in_hand_is_leased_again_although_its_leases_go_on(postgres_dsn: str) -> None:
    async def scenario() -> None:
        async with gateway(postgres_dsn) as queue:
            for name in ("a", "b", "c"):
                await queue.enqueue(event(name, function=name))
            (own,) = (await queue.lease(1, lease_ms=LONG_MS, share=1, rooms={})).leases
            command = [sys.executable, lease_holder.__file__, postgres_dsn]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
                assert other.stdout is not None
                taken = (await asyncio.to_thread(other.stdout.readline)).split()
                assert sorted([own.event.event_id, *taken]) == ["a", "b", "c"]
                assert await lease(queue) == []
                other.kill()
            again: list[Lease] = []

            async def both() -> bool:
                again.extend(await lease(queue))
                return len(again) == 2

            await until(both)
            assert sorted(each.event.event_id for each in again) == sorted(taken)
            assert {each.leases for each in again} == {2}
            await queue.ack(own)  # nothing happened to what others have in hand

    run(scenario)


def test_a_gateway_that_is_wrongly_thought_to_be_gone_is_refused_whatever_it_says(
    postgres_server: PostgresServer, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with gateway(postgres_dsn) as first:
            await first.enqueue(event("e"))
            (lost,) = await lease(first)
            monkeypatch.setattr("kappa_gateway.stores.postgres_wakes.RECONNECT_SECONDS", 3600)
            await asyncio.to_thread(postgres_server.kill_connections, postgres_dsn)
            await until(lambda: absent(first))
            async with gateway(postgres_dsn) as second:
                (again,) = await until(lambda: lease(second))
                for word in (first.ack(lost), first.extend(lost, lease_ms=1), first.kill(lost, reason="x")):
                    with pytest.raises(LeaseLost):
                        await word
                await second.ack(again)

    run(scenario)


async def absent(queue: PostgresEventQueue) -> bool:
    return queue.holder is None


def test_a_gateway_that_is_back_in_time_keeps_what_it_has_in_hand(
    postgres_server: PostgresServer, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kappa_gateway.stores.postgres_wakes.RECONNECT_SECONDS", 0.05)

    async def scenario() -> None:
        async with gateway(postgres_dsn, gone_seconds=30) as first, gateway(postgres_dsn, gone_seconds=30) as second:
            await first.enqueue(event("e"))
            (kept,) = await lease(first)
            number = first.holder
            await asyncio.to_thread(postgres_server.restart)
            await until(lambda: present(first))
            await until(lambda: present(second))
            assert first.holder == number
            assert await lease(second) == []
            await first.ack(kept)

    run(scenario)


def test_what_is_leased_by_a_gateway_that_does_not_listen_ends_by_time_alone(postgres_dsn: str) -> None:
    async def scenario() -> None:
        postgres = await Postgres.open(postgres_dsn, connections=2)
        silent = await PostgresEventQueue.open(postgres)
        async with gateway(postgres_dsn) as queue:
            await queue.enqueue(event("e"))
            (held,) = await lease(silent)
            before = queue.looks
            await until(lambda: looked(queue, before + 20))
            assert await lease(queue) == []
            await silent.ack(held)
        await silent.close()
        await postgres.close()

    run(scenario)


async def looked(queue: PostgresEventQueue, times: int) -> bool:
    return queue.looks >= times


def test_a_gateway_that_stops_leaves_no_number_behind(postgres_server: PostgresServer, postgres_dsn: str) -> None:
    async def scenario() -> None:
        async with gateway(postgres_dsn):
            assert postgres_server.execute("SELECT count(*) FROM kappa.holders", dsn=postgres_dsn) == "1"

    run(scenario)
    assert postgres_server.execute("SELECT count(*) FROM kappa.holders", dsn=postgres_dsn) == "0"
