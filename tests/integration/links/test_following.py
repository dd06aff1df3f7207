"""A supervisor whose gateways come and go: who is dialled, who is kept, who is forgotten. Real listeners, no environments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from kappa_core.link.frames import Frame, Hello, Invoke
from kappa_core.link.transport import Link
from kappa_core.spec import VersionSpec
from kappa_gateway.links.server import LinkServer
from kappa_runtime.link import client as client_module
from kappa_runtime.link.client import LinkClient


class Gateway:
    """A listener that remembers who greeted it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.hellos: list[Hello] = []
        self.links: list[Link] = []
        self.server = LinkServer(gateway_id=address, on_supervisor=self._greeted, on_peer=lambda *_: None, token="t")

    def _greeted(self, link: Link, hello: Hello) -> Gateway:
        self.hellos.append(hello)
        self.links.append(link)
        return self

    def frame(self, frame: Frame, /) -> None:
        pass

    def lost(self, reason: str, /) -> None:
        pass


class NoEnvironments:
    def assign(self, spec: VersionSpec, code: bytes, /) -> None: ...
    def start(self, stream: int, environment_id: str, /) -> None: ...
    def run(self, stream: int, invoke: Invoke, payload: bytes, /) -> None: ...
    def stop(self, stream: int, reason: str, /) -> None: ...


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def run(folder: Path, scenario: Callable[[LinkClient, Gateway, Gateway], Awaitable[None]]) -> None:
    async def run_it() -> None:
        one, other = (Gateway(f"unix:{folder / name}") for name in ("one", "other"))
        client = LinkClient(
            supervisor_id="s", gateways=[], environments=NoEnvironments(), spec=None, token=lambda: "t", gone_seconds=None
        )
        try:
            for gateway in (one, other):
                await gateway.server.listen(gateway.address)
            client.start([])
            client.follow({one.address, other.address})
            await until(lambda: client.complete and len(one.hellos) == len(other.hellos) == 1)
            await scenario(client, one, other)
        finally:
            await client.close()
            for gateway in (one, other):
                await gateway.server.close()

    asyncio.run(run_it())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RESUME_SECONDS", 0.05)


def test_every_gateway_that_is_named_is_greeted_once(tmp_path: Path) -> None:
    async def scenario(client: LinkClient, one: Gateway, other: Gateway) -> None:
        client.follow({one.address, other.address})
        await asyncio.sleep(0.1)
        assert (len(one.hellos), len(other.hellos)) == (1, 1)

    run(tmp_path, scenario)


def test_a_gateway_that_is_no_longer_named_is_kept_while_its_link_holds(tmp_path: Path) -> None:
    async def scenario(client: LinkClient, one: Gateway, other: Gateway) -> None:
        client.follow({other.address})
        await asyncio.sleep(0.15)
        assert one.links[0].connected
        assert client.complete

    run(tmp_path, scenario)


def test_it_is_forgotten_once_that_is_lost(tmp_path: Path) -> None:
    async def scenario(client: LinkClient, one: Gateway, other: Gateway) -> None:
        client.follow({other.address})
        await one.server.close()
        await until(lambda: client.addresses == {other.address})
        await one.server.listen(one.address)
        await asyncio.sleep(0.3)
        assert len(one.hellos) == 1

    run(tmp_path, scenario)


def test_one_that_is_named_again_meanwhile_is_dialled_on(tmp_path: Path) -> None:
    async def scenario(client: LinkClient, one: Gateway, other: Gateway) -> None:
        client.follow({other.address})
        await one.server.close()
        client.follow({one.address, other.address})
        await one.server.listen(one.address)
        await until(lambda: len(one.hellos) == 2 and client.complete)

    run(tmp_path, scenario)


def test_one_that_was_forgotten_and_comes_back_is_greeted_with_a_higher_number(tmp_path: Path) -> None:
    async def scenario(client: LinkClient, one: Gateway, other: Gateway) -> None:
        client.follow({other.address})
        await one.server.close()
        await until(lambda: client.addresses == {other.address})
        await one.server.listen(one.address)
        client.follow({one.address, other.address})
        await until(lambda: len(one.hellos) == 2)
        assert one.hellos[1].dial > one.hellos[0].dial

    run(tmp_path, scenario)


def test_a_token_that_cannot_be_read_is_no_greeting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def no_token() -> str:
        raise FileNotFoundError(2, "No such file", "token")

    async def scenario() -> None:
        gateway = Gateway(f"unix:{tmp_path / 'one'}")
        await gateway.server.listen(gateway.address)
        client = LinkClient(
            supervisor_id="s",
            gateways=[gateway.address],
            environments=NoEnvironments(),
            spec=None,
            token=no_token,
            gone_seconds=None,
        )
        client.start([])
        await until(lambda: "no greeting without a token" in caplog.text)
        await client.close()
        await gateway.server.close()
        assert gateway.hellos == []

    asyncio.run(scenario())
