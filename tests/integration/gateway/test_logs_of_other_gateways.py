"""Log lines of another gateway over real HTTP: the route, its client, and what becomes of both when one end goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, closing

import aiohttp
import pytest
import uvicorn
from fastapi import FastAPI

from kappa_core.memory import MemoryLogStore
from kappa_core.ports.logs import LogEvent, LogGroup, LogQuery
from kappa_gateway.kubernetes.gathered_logs import GatheredLogs, PeerError
from kappa_gateway.kubernetes.peer_logs import PATH, HttpPeers, PeerSigner
from kappa_gateway.kubernetes.peer_logs_route import build_router
from kappa_gateway.process import bind
from store_samples import ACCOUNT, REGION

GROUP = LogGroup(ACCOUNT, REGION, "/aws/lambda/f")
SIGNER = PeerSigner(b"k" * 32)


@asynccontextmanager
async def served(store: MemoryLogStore, *, beat_seconds: float = 5.0) -> AsyncIterator[str]:
    """The route of a gateway with this store; where it is."""
    app = FastAPI()
    app.include_router(build_router(own=store, signer=SIGNER, beat_seconds=beat_seconds))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=5))
    with closing(bind("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server._serve(sockets=[listener]))
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def asking(*addresses: str) -> AsyncIterator[HttpPeers]:
    async def locate() -> set[str]:
        return set(addresses)

    peers = HttpPeers(locate, SIGNER)
    try:
        yield peers
    finally:
        await peers.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def lines(*messages: str) -> list[LogEvent]:
    return [LogEvent(5, message, "2026/11/21/[$LATEST]0f", "request") for message in messages]


def test_lines_of_another_gateway_are_read_whole_and_in_order() -> None:
    async def scenario() -> None:
        store = MemoryLogStore(clock_ms=lambda: 7, origin=2)
        own = MemoryLogStore(clock_ms=lambda: 7, origin=1)
        sent = [f"line {number} with 'ümlaut' & \x07" for number in range(2500)]
        store.append(GROUP, lines(*sent, "\x01" * 256 * 1024))
        own.append(GROUP, lines("mine"))
        async with served(store) as address, asking(address) as peers:
            found = await GatheredLogs(own, peers).read(LogQuery(GROUP, limit=10_000))
        assert len(found) == 2502
        assert [event for event in found if event.message != "mine"] == await store.read(LogQuery(GROUP))

    run(scenario)


def test_a_follower_hears_another_gateway_until_that_one_leaves() -> None:
    async def scenario() -> None:
        store = MemoryLogStore(clock_ms=lambda: 7)
        store.append(GROUP, lines("stored"))
        async with served(store, beat_seconds=0.01) as address, asking(address) as peers:
            found: list[str] = []
            async with aclosing(peers.follow(address, LogQuery(GROUP, start_ms=0))) as events:
                async for event in events:
                    found.append(event.message)
                    if event.message == "stored":
                        store.append(GROUP, lines("new"))
                    else:
                        store.dismiss()
        assert found == ["stored", "new"]

    run(scenario)


def test_a_request_that_no_gateway_signed_is_refused() -> None:
    async def scenario() -> None:
        store = MemoryLogStore(clock_ms=lambda: 7)
        store.append(GROUP, lines("secret"))
        query = PeerSigner(b"x" * 32).signed(LogQuery(GROUP), follow=False)
        async with served(store) as address, aiohttp.ClientSession() as session:
            for asked in ("", query):
                async with session.get(f"http://{address}{PATH}?{asked}") as answer:
                    assert answer.status == 403
                    assert "secret" not in await answer.text()

    run(scenario)


def test_a_gateway_that_is_no_longer_there_is_an_error_of_its_own() -> None:
    async def scenario() -> None:
        async with served(MemoryLogStore(clock_ms=lambda: 7)) as address:
            pass
        async with asking(address) as peers:
            with pytest.raises(PeerError):
                await peers.read(address, LogQuery(GROUP))
            with pytest.raises(PeerError):
                await anext(peers.follow(address, LogQuery(GROUP)))

    run(scenario)
