"""The Secrets of one namespace over the Kubernetes API, as :mod:`kappa_gateway.kubernetes.prepare` reads and makes them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from kappa_crds.api import AlreadyExists, Conflict, KubernetesApi, NotFound, Object, api_path
from kappa_gateway.kubernetes.prepare import Secret

_OWNER: Final = "kappa-prepare"


class NamespaceSecrets:
    """Reads one at a time and by name: listing Secrets is a right that nobody here has."""

    def __init__(self, api: KubernetesApi, *, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def read(self, name: str) -> Secret | None:
        """None where there is none. Raises ApiError."""
        try:
            found = await self._api.get(self._path(name))
        except NotFound:
            return None
        data = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
        return Secret(name=name, data=data, resource_version=found["metadata"]["resourceVersion"])

    async def create(self, name: str, data: Mapping[str, bytes], *, labels: Mapping[str, str]) -> bool:
        """False where one of that name is there already. Raises ApiError."""
        try:
            await self._api.create(self._path(), _secret(name, data, labels=labels), field_manager=_OWNER)
        except AlreadyExists:
            return False
        return True

    async def replace(self, secret: Secret, data: Mapping[str, bytes]) -> bool:
        """False where it has changed since it was read, or is gone. Raises ApiError."""
        patch = {"metadata": {"resourceVersion": secret.resource_version}, "data": _encoded(data)}
        try:
            await self._api.merge_patch(self._path(secret.name), patch, field_manager=_OWNER)
        except (Conflict, NotFound):
            return False
        return True

    def _path(self, name: str = "") -> str:
        return api_path("v1", "secrets", namespace=self._namespace, name=name)


def _secret(name: str, data: Mapping[str, bytes], *, labels: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "kappa", **labels}},
        "type": "Opaque",
        "data": _encoded(data),
    }


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in data.items()}
