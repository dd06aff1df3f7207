"""Roles are ServiceAccounts: the one that somebody has annotated with the role's ARN, else one that the operator makes.

The operator runs pods as it, and the gateway asks about it: what a function may do with its session keys, and who may hand the role to
a function. So both go by the names here. Pure: nothing is read or written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kappa_crds import names

ROLE: Final = "lambda.kappa.dev/role"
"""Annotation of a ServiceAccount: the ARN of the role that it stands for."""
MANAGED_BY: Final = "app.kubernetes.io/managed-by"
"""Label of what the operator has made; its value is the operator's field owner."""

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_NAME_LENGTH: Final = 40


def service_account_name(role: str, *, account: str) -> str:
    """Of the ServiceAccount that the operator makes for a role: ``kappa-<role name>`` where that is a DNS label of at most 40
    characters and the role is the account's own, else with a slug and ten hex digits of the ARN's SHA-256."""
    name = role.rpartition("/")[2]
    if role.partition("::")[2] == f"{account}:role/{name}" and len(name) <= _NAME_LENGTH and _LABEL.fullmatch(name):
        return f"kappa-{name}"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: _NAME_LENGTH - 11].strip("-")
    return "-".join(part for part in ("kappa", slug, hashlib.sha256(role.encode()).hexdigest()[:10]) if part)


def service_account_for(role: str, existing: Iterable[Mapping[str, Any]], *, account: str) -> str:
    """The name of the ServiceAccount, among those of a namespace, that pods with this role run as."""
    given = sorted(each["metadata"]["name"] for each in existing if role_of(each) == role and not is_managed(each))
    return given[0] if given else service_account_name(role, account=account)


def role_of(thing: Mapping[str, Any]) -> str | None:
    """The role that a ServiceAccount stands for."""
    role: str | None = (thing["metadata"].get("annotations") or {}).get(ROLE)
    return role


def is_managed(thing: Mapping[str, Any]) -> bool:
    """Whether the operator has made it."""
    return (thing["metadata"].get("labels") or {}).get(MANAGED_BY) == names.OPERATOR_MANAGER
