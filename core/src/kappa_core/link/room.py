"""Which environments end so that others may exist: the choices of the scaler (:mod:`kappa_core.link.scale`), as functions over its books.

Nothing is changed and nothing is sent here. What is busy nobody knows for certain, so a choice prefers what has been idle for longest
as far as is known, and what is chosen finishes what it runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from kappa_core.link.capacity import Books, Environment, Function, Revision
from kappa_core.link.collection import View


def for_waiters(
    neighbours: Iterable[Environment], revision: Revision, *, view: View, short: int, stuck: bool
) -> list[Environment]:
    """Idle environments that draw on the same share as ``revision`` and that nobody waits for, to make room for ``short`` more.

    Those of the revision itself only where its waiters are ``stuck``: evidently they are not reached by them.
    """
    neighbours = list(neighbours)
    coming = sum(environment.retiring() for environment in neighbours)
    candidates = [
        environment
        for environment in neighbours
        if environment.environment_id in view.idle
        and environment.phase == "ready"
        and not environment.retiring()
        and (stuck if environment.revision is revision else not environment.revision.demands or environment.revision.superseded)
    ]
    candidates.sort(key=_due)
    return candidates[: max(0, short - coming)]


def for_the_limit(books: Books, function: Function) -> list[Environment]:
    """What exists beyond the share of a function: environments on demand first."""
    neighbours = [*books.neighbours(function), *books.neighbours(function, provisioned=True)]
    coming = sum(environment.retiring() for environment in neighbours)
    ready = [environment for environment in neighbours if environment.phase == "ready" and not environment.retiring()]
    ready.sort(key=lambda environment: (environment.provisioned, environment.due))
    return ready[: max(0, function.excess() - coming)]


def for_provisioned(books: Books, function: Function, missing: int) -> list[Environment]:
    """Environments on demand that are to give way to ``missing`` provisioned ones which have no room: as many as there are too many."""
    neighbours = books.neighbours(function)
    coming = sum(environment.retiring() for environment in neighbours)
    wanted = min(missing - max(0, function.room()), function.excess()) - coming
    ready = [environment for environment in neighbours if environment.phase == "ready" and not environment.retiring()]
    return sorted(ready, key=_due)[: max(0, wanted)]


def surplus(revision: Revision) -> list[Environment]:
    """Provisioned environments beyond what is to be provisioned: those that do not serve yet first."""
    kept = revision.kept()
    beyond = len(kept) - revision.provision.target
    if beyond <= 0:
        return []
    return sorted(kept, key=lambda environment: (environment.phase == "ready", environment.due))[:beyond]


def _due(environment: Environment) -> float:
    return environment.due
