"""ClusterLinks of two gateways of this process against a real API server: one holds the Lease, and another one takes it over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from kappa_core.spec import VersionSpec
from kappa_crds import labels
from kappa_crds.api import KubernetesApi, Object, api_path
from kappa_gateway.kubernetes.certificates import make_authority, make_server
from kappa_gateway.kubernetes.cluster_links import LEASE, LEASE_SECONDS, ClusterLinks
from kappa_gateway.kubernetes.settings import ClusterSettings
from kappa_gateway.links.sealing import SpecSeal
from scaler_cluster import MANAGER, namespace_of, until

ACCOUNT = "kappa-gateway"


class Gateway:
    """One of the two."""

    def __init__(self, name: str, links: ClusterLinks) -> None:
        self.name = name
        self.links = links
        self.terms: list[int | None] = []
        self.running: asyncio.Task[None] | None = None

    @property
    def leads(self) -> bool:
        return bool(self.terms) and self.terms[-1] is not None

    def begin(self) -> None:
        self.running = asyncio.create_task(self.links.run())

    async def end(self) -> None:
        """In order: the Lease is let go of."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        await self.links.close()


class Place:
    """A namespace with what the chart puts there, and the gateways."""

    def __init__(self, api: KubernetesApi, namespace: str, folder: Path) -> None:
        self.api = api
        self.namespace = namespace
        self.folder = folder
        self.gateways: list[Gateway] = []

    async def prepare(self) -> None:
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
        await self.api.create(api_path("v1", "serviceaccounts", namespace=self.namespace), body, field_manager=MANAGER)
        path = api_path("v1", "serviceaccounts", namespace=self.namespace, name=ACCOUNT, subresource="token")
        request = {"audiences": [labels.TOKEN_AUDIENCE], "expirationSeconds": 3600}
        made = await self.api.post(path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": request})
        (self.folder / "token").write_text(made["status"]["token"])
        now = datetime.now(UTC)
        authority = make_authority(now=now)
        pair = make_server((f"kappa-gateway-links.{self.namespace}.svc",), authority=authority, now=now)
        for name, text in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", authority.certificate)):
            (self.folder / name).write_bytes(text)

    async def gateway(self, name: str) -> Gateway:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = ClusterSettings(
            namespace=self.namespace,
            pod_name=name,
            pod_ip="127.0.0.1",
            link_port=port,
            link_tls_dir=self.folder,
            link_token_file=self.folder / "token",
            watch_namespaces=(self.namespace,),
        )

        async def nowhere(spec: VersionSpec) -> tuple[str, str] | None:
            return None

        terms: list[int | None] = []
        links = await ClusterLinks.open(
            settings,
            self.api,
            seal=SpecSeal(b"key"),
            locate=nowhere,
            bring=nothing,
            on_logs=lambda spec, lines, names: None,
            on_cause=lambda revision, cause: None,
            on_term=terms.append,
        )
        made = Gateway(name, links)
        made.terms = terms
        self.gateways.append(made)
        return made

    async def lease(self) -> Object:
        path = api_path("coordination.k8s.io/v1", "leases", namespace=self.namespace, name=LEASE)
        spec: Object = (await self.api.get(path))["spec"]
        return spec


async def nothing(spec: VersionSpec) -> bytes:
    return b""


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    api = await KubernetesApi.connect()
    try:
        async with namespace_of(api) as namespace:
            made = Place(api, namespace, folder)
            await made.prepare()
            try:
                yield made
            finally:
                for gateway in made.gateways:
                    await gateway.end()
    finally:
        await api.close()


def test_the_scaler_has_one_holder_and_the_other_gateway_is_its_peer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with place(tmp_path) as it:
            first, second = await it.gateway("gateway-a"), await it.gateway("gateway-b")
            first.begin()
            await until(lambda: first.leads)
            second.begin()
            scaling = first.links._links.scaling
            await until(lambda: scaling._peers)
            assert (first.terms, second.terms) == ([1], [])
            assert (await it.lease())["holderIdentity"].startswith("gateway-a@127.0.0.1:")

            # Its holder leaves in order: the other one has it at once, and is followed.
            assert first.running is not None
            first.links.leave()
            first.running.cancel()
            await until(lambda: second.leads, seconds=LEASE_SECONDS)
            assert (first.terms, second.terms) == ([1, None], [2])
            await until(lambda: second.links._links.scaling._peers)

    asyncio.run(scenario())


def test_a_holder_that_cannot_renew_stands_down_before_another_one_begins(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with place(tmp_path) as it:
            first, second = await it.gateway("gateway-a"), await it.gateway("gateway-b")
            first.begin()
            await until(lambda: first.leads)
            second.begin()
            loop = asyncio.get_running_loop()
            ended: list[float] = []
            # The API server is away for the first one only.
            first.links.election._api = Away()

            def stood_down() -> bool:
                if not first.leads and not ended:
                    ended.append(loop.time())
                assert not (first.leads and second.leads), "two hold it"
                return second.leads

            await until(stood_down, seconds=LEASE_SECONDS * 3)
            assert ended
            assert (first.terms, second.terms) == ([1, None], [2])

    asyncio.run(scenario())


class Away:
    """An API server that does not answer."""

    async def get(self, path: str, /) -> Object:
        await asyncio.Event().wait()
        raise AssertionError

    async def create(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        return await self.get(path)

    async def replace(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        return await self.get(path)
