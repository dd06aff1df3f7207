"""High-water marks of version numbers, in ConfigMaps beside the resources that they number.

``versions/<account>/<region>/<function>`` is an entry of one of sixteen ConfigMaps of the account's namespace, so that a hundred
thousand functions fit and gateways seldom meet. A number is given out once the higher mark is stored, by a replace that names the
resourceVersion it was read at. Deleting a function leaves its mark; deleting its namespace takes everything with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Awaitable, Callable
from typing import Final

from kappa_core.ports.store import StoreUnavailable
from kappa_core.resources import AccountId
from kappa_crds.api import AlreadyExists, Conflict, KubernetesApi, NotFound, api_path
from kappa_crds.names import GATEWAY_MANAGER
from kappa_gateway.kubernetes.store_errors import translated
from kappa_gateway.kubernetes.store_namespaces import DEFAULT_ACCOUNT, Namespaces
from kappa_gateway.operations.locks import KeyedLocks

NAME_PREFIX: Final = "kappa-counters-"
_SHARDS: Final = 16
_ATTEMPTS: Final = 40
"""Writes of other gateways to the same ConfigMap that may come in between."""
_PAUSE_SECONDS: Final = 0.05
_NOT_IN_A_KEY: Final = re.compile(r"[^A-Za-z0-9_-]")


class Counters:
    """``sleep`` takes seconds."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        namespaces: Namespaces,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._namespaces = namespaces
        self._sleep = sleep
        self._uniform = uniform
        self._locks = KeyedLocks()

    async def allocate(self, counter: str, /) -> int:
        """The next number, 1 first. Raises StoreUnavailable; a number may then be lost, but is never given twice."""
        namespace, name, entry = self._namespace(counter), config_map_name(counter), entry_name(counter)
        async with self._locks.hold((namespace, name)):
            for _ in range(_ATTEMPTS):
                with translated():
                    try:
                        return await self._raise(namespace, name, entry)
                    except (Conflict, AlreadyExists):
                        pass
                await self._sleep(_PAUSE_SECONDS * self._uniform())
        raise StoreUnavailable(f"{namespace}/{name} is written by others all the time")

    async def _raise(self, namespace: str, name: str, entry: str) -> int:
        path = api_path("v1", "configmaps", namespace=namespace, name=name)
        try:
            found = await self._api.get(path)
        except NotFound:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {entry: "1"}}
            await self._api.create(api_path("v1", "configmaps", namespace=namespace), body, field_manager=GATEWAY_MANAGER)
            return 1
        number = int((found.get("data") or {}).get(entry, "0")) + 1
        patch = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "data": {entry: str(number)}}
        await self._api.merge_patch(path, patch, field_manager=GATEWAY_MANAGER)
        return number

    def _namespace(self, counter: str) -> str:
        parts = counter.split("/")
        account = AccountId(parts[1]) if len(parts) > 1 else DEFAULT_ACCOUNT
        return next(iter(self._namespaces.of(account)), self._namespaces.default)


def config_map_name(counter: str) -> str:
    return f"{NAME_PREFIX}{hashlib.sha256(counter.encode()).digest()[0] % _SHARDS:x}"


def entry_name(counter: str) -> str:
    """A key of a ConfigMap: no name of a function, layer or region has a dot in it."""
    parts = counter.split("/")
    if any(not part or _NOT_IN_A_KEY.search(part) for part in parts) or len(counter) > 250:
        return hashlib.sha256(counter.encode()).hexdigest()
    return ".".join(parts)
