"""PostgreSQL's connections and schema when things go wrong: away, back, wrong address, two gateways at once, a newer schema."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kappa_core.ports.blobs import BlobStoreUnavailable
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_blobs import PostgresBlobStore
from kappa_gateway.stores.postgres_queue import PostgresEventQueue
from kappa_gateway.stores.postgres_schema import Migration, migrations
from postgres_server import PostgresServer
from queue_samples import event


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(main())


def test_without_a_server_every_call_is_refused_at_once_and_nothing_else_fails(tmp_path: Any) -> None:
    async def scenario() -> None:
        postgres = await Postgres.open(f"postgresql://kappa:secret-word@/kappa?host={tmp_path}")
        queue = await PostgresEventQueue.open(postgres)
        blobs = await PostgresBlobStore.open(postgres, cache=tmp_path / "cache")
        with pytest.raises(StoreUnavailable) as refused:
            await queue.enqueue(event("e"))
        assert "secret-word" not in str(refused.value)
        with pytest.raises(BlobStoreUnavailable):
            await blobs.put(b"code")
        await queue.close()
        await blobs.close()
        await postgres.close()

    run(scenario)


def test_a_server_that_does_not_answer_holds_up_one_caller_and_not_those_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kappa_gateway.stores.postgres.CONNECT_SECONDS", 0.3)

    async def scenario() -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(64)
            postgres = await Postgres.open(f"postgresql://kappa@127.0.0.1:{silent.getsockname()[1]}/kappa")
            for _ in range(20):
                with pytest.raises(StoreUnavailable):
                    await postgres.fetch("SELECT 1")
            silent.setblocking(False)
            attempts = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    silent.accept()[0].close()
                    attempts += 1
            assert attempts <= 2  # that of the start, and at most one more
            await postgres.close()

    run(scenario)


@pytest.mark.parametrize("dsn", ["nonsense", "mysql://a/b", "postgresql://h:port/x"])
def test_an_address_that_means_nothing_is_an_error_at_start(dsn: str) -> None:
    async def scenario() -> None:
        with pytest.raises(StoreUnavailable, match="KAPPA_POSTGRES_DSN"):
            await Postgres.open(dsn)

    run(scenario)


def test_a_gateway_that_started_without_its_database_works_once_it_is_there(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    async def scenario() -> None:
        postgres_server.stop()
        try:
            postgres = await Postgres.open(postgres_dsn)
            queue = await PostgresEventQueue.open(postgres)
            with pytest.raises(StoreUnavailable):
                await queue.enqueue(event("too early"))
        finally:
            postgres_server.start()
        deadline = time.monotonic() + 10
        while True:
            try:
                await queue.enqueue(event("e"))
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        assert await queue.find("too early") is None
        assert await queue.find("e") is not None
        await queue.close()
        await postgres.close()

    run(scenario)


def test_a_stopped_server_refuses_enqueues_and_what_it_had_acknowledged_is_there_afterwards(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    async def scenario() -> None:
        postgres = await Postgres.open(postgres_dsn)
        queue = await PostgresEventQueue.open(postgres)
        await queue.enqueue(event("before"))
        postgres_server.stop(signal.SIGQUIT)
        try:
            with pytest.raises(StoreUnavailable):
                await queue.enqueue(event("while"))
        finally:
            postgres_server.start()
        await asyncio.sleep(0.6)
        assert await queue.find("before") is not None
        assert await queue.find("while") is None
        await queue.close()
        await postgres.close()

    run(scenario)


def test_gateways_that_start_at_once_make_one_schema(postgres_server: PostgresServer, postgres_dsn: str) -> None:
    async def scenario() -> None:
        gateways = await asyncio.gather(*(Postgres.open(postgres_dsn, connections=1) for _ in range(6)))
        for postgres in gateways:
            assert await postgres.fetch("SELECT count(*) FROM kappa.events")
            await postgres.close()
        numbers = postgres_server.execute(
            "SELECT string_agg(number::text, ',' ORDER BY number) FROM kappa.migrations", dsn=postgres_dsn
        )
        assert numbers == ",".join(str(one.number) for one in migrations())

    run(scenario)


def _next(oldest_code: int, statements: str = "CREATE TABLE kappa.later ()") -> Migration:
    return Migration(len(migrations()) + 1, "later", oldest_code, statements)


def test_a_newer_schema_is_worked_with_while_it_says_that_this_code_can(postgres_dsn: str) -> None:
    async def scenario() -> None:
        newer = await Postgres.open(postgres_dsn, schema=(*migrations(), _next(oldest_code=len(migrations()))))
        older = await Postgres.open(postgres_dsn)
        assert await older.fetch("SELECT * FROM kappa.later") == []
        await older.close()
        await newer.close()

    run(scenario)


def test_a_schema_that_this_code_is_too_old_for_is_refused_in_one_line(postgres_dsn: str) -> None:
    async def scenario() -> None:
        newer = await Postgres.open(postgres_dsn, schema=(*migrations(), _next(oldest_code=len(migrations()) + 1)))
        older = await Postgres.open(postgres_dsn)
        with pytest.raises(StoreUnavailable, match="upgrade Kappa"):
            await older.fetch("SELECT 1")
        await older.close()
        await newer.close()

    run(scenario)


def test_a_migration_that_fails_leaves_nothing_and_is_tried_again(postgres_dsn: str) -> None:
    async def scenario() -> None:
        broken = await Postgres.open(postgres_dsn, schema=(*migrations(), _next(1, "CREATE TABLE kappa.later (); SELECT 1 / 0")))
        with pytest.raises(StoreUnavailable):
            await broken.fetch("SELECT 1")
        await broken.close()
        mended = await Postgres.open(postgres_dsn, schema=(*migrations(), _next(1)))
        assert await mended.fetch("SELECT * FROM kappa.later") == []
        await mended.close()

    run(scenario)


def test_a_server_that_would_answer_before_the_disk_has_it_is_overruled(
    postgres_server: PostgresServer, postgres_dsn: str
) -> None:
    async def scenario() -> None:
        postgres_server.execute("ALTER DATABASE kappa SET synchronous_commit = off")
        try:
            postgres = await Postgres.open(postgres_dsn)
            assert [tuple(row) for row in await postgres.fetch("SHOW synchronous_commit")] == [("on",)]
            await postgres.close()
        finally:
            postgres_server.execute("ALTER DATABASE kappa RESET synchronous_commit")

    run(scenario)


def test_a_database_that_cannot_be_written_is_unavailable(postgres_server: PostgresServer, postgres_dsn: str) -> None:
    async def scenario() -> None:
        postgres = await Postgres.open(postgres_dsn)
        queue = await PostgresEventQueue.open(postgres)
        await queue.enqueue(event("e"))
        postgres_server.execute("ALTER DATABASE kappa SET default_transaction_read_only = on")
        try:
            postgres_server.kill_connections(postgres_dsn)
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await queue.enqueue(event("refused"))
        finally:
            postgres_server.execute("ALTER DATABASE kappa RESET default_transaction_read_only")
        await queue.close()
        await postgres.close()

    run(scenario)


def test_a_message_with_what_postgresql_has_no_text_for_is_kept_as_far_as_it_goes(postgres_dsn: str) -> None:
    async def scenario() -> None:
        postgres = await Postgres.open(postgres_dsn)
        queue = await PostgresEventQueue.open(postgres)
        await queue.enqueue(event("e"))
        (lease,) = (await queue.lease(1, lease_ms=1_000, share=1, rooms={})).leases
        await queue.kill(lease, reason="RetriesExhausted", detail="a\0b \ud800 c")
        (dead,) = await queue.dead_letters("uid-f")
        assert dead.detail == "a\ufffdb ? c"
        await queue.close()
        await postgres.close()

    run(scenario)
