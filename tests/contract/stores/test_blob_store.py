"""What every BlobStore promises (kappa_core.ports.blobs), on every driver."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import botocore.session
import pytest

from kappa_core.memory import MemoryBlobStore
from kappa_core.ports.blobs import BlobNotFound, BlobStore, BlobStoreUnavailable
from kappa_core.resources import Sha256
from kappa_gateway.stores.files import FileBlobStore
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_blobs import PostgresBlobStore
from kappa_gateway.stores.s3_blobs import S3BlobSettings, S3BlobStore
from moto_s3 import moto_s3

T = TypeVar("T")
Opener = Callable[[], AbstractAsyncContextManager[BlobStore]]

MISSING = Sha256("0" * 64)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def new_bucket() -> Iterator[Callable[[], tuple[str, str]]]:
    """Makes an empty bucket: its endpoint and its name."""
    names = (f"blobs-{number}" for number in itertools.count())
    with moto_s3() as endpoint:
        client = botocore.session.Session().create_client(
            "s3", region_name="us-east-1", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
        )

        def make() -> tuple[str, str]:
            bucket = next(names)
            client.create_bucket(Bucket=bucket)
            return endpoint, bucket

        yield make
        client.close()


@pytest.fixture(params=["memory", "files", "postgres", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Opener:
    dsn = request.getfixturevalue("postgres_dsn") if request.param == "postgres" else ""
    endpoint, bucket = request.getfixturevalue("new_bucket")() if request.param == "s3" else ("", "")

    @contextlib.asynccontextmanager
    async def memory() -> AsyncIterator[BlobStore]:
        store = MemoryBlobStore(clock_ms=clock)
        yield store
        await store.close()

    @contextlib.asynccontextmanager
    async def files() -> AsyncIterator[BlobStore]:
        store = await FileBlobStore.open(tmp_path / "blobs", clock_ms=clock)
        yield store
        await store.close()

    @contextlib.asynccontextmanager
    async def postgres() -> AsyncIterator[BlobStore]:
        connections = await Postgres.open(dsn)
        store = await PostgresBlobStore.open(connections, cache=tmp_path / "cache", clock_ms=clock)
        yield store
        await store.close()
        await connections.close()

    @contextlib.asynccontextmanager
    async def s3() -> AsyncIterator[BlobStore]:
        settings = S3BlobSettings(
            bucket=bucket, region="us-east-1", prefix="code/", endpoint=endpoint, access_key_id="test", secret_access_key="test"
        )
        store = await S3BlobStore.open(settings, cache=tmp_path / "cache", clock_ms=clock)
        yield store
        await store.close()

    return {"memory": memory, "files": files, "postgres": postgres, "s3": s3}[request.param]


def run(opened: Opener, scenario: Callable[[BlobStore], Awaitable[T]]) -> T:
    async def main() -> T:
        async with asyncio.timeout(30), opened() as store:
            return await scenario(store)

    return asyncio.run(main())


def digest(data: bytes) -> Sha256:
    return Sha256(hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("data", [b"", b"content", bytes(range(256)) * 10_000])
def test_bytes_come_back_under_their_digest(opened: Opener, data: bytes) -> None:
    async def scenario(store: BlobStore) -> None:
        info = await store.put(data)
        assert (info.sha256, info.size, info.stored_ms) == (digest(data), len(data), 1_000)
        assert await store.read(info.sha256) == data
        assert await store.stat(info.sha256) == info
        assert (await store.local_path(info.sha256)).read_bytes() == data

    run(opened, scenario)


def test_a_local_file_is_stored_by_its_content(opened: Opener, tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    (tmp_path / "upload.zip").write_bytes(data)

    async def scenario(store: BlobStore) -> None:
        info = await store.put(tmp_path / "upload.zip")
        assert info.sha256 == digest(data)
        (tmp_path / "upload.zip").unlink()
        assert await store.read(info.sha256) == data

    run(opened, scenario)


@pytest.mark.parametrize("name", [MISSING, "../../../etc/passwd", "", "A" * 64])
def test_what_is_not_there_is_not_found(opened: Opener, name: str) -> None:
    async def scenario(store: BlobStore) -> None:
        with pytest.raises(BlobNotFound):
            await store.read(Sha256(name))
        with pytest.raises(BlobNotFound):
            await store.local_path(Sha256(name))
        assert await store.stat(Sha256(name)) is None

    run(opened, scenario)


def test_storing_again_refreshes_the_time_and_keeps_one_blob(opened: Opener, clock: Clock) -> None:
    async def scenario(store: BlobStore) -> None:
        await store.put(b"same")
        clock.now = 5_000
        info = await store.put(b"same")
        assert info.stored_ms == 5_000
        assert [found async for found in store.all()] == [info]

    run(opened, scenario)


def test_the_same_blob_stored_many_times_at_once_is_one(opened: Opener) -> None:
    async def scenario(store: BlobStore) -> None:
        await asyncio.gather(*(store.put(b"same" * 10_000) for _ in range(8)))
        assert [info.sha256 async for info in store.all()] == [digest(b"same" * 10_000)]

    run(opened, scenario)


def test_a_sweep_takes_what_is_old_and_not_kept(opened: Opener, clock: Clock) -> None:
    async def scenario(store: BlobStore) -> None:
        kept, old = await store.put(b"kept"), await store.put(b"old")
        refreshed = await store.put(b"refreshed")
        clock.now = 2_000
        young = await store.put(b"young")
        await store.put(b"refreshed")
        assert await store.sweep([kept.sha256], older_than_ms=2_000) == [old.sha256]
        assert {info.sha256 async for info in store.all()} == {kept.sha256, young.sha256, refreshed.sha256}
        with pytest.raises(BlobNotFound):
            await store.read(old.sha256)
        assert (await store.put(b"old")).sha256 == old.sha256
        assert await store.read(old.sha256) == b"old"

    run(opened, scenario)


def test_a_closed_store_says_so(opened: Opener) -> None:
    async def scenario(store: BlobStore) -> None:
        info = await store.put(b"content")
        await store.close()
        await store.close()
        with pytest.raises(BlobStoreUnavailable):
            await store.put(b"more")
        with pytest.raises(BlobStoreUnavailable):
            await store.read(info.sha256)

    run(opened, scenario)
