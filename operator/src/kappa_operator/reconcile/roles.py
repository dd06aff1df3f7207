"""The ServiceAccount that the operator makes for a role where nobody has annotated one; how they are named is in kappa_crds.roles.

The account that a pod runs as gives it nothing by itself: no token of the API server is mounted. It is what a cluster's own identity
systems go by, and what a right to use the role is asked about.
"""

from __future__ import annotations

from kappa_crds.api import Object
from kappa_crds.roles import ROLE, role_of, service_account_for, service_account_name
from kappa_operator.reconcile.owned import MANAGED

__all__ = ["ROLE", "role_of", "service_account", "service_account_for", "service_account_name"]


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
