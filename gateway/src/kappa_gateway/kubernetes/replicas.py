"""How many replicas the Deployment of one revision gets, and which of its pods run what. Pure: a state in, the next actions out.

The scaler counts environments; a Deployment counts pods, and its ReplicaSet chooses which of them go. This module keeps the two
together: every environment that is ordered gets a pod of its own, a free one before a new one, and ``replicas`` never falls below the
environments that there are or that are awaited. It falls only when the ReplicaSet is certain to take pods that have none: the
ReplicaSet deletes in the order of :attr:`Pod.rank` (kubernetes, pkg/controller/controller_utils.go, ActivePodsWithRanks), so the pods
to go are marked with a lower deletion cost first, and nothing is lowered while a pod with an environment is not ready, which would
count for more than any cost.

It refuses to know of API calls, and to guess what a pod that has not said hello does: whoever fills in the state says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

SURPLUS_COST: Final = -1
"""``controller.kubernetes.io/pod-deletion-cost`` of a pod that is to go before those without the annotation (0)."""
_READY: Final = (True, True, True)


class Pod(msgspec.Struct, frozen=True):
    """One pod of the revision, as far as it decides anything."""

    uid: str
    used: bool = False
    """It has an environment, or may have one."""
    unseen: bool = False
    """``used``, since it may have one, but nobody has seen it run: most likely it comes for what waits."""
    free: bool = False
    """It is linked and waits for an environment."""
    idle: bool = False
    """``free`` for long enough to be let go of."""
    leaving: bool = False
    """It is being deleted, or has ended: the ReplicaSet does not count it any more."""
    broken: bool = False
    """It will not come up, and only a new one would."""
    condemned: bool = False
    """``replicas`` was lowered for it a moment ago."""
    stage: tuple[bool, bool, bool] = (False, False, False)
    """Whether it is bound to a node, runs, and is ready."""
    cost: int = 0

    @property
    def rank(self) -> tuple[tuple[bool, bool, bool], int]:
        """What has the lower one is deleted first."""
        return self.stage, self.cost


class Revision(msgspec.Struct, frozen=True):
    """The pods of one Deployment and what is wanted of them."""

    replicas: int
    """As the Deployment has it."""
    pods: tuple[Pod, ...] = ()
    pending: int = 0
    """Environments that were ordered and have no pod."""


class Use(msgspec.Struct, frozen=True):
    """Start the environment that has waited longest on this pod."""

    uid: str


class Raise(msgspec.Struct, frozen=True):
    """Have more pods."""

    replicas: int


class Mark(msgspec.Struct, frozen=True):
    """Lower the deletion cost of this pod: it is to go."""

    uid: str
    cost: int = SURPLUS_COST


class Lower(msgspec.Struct, frozen=True):
    """Have fewer pods; ``going`` are those that the ReplicaSet will take."""

    replicas: int
    going: tuple[str, ...] = ()


class Replace(msgspec.Struct, frozen=True):
    """Delete this pod: the ReplicaSet makes another one if it is needed."""

    uid: str


Action = Use | Raise | Mark | Lower | Replace


def decide(revision: Revision) -> list[Action]:
    """What is to be done now, in this order. Nothing: wait for news."""
    active = [pod for pod in revision.pods if not pod.leaving]
    usable = [pod for pod in active if pod.free and not (pod.used or pod.broken or pod.condemned)]
    # What is ranked high stays longest anyway: use that first, so that the rest may go.
    usable.sort(key=lambda pod: pod.rank, reverse=True)
    taken = {pod.uid for pod in usable[: revision.pending]}
    pending = revision.pending - len(taken)
    used = [pod for pod in active if pod.used or pod.uid in taken]
    # A pod that was on its way when this term began is no reason for a second one: it is known in seconds what it is.
    needed = len(used) + max(0, pending - sum(pod.unseen for pod in used))
    actions: list[Action] = [Use(pod.uid) for pod in usable if pod.uid in taken]
    if pending:
        actions += (Replace(pod.uid) for pod in active if pod.broken and not pod.used)
        # Those that were to go may go or stay: until that is seen they are no pods to count on.
        needed += sum(pod.condemned for pod in active)
    if needed > revision.replicas:
        return [*actions, Raise(needed)]
    if needed < revision.replicas and not pending:
        actions += _fewer(needed, active=active, used=used)
    return actions


def _fewer(needed: int, *, active: Sequence[Pod], used: Sequence[Pod]) -> list[Action]:
    rest = [pod for pod in active if pod not in used]
    if any(pod.free and not (pod.idle or pod.condemned) for pod in rest):
        return []  # an environment may follow the one that has just left it
    too_many = len(active) - needed
    going = sorted(rest, key=lambda pod: pod.rank)[: max(0, too_many)]
    if not used:
        return [Lower(needed, tuple(pod.uid for pod in going))]
    lowest = min(pod.cost for pod in used)
    # Also those that rank lower for now: by the time the ReplicaSet looks they may be ready, too.
    unmarked = [Mark(pod.uid, min(SURPLUS_COST, lowest - 1)) for pod in going if pod.cost >= lowest]
    if unmarked or not all(pod.stage == _READY for pod in used):
        return list(unmarked)
    return [Lower(needed, tuple(pod.uid for pod in going))]
