"""Which account a namespace is, and which namespaces an account has.

The label ``lambda.kappa.dev/account-id`` says it. The one namespace of the setting ``KAPPA_NAMESPACE_DEFAULT`` is account 000000000000
where it has no label; any other without a label is not served. Several namespaces may be one account: what the API creates goes
into its oldest one, or the default one. Pure; an Informer feeds it.
"""

from __future__ import annotations

import logging
from typing import Final

from kappa_core.resources import AccountId
from kappa_crds import labels
from kappa_crds.api import Object

DEFAULT_ACCOUNT: Final = AccountId("000000000000")

log = logging.getLogger(__name__)


class Namespaces:
    """Fed by :meth:`put` and :meth:`remove`, each of which says whether the namespace now belongs to another account."""

    def __init__(self, *, default_namespace: str) -> None:
        self.default = default_namespace
        self._accounts: dict[str, AccountId] = {}
        self._created: dict[str, str] = {}

    def put(self, namespace: Object) -> bool:
        name: str = namespace["metadata"]["name"]
        before, after = self._accounts.get(name), self._account(namespace)
        self._created[name] = namespace["metadata"].get("creationTimestamp") or ""
        if after is None:
            self._accounts.pop(name, None)
        else:
            self._accounts[name] = after
        return before != after

    def remove(self, namespace: Object) -> bool:
        name = namespace["metadata"]["name"]
        self._created.pop(name, None)
        return self._accounts.pop(name, None) is not None

    def account_of(self, namespace: str) -> AccountId | None:
        """None: not served."""
        return self._accounts.get(namespace)

    def of(self, account: AccountId) -> list[str]:
        """The namespaces of an account; new resources go into the first one."""
        found = [name for name, owner in self._accounts.items() if owner == account]
        return sorted(found, key=lambda name: (name != self.default, self._created[name], name))

    def _account(self, namespace: Object) -> AccountId | None:
        metadata = namespace["metadata"]
        given = (metadata.get("labels") or {}).get(labels.ACCOUNT_ID)
        if given is None:
            return DEFAULT_ACCOUNT if metadata["name"] == self.default else None
        if len(given) == 12 and given.isascii() and given.isdigit():
            return AccountId(given)
        log.warning("namespace %s: %s is no account of twelve digits; it is not served", metadata["name"], given)
        return None
