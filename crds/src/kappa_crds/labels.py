"""Labels and annotations that the parts of Kappa read from each other's objects.

Labels are what lists and watches select by; annotations carry what is longer than a label or belongs to one object alone. Their
meaning is a contract (docs/rfc/0003-kubernetes.md): changing one needs a release that understands both.
"""

from __future__ import annotations

from typing import Final

_PREFIX: Final = "lambda.kappa.dev"

# -- labels ------------------------------------------------------------------------------------------------------------------
ACCOUNT_ID: Final = f"{_PREFIX}/account-id"
"""On a namespace: the twelve digits of the account that its objects belong to."""
REGION: Final = f"{_PREFIX}/region"
"""On a custom resource: its region, where that is not the default one."""
FUNCTION: Final = f"{_PREFIX}/function"
"""On versions, aliases, configurations, Deployments and pods: the *object* name of their Function."""
LAYER: Final = f"{_PREFIX}/layer"
"""On layer versions: the object name of their layer."""
VERSION: Final = f"{_PREFIX}/version"
"""On versions of functions and layers: the number."""
REVISION_HASH: Final = f"{_PREFIX}/revision-hash"
"""On Deployments and pods: :func:`kappa_crds.names.revision_hash` of their revision."""

# -- annotations -------------------------------------------------------------------------------------------------------------
REVISION: Final = f"{_PREFIX}/revision"
"""On Deployments and their pod templates: ``<function uid>.<version>.<configuration digest>``."""
WANTED: Final = f"{_PREFIX}/wanted"
"""On a FunctionVersion: RFC 3339 time at which the provider last missed a Deployment for it."""
CREATED: Final = f"{_PREFIX}/created"
"""RFC 3339 with milliseconds, which ``creationTimestamp`` lacks; written by the API."""
LAST_MODIFIED: Final = f"{_PREFIX}/last-modified"
"""On FunctionVersions and EventInvokeConfigs: RFC 3339 with milliseconds; written by the API."""
FUNCTION_UID: Final = f"{_PREFIX}/function-uid"
"""On versions, aliases and configurations: the uid of the Function that they were made for; what a reader goes by where there is
no ownerReference (yet)."""

TOKEN_AUDIENCE: Final = f"{_PREFIX}/link"
"""Of the ServiceAccount tokens that pods and gateways show each other."""
