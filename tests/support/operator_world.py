"""A served namespace on an API server in memory, with a controller that runs on it, and what gateways and people do there."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from kappa_crds.api import Object
from kappa_operator.controller import Controller
from kappa_operator.settings import load
from objects_twin import ObjectsTwin

ACCOUNT = "111111111111"
RESOURCES = "/apis/lambda.kappa.dev/v1alpha1/namespaces/{}/{}"
DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"
BEGIN = datetime(2026, 11, 21, 12, tzinfo=UTC)
BLOB = {"blob": {"sha256": "a" * 64, "size": 100, "unzippedSize": 200}}
SERVING = {"runtime": "python3.12", "handler": "app.handler", "timeout": 3, "memorySize": 128, "code": BLOB}
LINGER = 30.0


class World:
    """A twin with a release and one served namespace, and a controller that runs on it."""

    def __init__(self, **settings: Any) -> None:
        self.api = ObjectsTwin()
        self.settings = load(namespace="kappa-system", linger_seconds=LINGER, **settings)
        self.controller = Controller(self.api, self.settings, now=self.now)
        self.api.listeners.append(self.controller.hear)
        self._tasks: list[asyncio.Task[None]] = []
        secret = {"ca.crt": base64.b64encode(b"PEM").decode()}
        self.api.put(
            "/api/v1/namespaces/kappa-system/secrets",
            {
                "kind": "Secret",
                "apiVersion": "v1",
                "metadata": {"name": "kappa-link-tls", "namespace": "kappa-system"},
                "data": secret,
            },
        )
        self.namespace("shop", account=ACCOUNT)

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=asyncio.get_running_loop().time())

    def start(self) -> None:
        self.controller.begin()
        for coroutine in (self.controller.surroundings.run(), self.controller.queue.run()):
            self._tasks.append(asyncio.create_task(coroutine))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def settled(self, seconds: float = 5.0) -> None:
        await asyncio.sleep(seconds)
        await self.controller.queue.until_settled()

    # -- what people and gateways do -----------------------------------------------------------------------------------
    def namespace(self, name: str, *, account: str = "") -> None:
        marks = {"lambda.kappa.dev/account-id": account} if account else {}
        self.api.put("/api/v1/namespaces", {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": marks}})

    def resource(self, kind: str, name: str, spec: Object, *, namespace: str = "shop", **metadata: Any) -> Object:
        plural = {
            "Function": "functions",
            "FunctionVersion": "functionversions",
            "Alias": "aliases",
            "LayerVersion": "layerversions",
        }
        path = RESOURCES.format(namespace, plural[kind])
        before = self.api.objects.get(f"{path}/{name}", {})
        thing = {
            "kind": kind,
            "apiVersion": "lambda.kappa.dev/v1alpha1",
            "metadata": {"name": name, "namespace": namespace, **metadata},
            "spec": spec,
            "status": before.get("status", {}),
        }
        return self.api.put(path, thing)

    def function(self, name: str = "hello", *, namespace: str = "shop", serve: bool = True, **changes: Any) -> Object:
        metadata = changes.pop("metadata", {})
        spec = {**SERVING, **changes}
        made = self.resource("Function", name, spec, namespace=namespace, **metadata)
        if serve:
            made["status"] = {**made.get("status", {}), "state": "Active", "serving": spec}
            made = self.api.put(RESOURCES.format(namespace, "functions"), made)
        return made

    def version(self, number: int, **metadata: Any) -> Object:
        spec = {"functionName": "hello", "version": number, **SERVING, "description": str(number)}
        return self.resource("FunctionVersion", f"hello.{number}", spec, **metadata)

    def alias(self, version: str, name: str = "live") -> Object:
        return self.resource("Alias", f"hello.{name}", {"functionName": "hello", "name": name, "functionVersion": version})

    def scale(self, deployment: Object, replicas: int) -> None:
        """As the scaler and the Deployment's controller do it."""
        deployment = {**deployment, "spec": {**deployment["spec"], "replicas": replicas}}
        observed = deployment["metadata"]["generation"] + 1
        deployment["status"] = {"replicas": replicas, "readyReplicas": replicas, "observedGeneration": observed}
        self.api.put(DEPLOYMENTS.format(deployment["metadata"]["namespace"]), deployment)

    def controlled(self) -> None:
        """The Deployments' controller has seen them all."""
        for each in self.deployments():
            each["status"] = {**each.get("status", {}), "observedGeneration": each["metadata"]["generation"]}
            self.api.put(DEPLOYMENTS.format(each["metadata"]["namespace"]), each)

    # -- what there is -------------------------------------------------------------------------------------------------
    def deployments(self) -> list[Object]:
        return self.api.of_kind("Deployment")

    def versions_deployed(self) -> list[str]:
        return sorted(each["metadata"]["annotations"]["lambda.kappa.dev/revision"].split(".")[1] for each in self.deployments())

    def condition(
        self, kind: str, name: str = "hello", type_: str = "Ready", *, namespace: str = "shop"
    ) -> tuple[str, str] | None:
        for thing in self.api.of_kind(kind):
            if (thing["metadata"]["namespace"], thing["metadata"]["name"]) == (namespace, name):
                for each in thing["status"].get("conditions", []):
                    if each["type"] == type_:
                        return each["status"], each["reason"]
        return None

    def events(self) -> list[tuple[str, str]]:
        return [(each["regarding"]["name"], each["reason"]) for each in self.api.of_kind("Event")]


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[World]:
    world = World(**settings)
    world.start()
    try:
        yield world
    finally:
        await world.stop()
