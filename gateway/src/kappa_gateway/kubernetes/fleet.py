"""What the provider keeps in mind: revisions, their Deployments and pods, what waits for a pod. Books, and the picture that is decided on.

:mod:`kappa_gateway.kubernetes.provider` is the only one to change them; :mod:`kappa_gateway.kubernetes.replicas` decides on the
:meth:`Fleet.picture`. It refuses to act: nothing here calls anybody. Times are seconds of the event loop's clock.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from kappa_core.spec import VersionSpec
from kappa_gateway.kubernetes import replicas
from kappa_gateway.kubernetes.pods import DeploymentState, PodState

LINGER_SECONDS: Final = 2.0
"""How long a pod without an environment is kept for the next one."""
CONDEMNED_SECONDS: Final = 10.0
"""A pod that still lives so long after ``replicas`` was lowered for it was spared: something else went, or ``replicas`` rose again."""


class Ceiling(NamedTuple):
    """How many environments there may be, whatever the limits of accounts and functions say."""

    per_function: int
    total: int


class Pod:
    __slots__ = (
        "blamed",
        "condemned_at",
        "environments",
        "free_at",
        "gone",
        "inherited",
        "linked",
        "name",
        "namespace",
        "state",
        "supervisor_id",
        "uid",
        "unlinked_at",
    )

    def __init__(self, namespace: str, name: str, uid: str) -> None:
        self.namespace = namespace
        self.name = name
        self.uid = uid
        self.state: PodState | None = None
        """None: the informer has not told of it yet."""
        self.gone = False
        """From the API; by force, if its link still stands."""
        self.supervisor_id = ""
        """The last one that greeted from it; none yet if empty."""
        self.linked = False
        self.environments: set[str] = set()
        self.free_at = 0.0
        self.unlinked_at = 0.0
        self.condemned_at: float | None = None
        self.inherited = False
        """From before this term and not linked: it may run something."""
        self.blamed = False
        """It has cost an environment that waited for it, or cannot any more."""

    @property
    def placeholder(self) -> str:
        """Counts in place of what an inherited pod may run."""
        return f"pod:{self.uid}"

    @property
    def counts(self) -> bool:
        """It has an environment, or may have one."""
        return bool(self.environments) or self.inherited

    def seen(self, now: float) -> replicas.Pod:
        """As the decision sees it."""
        state = self.state
        free = self.linked and not self.counts
        if state is None:
            return replicas.Pod(self.uid, used=self.counts, free=free, leaving=not self.linked, stage=(True, True, False))
        return replicas.Pod(
            self.uid,
            used=self.counts,
            unseen=self.inherited and not state.running,
            free=free,
            idle=free and now - self.free_at >= LINGER_SECONDS,
            leaving=self.gone or state.deleted or state.ended,
            broken=not self.linked and state.trouble is not None and state.trouble.hopeless,
            condemned=self.condemned_at is not None and now - self.condemned_at < CONDEMNED_SECONDS,
            stage=(bool(state.node), state.phase == "Running", state.ready),
            cost=state.cost,
        )


class Revision:
    __slots__ = (
        "again",
        "bringing",
        "code",
        "deployment",
        "missing",
        "name",
        "pending",
        "pods",
        "spec",
        "timer",
        "trouble",
        "worker",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.deployment: DeploymentState | None = None
        self.spec: VersionSpec | None = None
        self.pods: dict[str, Pod] = {}
        self.pending: dict[str, None] = {}
        """Environments that were ordered and have no pod, in order."""
        self.code = b""
        """What its pods are given along, while something is ordered."""
        self.bringing = False
        """It is being read."""
        self.trouble = ""
        """What was said last of why pods do not come up, where waiting may help."""
        self.worker: asyncio.Task[None] | None = None
        """Sees to ``replicas``; one at a time."""
        self.again = False
        """It is to look once more."""
        self.missing: asyncio.Task[None] | None = None
        """Waits for the Deployment."""
        self.timer: asyncio.TimerHandle | None = None

    def picture(self, now: float) -> replicas.Revision:
        """What is decided on."""
        number = self.deployment.replicas if self.deployment is not None else 0
        return replicas.Revision(number, tuple(pod.seen(now) for pod in self.pods.values()), len(self.pending))


class Fleet:
    """See the module."""

    def __init__(self, ceiling: Ceiling) -> None:
        self._ceiling = ceiling
        self.revisions: dict[str, Revision] = {}
        self.pods: dict[str, tuple[Revision, Pod]] = {}
        """By UID."""

    def revision(self, name: str) -> Revision:
        return self.revisions.setdefault(name, Revision(name))

    def add(self, revision: str, namespace: str, name: str, uid: str) -> Pod:
        known = self.revision(revision)
        pod = known.pods[uid] = Pod(namespace, name, uid)
        self.pods[uid] = (known, pod)
        return pod

    def of(self, supervisor_id: str) -> tuple[Revision, Pod] | None:
        """The pod that this supervisor is in, if it is the last one that greeted from there."""
        found = self.pods.get(supervisor_id.partition(".")[0])
        return found if found is not None and found[1].supervisor_id == supervisor_id else None

    def remove(self, revision: Revision, pod: Pod) -> None:
        revision.pods.pop(pod.uid, None)
        self.pods.pop(pod.uid, None)

    def drop_unused(self, revision: Revision) -> None:
        """Forget a revision of which nothing is left."""
        if revision.deployment is None and not revision.pods and not revision.pending:
            self.revisions.pop(revision.name, None)

    def room(self, function_uid: str) -> tuple[int, str]:
        """How many more environments the ceilings permit a function, and the words for no more."""
        total = of_function = 0
        for name, revision in self.revisions.items():
            number = len(revision.pending) + sum(pod.counts for pod in revision.pods.values())
            total += number
            if name.startswith(f"{function_uid}."):
                of_function += number
        rooms = (
            (self._ceiling.per_function - of_function, self._ceiling.per_function, "a function"),
            (self._ceiling.total - total, self._ceiling.total, "all functions together"),
        )
        room, most, whose = min(rooms)
        return max(0, room), f"{most} environments are the most that {whose} may have by the settings of this installation"
