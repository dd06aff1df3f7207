"""KubernetesResourceStores on namespaces of their own: each world sees only what a test puts into it, and is deleted afterwards."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from kappa_crds import labels
from kappa_crds.api import KubernetesApi, Object, api_path
from kappa_crds.names import API_VERSION, PLURALS
from kappa_gateway.kubernetes.store import KubernetesResourceStore
from store_samples import REGION

OTHER_ACCOUNT = "111111111111"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class World:
    """Two namespaces, one per account, and the API."""

    def __init__(self, api: KubernetesApi, stack: AsyncExitStack, *, clock_ms: Callable[[], int]) -> None:
        self.api = api
        self._stack = stack
        self._clock_ms = clock_ms
        self.id = secrets.token_hex(4)
        self.namespace = f"kappa-test-{self.id}"
        self.other_namespace = f"{self.namespace}-other"

    async def store(self) -> KubernetesResourceStore:
        """Another gateway's."""
        store = await KubernetesResourceStore.open(
            self.api,
            default_namespace=self.namespace,
            default_region=REGION,
            namespace_selector=f"kappa-test={self.id}",
            clock_ms=self._clock_ms,
        )
        self._stack.push_async_callback(store.close)
        return store

    async def make_namespace(self, name: str, *, account: str | None) -> None:
        marks = {"kappa-test": self.id} | ({} if account is None else {labels.ACCOUNT_ID: account})
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marks}}
        await self.api.create(api_path("v1", "namespaces"), body, field_manager="kappa-test")
        self._stack.push_async_callback(self.api.delete, api_path("v1", "namespaces", name=name))

    def path(self, kind: Any, name: str, *, subresource: str = "") -> str:
        return api_path(API_VERSION, PLURALS[kind], namespace=self.namespace, name=name, subresource=subresource)

    async def apply(self, kind: str, name: str, spec: Object, *, manager: str, **metadata: Any) -> Object:
        """As GitOps does."""
        body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
        return await self.api.apply(self.path(kind, name), body, field_manager=manager)


@asynccontextmanager
async def world(*, clock_ms: Callable[[], int] = now_ms) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        api = await KubernetesApi.connect()
        stack.push_async_callback(api.close)
        made = World(api, stack, clock_ms=clock_ms)
        await made.make_namespace(made.namespace, account=None)
        await made.make_namespace(made.other_namespace, account=OTHER_ACCOUNT)
        yield made


def manifest(**fields: Any) -> Object:
    """The spec of a small Function, as a person writes it."""
    return {"runtime": "python3.12", "handler": "app.handler", "code": {"inline": "def handler(e, c): return 1"}, **fields}
