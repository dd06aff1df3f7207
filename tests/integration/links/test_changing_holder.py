"""Two gateways in one process, real supervisors, and the scaler that changes hands between them while they serve."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bare_gateway import key_of, python_spec
from kappa_core.errors import TooManyRequestsException
from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_core.link.addresses import Tls
from kappa_core.spec import VersionSpec
from kappa_gateway.embedded.provider import ProcessProvider
from kappa_gateway.kubernetes.certificates import make_authority, make_server
from kappa_gateway.links.assembly import GatewayLinks, Membership
from kappa_gateway.links.scaling import SUPERVISORS
from kappa_gateway.links.server import PodIdentity

RECORD = (
    "import os, time\n"
    "def handler(event, context):\n"
    "    fd = os.open(event['file'], os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    "    os.write(fd, f'{time.monotonic()} 1\\n'.encode())\n"
    "    time.sleep(event['seconds'])\n"
    "    os.write(fd, f'{time.monotonic()} -1\\n'.encode())\n"
    "    return os.getpid()\n"
)


def most_at_once(record: Path) -> int:
    """The largest number of handlers that ran at the same moment."""
    events = sorted((float(at), int(change)) for at, change in map(str.split, record.read_text().splitlines()))
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


class Gateway:
    """One of the two; ``provider`` is its own, used while it holds the scaler."""

    def __init__(self, name: str, links: GatewayLinks, provider: ProcessProvider) -> None:
        self.name = name
        self.links = links
        self.provider = provider
        self._numbers = 0

    async def json(self, spec: VersionSpec, event: Any, *, reserved: int | None) -> Any:
        self._numbers += 1
        request_id = f"{os.getpid():08x}-{ord(self.name):04x}-4000-a000-{self._numbers:012x}"
        result, payload = await self.links.port.invoke(
            spec=spec,
            function_key=key_of(spec),
            reserved=reserved,
            invoke=frames.Invoke(request_id=request_id, function_arn=spec.function_arn),
            payload=json.dumps(event).encode(),
        )
        assert not result.function_error, payload
        return json.loads(payload)

    def take_over(self, epoch: int, *others: str) -> None:
        self.links.take_over(self.provider, news=self.provider, epoch=epoch, expected=[*others, SUPERVISORS])


@asynccontextmanager
async def two_gateways(folder: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """Nobody holds the scaler yet."""
    addresses = {name: f"unix:{folder / name}.sock" for name in "ab"}
    made = []
    for name, address in addresses.items():
        links = await GatewayLinks.open(
            membership=Membership(me=address, elected=True),
            limits=Limits(),
            idle_seconds=300.0,
            on_logs=lambda spec, lines, names: None,
            on_cause=lambda revision, cause: None,
        )
        provider = ProcessProvider(
            work_dir=folder / f"supervisors-{name}",
            gateways=list(addresses.values()),
            links=links.port,
            on_ended=links.scaling.supervisor_ended,
            sandbox="plain",
            spares=False,
        )
        provider._prefix = f"{name}-"
        made.append(Gateway(name, links, provider))
    first, second = made
    try:
        yield first, second
    finally:
        for gateway in made:
            gateway.links.stand_down()
            await gateway.provider.close()
            await gateway.links.close()


async def moved(to: Gateway, *, epoch: int, since: Gateway | None) -> None:
    """As the Lease has it: the old holder has stood down before the new one takes over."""
    if since is not None:
        since.links.stand_down()
        since.links.follow("")
        await asyncio.sleep(0.3)  # nobody holds it
    to.take_over(epoch, *([since.links.scaling._me] if since is not None else []))
    if since is not None:
        since.links.follow(to.links.scaling._me)


def test_a_limit_is_exact_and_nobody_is_lost_while_the_scaler_changes_hands(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_gateways(tmp_path) as (first, second):
            spec = python_spec(tmp_path, RECORD)
            record = tmp_path / "record"
            event = {"file": str(record), "seconds": 0.1}
            first.take_over(1)
            second.links.follow(first.links.scaling._me)
            ends = asyncio.Event()
            served = {"a": 0, "b": 0}
            reasons: set[str] = set()

            async def client(gateway: Gateway) -> None:
                while not ends.is_set():
                    try:
                        await gateway.json(spec, event, reserved=2)
                        served[gateway.name] += 1
                    except TooManyRequestsException as refused:
                        reasons.add(refused.body()["Reason"])
                        await asyncio.sleep(0.02)

            clients = [asyncio.create_task(client(gateway)) for gateway in (first, second) for _ in range(3)]
            await asyncio.sleep(1.5)
            await moved(second, epoch=2, since=first)
            await asyncio.sleep(4)  # it rebuilds for three seconds
            await moved(first, epoch=3, since=second)
            await asyncio.sleep(4)
            ends.set()
            await asyncio.gather(*clients)
            assert most_at_once(record) == 2
            assert reasons <= {"ReservedFunctionConcurrentInvocationLimitExceeded"}
            assert min(served.values()) > 5
            # Serial calls never meet a limit that nobody else uses.
            for gateway in (first, second) * 3:
                await gateway.json(spec, event, reserved=2)

    asyncio.run(scenario())


def test_who_waits_while_nobody_holds_the_scaler_is_served_by_the_next_holder(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_gateways(tmp_path) as (first, second):
            spec = python_spec(tmp_path, "def handler(event, context):\n    return event\n")
            waiting = asyncio.create_task(first.json(spec, 1, reserved=1))
            await asyncio.sleep(0.2)
            assert first.links.port.stats().waiting == 1
            second.take_over(1, first.links.scaling._me)
            first.links.follow(second.links.scaling._me)
            assert await waiting == 1
            # An environment that this term has started is the next holder's to count.
            await moved(first, epoch=2, since=second)
            assert list(first.links.scaling.environments(spec.revision).values()) == ["ready"]
            assert await second.json(spec, 2, reserved=1) == 2

    asyncio.run(scenario())


class Vouches:
    """Knows one token."""

    async def pod(self, token: str, /) -> PodIdentity | None:
        return None

    async def gateway(self, token: str, /) -> bool:
        return token == "right"


def test_a_gateway_is_a_peer_only_over_tls_and_with_its_token(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = make_authority(now=now)
    for folder, names in (("good", ("links.kappa.svc",)), ("bad", ("links.kappa.svc",))):
        signer = authority if folder == "good" else make_authority(now=now)
        pair = make_server(names, authority=signer, now=now)
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tls.crt").write_bytes(pair.certificate)
        (tmp_path / folder / "tls.key").write_bytes(pair.key)
        (tmp_path / folder / "ca.crt").write_bytes(signer.certificate)

    def server_context(folder: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / folder / "tls.crt", tmp_path / folder / "tls.key")
        return context

    async def open_one(me: str, *, folder: str = "good", token: str = "right", listen: str = "") -> GatewayLinks:
        return await GatewayLinks.open(
            membership=Membership(me=me, elected=True),
            listen=listen,
            limits=Limits(),
            idle_seconds=300.0,
            on_logs=lambda spec, lines, names: None,
            on_cause=lambda revision, cause: None,
            ssl=server_context(folder),
            vouch=Vouches(),
            peer_token=lambda: token,
            peer_tls=Tls(ssl.create_default_context(cafile=str(tmp_path / "good" / "ca.crt")), "links.kappa.svc"),
        )

    async def scenario() -> None:
        ports = free_ports(5)
        holder, impostor, right, wrong, misled = (f"tls:127.0.0.1:{port}" for port in ports)
        gateways = [
            await open_one(holder),
            await open_one(impostor, folder="bad"),
            await open_one(right),
            await open_one(wrong, token="wrong"),
            await open_one(misled),
        ]
        try:
            for gateway in gateways[:2]:
                gateway.take_over(Nothing(), epoch=1, expected=[])
            for gateway, follows in zip(gateways[2:], (holder, holder, impostor), strict=True):
                gateway.follow(follows)
            async with asyncio.timeout(10):
                while not gateways[0].scaling._peers:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.6)  # the others have been refused at least once
            assert list(gateways[0].scaling._peers) == [right]
            assert gateways[1].scaling._peers == {}
            # It stands down: its peers are let go of, and know nobody.
            gateways[0].stand_down()
            gateways[2].follow("")
            assert gateways[0].scaling._peers == {}
        finally:
            for gateway in gateways:
                await gateway.close()

    asyncio.run(scenario())


class Nothing:
    """Provides nothing."""

    async def start(self, spec: VersionSpec, environment_ids: list[str], /) -> None: ...

    async def stop(self, revision: str, environment_ids: list[str], /) -> None: ...

    async def stop_version(self, revision: str, /) -> None: ...

    async def close(self) -> None: ...


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
