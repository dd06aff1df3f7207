"""A namespace of a real cluster with the Deployment of one revision, as the operator would make it, and a provider over it.

Its pods only sleep: who greets, and with what, is the test's to say. What they run is one of Kappa's own images, because those are the
only ones that a cluster of any kind is sure to find.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from kappa_core.spec import VersionSpec
from kappa_crds import labels, names
from kappa_crds.api import KubernetesApi, Object, api_path
from kappa_gateway.kubernetes.fleet import Ceiling
from kappa_gateway.kubernetes.provider import DeploymentProvider
from kappa_gateway.links.server import PodIdentity
from made_specs import version_spec
from pod_links import Links

IMAGE = "kappa/runtime-python3.13:dev"
REVISION = "uid-f.$LATEST.1"
DEPLOYMENT = names.deployment_name("f", REVISION)
PATIENCE_SECONDS = 60.0
MANAGER = "kappa-test"


def spec() -> VersionSpec:
    return version_spec("f", revision=REVISION, runtime="python3.13")


class Scene:
    """See the module."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.links = Links()
        self.ended: list[tuple[str, list[str], str]] = []
        self.causes: list[str] = []
        self.provider = self.new_provider()

    def new_provider(self) -> DeploymentProvider:
        return DeploymentProvider(
            self.api,
            links=self.links,
            identity=lambda uid: PodIdentity(self.namespace, "", uid, REVISION),
            on_ended=lambda supervisor, environments, why: self.ended.append((supervisor, environments, why)),
            on_cause=lambda revision, cause: self.causes.append(cause),
            locate=self._nowhere,
            bring=self._nothing,
            ceiling=Ceiling(100, 100),
            namespaces=[self.namespace],
        )

    async def _nowhere(self, spec: VersionSpec) -> tuple[str, str] | None:
        return None

    async def _nothing(self, spec: VersionSpec) -> bytes:
        return b""

    async def begin(self) -> None:
        await self.provider.open()
        self.provider.inherit()
        self.provider.begin()

    # -- the cluster ---------------------------------------------------------------------------------------------------
    async def deployment(
        self, *, command: list[str] | None = None, image: str = IMAGE, memory: str = "64Mi", replicas: int = 0
    ) -> None:
        """As the operator makes it, but for what the pods do."""
        marks = {labels.FUNCTION: "f", labels.REVISION_HASH: names.revision_hash(REVISION)}
        container = {
            "name": "function",
            "image": image,
            "command": command or ["sleep", "3600"],
            "resources": {"requests": {"cpu": "1m", "memory": memory}, "limits": {"memory": memory}},
        }
        template = {
            "metadata": {"labels": marks, "annotations": {labels.REVISION: REVISION}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, "enableServiceLinks": False},
        }
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": DEPLOYMENT, "labels": marks, "annotations": {labels.REVISION: REVISION}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": marks}, "template": template},
        }
        await self.api.create(api_path("apps/v1", "deployments", namespace=self.namespace), body, field_manager=MANAGER)

    async def replicas(self) -> int:
        path = api_path("apps/v1", "deployments", namespace=self.namespace, name=DEPLOYMENT)
        return int((await self.api.get(path))["spec"]["replicas"])

    async def pods(self) -> list[Object]:
        """Those that run and are not being deleted."""
        found, _ = await self.api.list(api_path("v1", "pods", namespace=self.namespace), label_selector=labels.FUNCTION)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"] and _runs(pod)]

    async def running(self, number: int) -> list[Object]:
        """So many pods, once they run."""

        async def enough() -> tuple[list[Object]] | None:
            found = await self.pods()
            return (found,) if len(found) == number else None

        (found,) = await until(enough)
        return list(found)

    async def greet(self, pod: Object, *, life: str = "1") -> str:
        supervisor = f"{pod['metadata']['uid']}.{life}"
        self.links.linked[supervisor] = []
        self.provider.supervisor_up(supervisor)
        return supervisor

    def ends(self, supervisor: str) -> None:
        """The environment on it."""
        environment_id = self.links.linked[supervisor].pop()
        self.provider.environment_gone(supervisor, environment_id)


def _runs(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


async def until(look: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """What ``look`` (or what it awaits) returns as soon as that is truthy."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s; last seen: {found!r}"
        await asyncio.sleep(0.1)


@asynccontextmanager
async def namespace_of(api: KubernetesApi) -> AsyncIterator[str]:
    name = f"kappa-test-scaler-{secrets.token_hex(4)}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    await api.create(api_path("v1", "namespaces"), body, field_manager=MANAGER)
    try:
        yield name
    finally:
        await api.delete(api_path("v1", "namespaces", name=name))


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    api = await KubernetesApi.connect()
    try:
        async with namespace_of(api) as namespace:
            made = Scene(api, namespace)
            try:
                yield made
            finally:
                await made.provider.close()
    finally:
        await api.close()
