"""What the operator watches: kinds, where their collections are, and which of their objects concern it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from kappa_crds import labels, names
from kappa_crds.api import api_path
from kappa_operator.reconcile.owned import MANAGED, MANAGED_BY


class Watched(msgspec.Struct, frozen=True):
    """One kind."""

    kind: str
    api_version: str
    plural: str
    namespaced: bool = True
    label_selector: str = ""

    @property
    def group(self) -> str:
        """Empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    def paths(self, namespaces: Iterable[str]) -> list[str]:
        """Of its collections: one for each namespace, or one for all where ``namespaces`` is empty."""
        if not self.namespaced:
            return [api_path(self.api_version, self.plural)]
        return [api_path(self.api_version, self.plural, namespace=each) for each in namespaces] or [
            api_path(self.api_version, self.plural)
        ]

    def path(self, namespace: str, name: str, *, subresource: str = "") -> str:
        """Of one object."""
        return api_path(self.api_version, self.plural, namespace=namespace, name=name, subresource=subresource)


WATCHED: Final = {
    each.kind: each
    for each in (
        *(Watched(kind, names.API_VERSION, plural) for kind, plural in names.KINDS.items()),
        Watched("Deployment", "apps/v1", "deployments", label_selector=labels.FUNCTION),
        Watched("ServiceAccount", "v1", "serviceaccounts"),
        Watched(
            "NetworkPolicy",
            "networking.k8s.io/v1",
            "networkpolicies",
            label_selector=f"{MANAGED_BY}={MANAGED[MANAGED_BY]}",
        ),
        Watched("Namespace", "v1", "namespaces", namespaced=False),
    )
}
