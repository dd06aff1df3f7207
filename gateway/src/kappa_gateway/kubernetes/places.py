"""Where in the cluster an account, a function and a role are: what rights are asked about.

An account is one namespace or several; a function is an object of one of them; a role is a ServiceAccount beside the function. Answered
from what the store's watches and one of ServiceAccounts have told, without a request, because every request asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from kappa_core.names import split_function
from kappa_core.resources import AccountId, Key, Region
from kappa_crds import names
from kappa_crds.roles import role_of, service_account_for


class Objects(Protocol):
    """What the store knows of objects; see kappa_gateway.kubernetes.store."""

    def place(self, key: Key, /) -> Any: ...
    def account_of(self, namespace: str, /) -> AccountId | None: ...
    def namespaces_of(self, account: AccountId, /) -> list[str]: ...


class Places:
    """See the module."""

    def __init__(self, objects: Objects, *, default_region: str) -> None:
        self._objects = objects
        self._default_region = default_region
        self._roles: dict[str, dict[str, Mapping[str, Any]]] = {}
        """Namespace → name → ServiceAccount, those that somebody has annotated with a role."""

    # -- questions -----------------------------------------------------------------------------------------------------
    def account_of(self, namespace: str, /) -> str | None:
        """None: not served."""
        return self._objects.account_of(namespace)

    def namespaces_of(self, account: str, /) -> list[str]:
        """Empty for an account that is not served; what is new goes into the first one."""
        return self._objects.namespaces_of(AccountId(account))

    def function(self, key: Key, /) -> tuple[str, str] | None:
        """Namespace and name of a function's object: where it is, or where it would be made. None: nowhere."""
        found = self._objects.place(key)
        if found is not None:
            return found.namespace, found.name
        namespaces = self.namespaces_of(key.account)
        if not namespaces:
            return None
        return namespaces[0], names.object_name(key.name, region=key.region, default_region=self._default_region)

    def service_account(self, role: str, /, *, account: str, namespace: str) -> str:
        """The name of the ServiceAccount that a role is in a namespace."""
        return service_account_for(role, self._roles.get(namespace, {}).values(), account=account)

    def of_function(self, function_arn: str, /) -> str | None:
        """The namespace of a function by its ARN; None: nowhere."""
        found = split_function(function_arn)
        if found is None or found[0] is None or found[1] is None:
            return None
        place = self.function(Key("Function", AccountId(found[1]), Region(found[0]), found[2]))
        return None if place is None else place[0]

    # -- what the watch of ServiceAccounts brings ----------------------------------------------------------------------
    def put(self, account: Mapping[str, Any]) -> None:
        metadata = account["metadata"]
        if role_of(account) is None:
            self.remove(account)
        else:
            self._roles.setdefault(metadata["namespace"], {})[metadata["name"]] = account

    def remove(self, account: Mapping[str, Any]) -> None:
        metadata = account["metadata"]
        there = self._roles.get(metadata["namespace"], {})
        there.pop(metadata["name"], None)
        if not there:
            self._roles.pop(metadata["namespace"], None)
