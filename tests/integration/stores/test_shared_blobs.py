"""Blobs that several gateways share: whole or not there, repaired when stored again, spared by a sweep meanwhile, kept at hand."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from kappa_core.ports.blobs import BlobError, BlobNotFound, BlobStoreUnavailable
from kappa_core.resources import Sha256
from kappa_gateway.stores.blob_cache import BlobCache
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_blobs import PART_BYTES, PostgresBlobStore
from kappa_gateway.stores.s3_blobs import S3BlobSettings, S3BlobStore
from moto_s3 import moto_s3
from postgres_server import PostgresServer


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(main())


@contextlib.asynccontextmanager
async def opened(dsn: str, cache: Path, **options: Any) -> AsyncIterator[PostgresBlobStore]:
    postgres = await Postgres.open(dsn)
    store = await PostgresBlobStore.open(postgres, cache=cache, **options)
    yield store
    await store.close()
    await postgres.close()


def content(parts: int) -> bytes:
    return random.Random(parts).randbytes(parts * PART_BYTES + 17)


def test_a_connection_lost_while_a_blob_is_stored_leaves_nothing_of_it(
    postgres_server: PostgresServer, postgres_dsn: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with opened(postgres_dsn, tmp_path / "a") as store:
            await store.put(b"first")  # the connection is there
            storing = asyncio.create_task(store.put(content(40)))
            parts = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO kappa.blob_parts%'"
            while await asyncio.to_thread(postgres_server.execute, parts) == "0":
                assert not storing.done()
            await asyncio.to_thread(postgres_server.kill_connections, postgres_dsn)
            with pytest.raises(BlobStoreUnavailable):
                await storing
        assert postgres_server.execute("SELECT count(*) FROM kappa.blobs", dsn=postgres_dsn) == "1"
        assert postgres_server.execute("SELECT count(*) FROM kappa.blob_parts", dsn=postgres_dsn) == "1"

    run(scenario)


def test_gateways_that_store_the_same_blob_at_once_both_succeed(postgres_dsn: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        data = content(5)
        async with opened(postgres_dsn, tmp_path / "a") as first, opened(postgres_dsn, tmp_path / "b") as second:
            stored = await asyncio.gather(*(store.put(data) for store in (first, second) for _ in range(4)))
            assert len({info.sha256 for info in stored}) == 1
            assert await first.read(stored[0].sha256) == data
            assert (await second.local_path(stored[0].sha256)).read_bytes() == data

    run(scenario)


def test_a_damaged_blob_is_not_handed_out_and_storing_it_again_repairs_it(
    postgres_server: PostgresServer, postgres_dsn: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with opened(postgres_dsn, tmp_path / "a") as store:
            info = await store.put(content(2))
            postgres_server.execute("UPDATE kappa.blob_parts SET data = 'x' WHERE number = 1", dsn=postgres_dsn)
            with pytest.raises(BlobError, match="damaged"):
                await store.read(info.sha256)
            with pytest.raises(BlobError, match="damaged"):
                await store.local_path(info.sha256)
            await store.put(content(2))
            assert (await store.local_path(info.sha256)).read_bytes() == content(2)

    run(scenario)


def test_a_copy_at_hand_is_good_while_the_database_is_away_and_mended_when_it_is_damaged(
    postgres_server: PostgresServer, postgres_dsn: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with opened(postgres_dsn, tmp_path / "a") as store:
            info = await store.put(content(1))
            path = await store.local_path(info.sha256)
            postgres_server.stop()
            try:
                assert await store.local_path(info.sha256) == path
                with pytest.raises(BlobStoreUnavailable):
                    await store.read(info.sha256)
            finally:
                postgres_server.start()
            path.chmod(0o600)
            path.write_bytes(b"damaged")
            await asyncio.sleep(0.6)
            assert (await store.local_path(info.sha256)).read_bytes() == content(1)

    run(scenario)


def test_a_sweep_of_one_gateway_spares_what_another_is_just_storing_again(postgres_dsn: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            opened(postgres_dsn, tmp_path / "a", clock_ms=lambda: 1_000) as earlier,
            opened(postgres_dsn, tmp_path / "b", clock_ms=lambda: 9_000) as later,
        ):
            for turn in range(15):
                data = str(turn).encode() * PART_BYTES
                info = await earlier.put(data)
                await asyncio.gather(later.put(data), earlier.sweep([], older_than_ms=5_000))
                assert await later.read(info.sha256) == data

    run(scenario)


def test_a_disk_without_room_for_a_copy_is_said_to_be_the_disk(postgres_dsn: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(postgres_dsn, tmp_path / "a") as store:
            info = await store.put(content(1))
            (tmp_path / "a").rmdir()
            with pytest.raises(BlobStoreUnavailable, match=str(tmp_path)):
                await store.local_path(info.sha256)

    run(scenario)


# -- S3 ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bucket() -> Iterator[S3BlobSettings]:
    with moto_s3() as endpoint:
        settings = S3BlobSettings(
            bucket="shared", region="us-east-1", endpoint=endpoint, access_key_id="test", secret_access_key="test"
        )
        client = botocore.session.Session().create_client(
            "s3", region_name="us-east-1", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
        )
        client.create_bucket(Bucket="shared")
        client.put_object(Bucket="shared", Key="somebody/elses", Body=b"data")
        client.close()
        yield settings


def test_in_s3_a_sweep_spares_what_is_just_being_stored_again_and_what_is_not_ours(
    bucket: S3BlobSettings, tmp_path: Path
) -> None:
    async def scenario() -> None:
        earlier = await S3BlobStore.open(bucket, cache=tmp_path / "a", clock_ms=lambda: 1_000)
        later = await S3BlobStore.open(bucket, cache=tmp_path / "b", clock_ms=lambda: 9_000)
        for turn in range(5):
            data = f"turn {turn}".encode()
            info = await earlier.put(data)
            await asyncio.gather(later.put(data), earlier.sweep([], older_than_ms=5_000))
            assert await later.read(info.sha256) == data
        await later.sweep([], older_than_ms=10_000)
        assert [info async for info in later.all()] == []
        assert later._client.get_object(Bucket="shared", Key="somebody/elses")["Body"].read() == b"data"
        await earlier.close()
        await later.close()

    run(scenario)


def test_a_bucket_that_cannot_be_reached_is_no_error_at_start_and_one_line_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        settings = S3BlobSettings(
            bucket="away", region="us-east-1", endpoint="http://127.0.0.1:9", access_key_id="test", secret_access_key="test"
        )
        store = await S3BlobStore.open(settings, cache=tmp_path / "a")
        with pytest.raises(BlobStoreUnavailable, match="bucket away"):
            await store.put(b"code")
        await store.close()

    run(scenario)


# -- the local cache -----------------------------------------------------------------------------------------------
def test_the_cache_forgets_what_was_handed_out_longest_ago_but_nothing_of_the_last_minutes(tmp_path: Path) -> None:
    now = 1_000_000.0

    async def scenario() -> None:
        nonlocal now
        cache = BlobCache(tmp_path / "cache", limit=250, clock=lambda: now)
        await cache.open()
        digests = []
        for turn in range(4):
            digests.append(await provide(cache, bytes([turn]) * 100))
            if turn == 1:
                now += 3_600
        assert [(tmp_path / "cache" / digest).exists() for digest in digests] == [False, False, True, True]
        now += 3_600
        await provide(cache, b"x" * 100)
        assert len(list((tmp_path / "cache").iterdir())) == 2

    run(scenario)


async def provide(cache: BlobCache, data: bytes) -> Sha256:
    digest = Sha256(hashlib.sha256(data).hexdigest())

    async def fetch(path: Path) -> None:
        path.write_bytes(data)

    await cache.path(digest, fetch)
    return digest


def test_a_copy_is_fetched_once_whoever_asks_and_a_crash_leaves_no_halves(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / ".half").write_bytes(b"half")
        cache = BlobCache(tmp_path / "cache")
        await cache.open()
        assert list((tmp_path / "cache").iterdir()) == []
        fetches = 0

        async def missing(path: Path) -> None:
            nonlocal fetches
            fetches += 1
            path.write_bytes(b"half")
            await asyncio.sleep(0)
            raise BlobNotFound("no blob")

        answers = await asyncio.gather(*(cache.path(Sha256("0" * 64), missing) for _ in range(5)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [BlobNotFound] * 5
        assert fetches == 1
        assert list((tmp_path / "cache").iterdir()) == []

    run(scenario)
