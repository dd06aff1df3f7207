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
from collections.abc import Callable, Iterable
from pathlib import Path

from kappa_core.link.frames import Invoke, Result
from kappa_core.spec import VersionSpec
from kappa_crds import labels
from kappa_crds.api import KubernetesApi, NotFound, Object, api_path
from kappa_crds.watching import Informer
from kappa_runtime.link.client import LinkClient
from kappa_runtime.link.dialling import Trust
from kappa_runtime.link.discovery import Discovery

LINKS = "kappa-gateway-links"
PORT = 9443
TOKENS_AT_ONCE = 16
RETRY_SECONDS = 0.2


class _Played:
    """The environments of one pod, for its LinkClient."""

    def __init__(
        self,
        uid: str,
        *,
        token: str,
        trust: Trust,
        gateways: Callable[[], set[str]],
        answer: Callable[[Callable[[], None]], None],
    ) -> None:
        """``answer`` calls back when an invocation may end."""
        self._answer = answer
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
    def assign(self, _spec: VersionSpec, _code: bytes, /) -> None:
        pass

    def start(self, stream: int, _environment_id: str, /) -> None:
        asyncio.get_running_loop().call_soon(self.client.ready, stream)

    def run(self, stream: int, invoke: Invoke, payload: bytes, /) -> None:
        result = Result(request_id=invoke.request_id)
        self._answer(lambda: self.client.finished(stream, result, payload, then="park"))

    def stop(self, stream: int, reason: str, /) -> None:
        asyncio.get_running_loop().call_soon(self.client.gone, stream, reason)


class PlayedPods:
    """Plays every pod of a function in ``namespace`` at the gateways of a release. Use :meth:`play` as a task."""

    def __init__(self, *, release: str, namespace: str, function: str, at_once: int) -> None:
        """``release`` is the gateways' namespace. Nothing is answered before ``at_once`` invocations run: then there are as many
        environments."""
        self._at_once = at_once
        self._held: list[Callable[[], None]] = []
        self._release = release
        self._namespace = namespace
        self._function = function
        self._gateways: set[str] = set()
        self._played: dict[str, _Played | None] = {}
        """By UID; None until it has its token."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(TOKENS_AT_ONCE)

    async def play(self) -> None:
        """Until it is cancelled."""
        api = await KubernetesApi.connect()
        try:
            with tempfile.TemporaryDirectory() as folder:
                trust = await self._trust(api, Path(folder) / "ca.crt")
                pods = Informer(
                    api,
                    api_path("v1", "pods", namespace=self._namespace),
                    label_selector=f"{labels.FUNCTION}={self._function}",
                    on_change=lambda _change, pod: self._seen(api, pod, trust),
                )
                endpoints = Informer(
                    api,
                    api_path("discovery.k8s.io/v1", "endpointslices", namespace=self._release),
                    label_selector=f"kubernetes.io/service-name={LINKS}",
                    on_change=lambda _change, _slice: self._found(endpoints.items.values()),
                )
                await asyncio.gather(pods.run(), endpoints.run())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(each.close() for each in self._played.values() if each is not None))
            await api.close()

    def _answer(self, end: Callable[[], None]) -> None:
        self._held.append(end)
        if len(self._held) >= self._at_once:
            self._at_once = 1
            for each in self._held:
                asyncio.get_running_loop().call_soon(each)
            self._held.clear()

    async def _trust(self, api: KubernetesApi, file: Path) -> Trust:
        authority = await _there(api, api_path("v1", "configmaps", namespace=self._namespace, name="kappa-link-ca"))
        file.write_text(authority["data"]["ca.crt"], encoding="ascii")
        return Trust(file, name=f"{LINKS}.{self._release}.svc")

    def _found(self, slices: Iterable[Object]) -> None:
        self._gateways = {
            address for each in slices for endpoint in each.get("endpoints") or () for address in endpoint["addresses"]
        }

    def _seen(self, api: KubernetesApi, pod: Object, trust: Trust) -> None:
        if pod["metadata"]["uid"] not in self._played:
            self._played[pod["metadata"]["uid"]] = None
            task = asyncio.get_running_loop().create_task(self._take(api, pod, trust))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _take(self, api: KubernetesApi, pod: Object, trust: Trust) -> None:
        metadata = pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        account = api_path("v1", "serviceaccounts", namespace=self._namespace, name=pod["spec"]["serviceAccountName"])
        spec = {"audiences": [labels.TOKEN_AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}
        async with self._turn:
            answer = await api.post(
                f"{account}/token", {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
            )
        played = _Played(
            metadata["uid"],
            token=answer["status"]["token"],
            trust=trust,
            gateways=lambda: self._gateways,
            answer=self._answer,
        )
        self._played[metadata["uid"]] = played
        played.begin()


async def _there(api: KubernetesApi, path: str) -> Object:
    """An object that is being made: the operator makes it for the first function of a namespace, and a pod's kubelet waits for it too."""
    while True:
        try:
            return await api.get(path)
        except NotFound:
            await asyncio.sleep(RETRY_SECONDS)
