"""Pods of a function that are played: real Pod objects with real tokens, and in the place of a container this process, at real links.

So many environments as no test cluster has room for greet real gateways: over TLS, with tokens that are bound to their pods, in the
protocol of the supervisor and by its own LinkClient. Their function echoes. What is not real is one process for all of them, which
dials from one address, and that gateways are found by the Service's endpoints instead of its name, because the cluster's DNS is not
this machine's.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kappa_core.link.frames import Invoke, Result
from kappa_core.spec import VersionSpec
from kappa_crds import labels
from kappa_crds.api import KubernetesApi, api_path
from kappa_runtime.link.client import LinkClient
from kappa_runtime.link.dialling import Trust
from kappa_runtime.link.discovery import Discovery

LINKS = "kappa-gateway-links"
PORT = 9443
LOOK_SECONDS = 0.2
"""How often new pods and the Service's endpoints are looked for."""
TOKENS_AT_ONCE = 16


class _Played:
    """The environments of one pod, for its LinkClient."""

    def __init__(self, uid: str, *, token: str, trust: Trust, gateways: Callable[[], set[str]]) -> None:
        self.client = LinkClient(
            supervisor_id=f"{uid}.{os.urandom(4).hex()}",
            gateways=[],
            environments=self,
            spec=None,
            token=lambda: token,
            trust=trust,
            gone_seconds=None,
        )

        async def resolve(_host: str, _port: int) -> set[str]:
            return gateways()

        self.discovery = Discovery(
            [f"dns:{LINKS}:{PORT}"], on_found=self.client.follow, complete=lambda: self.client.complete, resolve=resolve
        )

    def begin(self) -> None:
        self.client.start([])
        self.discovery.start()

    async def close(self) -> None:
        await self.discovery.close()
        await self.client.close()

    # -- Environments, for the link -------------------------------------------------------------------------------------
    def assign(self, _spec: VersionSpec, /) -> None:
        pass

    def start(self, stream: int, _environment_id: str, /) -> None:
        asyncio.get_running_loop().call_soon(self.client.ready, stream)

    def run(self, stream: int, invoke: Invoke, payload: bytes, /) -> None:
        answered = Result(request_id=invoke.request_id)
        asyncio.get_running_loop().call_soon(lambda: self.client.finished(stream, answered, payload, then="park"))

    def stop(self, stream: int, reason: str, /) -> None:
        asyncio.get_running_loop().call_soon(self.client.gone, stream, reason)


class PlayedPods:
    """Plays every pod of a function in ``namespace`` at the gateways of a release. Use :meth:`play` as a task."""

    def __init__(self, *, release: str, namespace: str, function: str) -> None:
        """``release`` is the gateways' namespace."""
        self._release = release
        self._namespace = namespace
        self._function = function
        self._gateways: set[str] = set()
        self._played: dict[str, _Played] = {}
        self._turn = asyncio.Semaphore(TOKENS_AT_ONCE)

    @property
    def number(self) -> int:
        """How many are linked to every gateway that they know of."""
        return sum(each.client.complete for each in self._played.values())

    async def play(self) -> None:
        """Until it is cancelled."""
        api = await KubernetesApi.connect()
        pods = api_path("v1", "pods", namespace=self._namespace)
        try:
            with tempfile.TemporaryDirectory() as folder:
                trust = await self._trust(api, Path(folder) / "ca.crt")
                while True:
                    self._gateways = await self._addresses(api)
                    found, _ = await api.list(pods, label_selector=f"{labels.FUNCTION}={self._function}")
                    new = [pod for pod in found if pod["metadata"]["uid"] not in self._played]
                    await asyncio.gather(*(self._take(api, pod, trust) for pod in new))
                    await asyncio.sleep(LOOK_SECONDS)
        finally:
            await asyncio.gather(*(each.close() for each in self._played.values()))
            await api.close()

    async def _trust(self, api: KubernetesApi, file: Path) -> Trust:
        authority = await api.get(api_path("v1", "configmaps", namespace=self._namespace, name="kappa-link-ca"))
        file.write_text(authority["data"]["ca.crt"], encoding="ascii")
        return Trust(file, name=f"{LINKS}.{self._release}.svc")

    async def _addresses(self, api: KubernetesApi) -> set[str]:
        slices, _ = await api.list(
            api_path("discovery.k8s.io/v1", "endpointslices", namespace=self._release),
            label_selector=f"kubernetes.io/service-name={LINKS}",
        )
        return {address for each in slices for endpoint in each.get("endpoints") or () for address in endpoint["addresses"]}

    async def _take(self, api: KubernetesApi, pod: dict[str, Any], trust: Trust) -> None:
        metadata = pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        account = api_path("v1", "serviceaccounts", namespace=self._namespace, name=pod["spec"]["serviceAccountName"])
        spec = {"audiences": [labels.TOKEN_AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
        async with self._turn:
            answer = await api.post(
                f"{account}/token", {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
            )
        played = _Played(metadata["uid"], token=answer["status"]["token"], trust=trust, gateways=lambda: self._gateways)
        self._played[metadata["uid"]] = played
        played.begin()
