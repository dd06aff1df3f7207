"""How many environments a Function has, for its status: what its Deployments count, said when it has stood still for a moment.

Invocations do not wait for it and nobody decides by it; people read it. So a burst that comes and goes is not written at all, and one that
stays costs one write.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kappa_crds.api import Object

STEADY_SECONDS: Final = 5.0
"""How long a count has to differ from what the status says before it is written."""


def counted(deployments: Iterable[Object]) -> int:
    """Environments that run, of all revisions: a pod is one."""
    return sum((each.get("status") or {}).get("readyReplicas") or 0 for each in deployments)


def said(thing: Object) -> int:
    """What the Function's status says; nothing is none."""
    total: int = ((thing.get("status") or {}).get("environments") or {}).get("total") or 0
    return total
