"""Roles are ServiceAccounts: the one that somebody has annotated with the role's ARN, else one that the operator makes.

The account that a pod runs as gives it nothing by itself: no token of the API server is mounted. It is what a cluster's own identity
systems go by, and what a right to use the role is asked about.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

from kappa_crds.api import Object
from kappa_operator.reconcile.owned import MANAGED, is_managed

ROLE: Final = "lambda.kappa.dev/role"
"""Annotation of a ServiceAccount: the ARN of the role that it stands for."""
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


def service_account_for(role: str, existing: Iterable[Object], *, account: str) -> str:
    """The name of the ServiceAccount in a namespace that pods with this role run as."""
    given = sorted(each["metadata"]["name"] for each in existing if role_of(each) == role and not is_managed(each))
    return given[0] if given else service_account_name(role, account=account)


def service_account(role: str, *, namespace: str, account: str) -> Object:
    """What is made where nobody has annotated one."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": service_account_name(role, account=account),
            "namespace": namespace,
            "labels": MANAGED,
            "annotations": {ROLE: role},
        },
        "automountServiceAccountToken": False,
    }


def role_of(thing: Object) -> str | None:
    """The role that a ServiceAccount stands for."""
    role: str | None = (thing["metadata"].get("annotations") or {}).get(ROLE)
    return role
