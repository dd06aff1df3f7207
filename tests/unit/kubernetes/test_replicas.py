"""How many replicas, and which pod goes: as tables, and against a ReplicaSet that chooses as Kubernetes' does, in random histories."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_gateway.kubernetes.replicas import Action, Lower, Mark, Pod, Raise, Replace, Revision, Use, decide

READY = (True, True, True)
STARTED = (True, True, False)
UNBOUND = (False, False, False)


def used(uid: str, **changes: Any) -> Pod:
    return Pod(uid, **{"used": True, "stage": READY} | changes)


def free(uid: str, **changes: Any) -> Pod:
    return Pod(uid, **{"free": True, "idle": True, "stage": READY} | changes)


def coming(uid: str, **changes: Any) -> Pod:
    return Pod(uid, **{"stage": UNBOUND} | changes)


@pytest.mark.parametrize(
    ("revision", "actions"),
    [
        pytest.param(Revision(0), [], id="nothing is wanted and nothing is there"),
        pytest.param(Revision(0, (), 3), [Raise(3)], id="a burst is one raise"),
        pytest.param(Revision(3, (), 3), [], id="what was asked for is awaited"),
        pytest.param(Revision(3, (coming("a"), coming("b"), coming("c")), 3), [], id="pods that come are awaited"),
        pytest.param(
            Revision(1, (used("a", unseen=True, stage=STARTED),), 1),
            [],
            id="a pod that was on its way before this term is awaited",
        ),
        pytest.param(Revision(1, (used("a", unseen=True, stage=STARTED),), 3), [Raise(3)], id="for one environment each"),
        pytest.param(Revision(1, (free("a"),), 1), [Use("a")], id="a free pod is used before a new one is made"),
        pytest.param(Revision(1, (free("a"),), 2), [Use("a"), Raise(2)], id="the rest gets new pods"),
        pytest.param(Revision(1, (free("a", idle=False),), 0), [], id="a pod that was just left is kept for a moment"),
        pytest.param(Revision(2, (used("a"), free("b", idle=False)), 0), [], id="also beside others"),
        pytest.param(Revision(1, (free("a"),), 0), [Lower(0, ("a",))], id="the last one goes without a mark"),
        pytest.param(Revision(2, (used("a"), free("b")), 0), [Mark("b")], id="a surplus pod is marked first"),
        pytest.param(Revision(2, (used("a"), free("b", cost=-1)), 0), [Lower(1, ("b",))], id="and then let go"),
        pytest.param(Revision(2, (used("a", cost=-1), free("b")), 0), [Mark("b", -2)], id="below one that was spared before"),
        pytest.param(Revision(2, (used("a"), coming("b")), 0), [Mark("b")], id="also one that comes: it may be ready by then"),
        pytest.param(
            Revision(2, (used("a", stage=STARTED), free("b", cost=-1)), 0),
            [],
            id="never while one with an environment may go first",
        ),
        pytest.param(
            Revision(3, (used("a"), free("b"), coming("c")), 0),
            [Mark("c"), Mark("b")],
            id="all that are to go are marked at once",
        ),
        pytest.param(Revision(3, (used("a"),), 0), [Lower(1)], id="what was not made yet is not to be"),
        pytest.param(Revision(3, (free("a"),), 1), [Use("a"), Lower(1)], id="nor what nobody waits for any more"),
        pytest.param(Revision(2, (free("a"), coming("b")), 2), [Use("a")], id="nothing is lowered while something waits"),
        pytest.param(Revision(1, (used("a"), used("b")), 0), [Raise(2)], id="somebody else lowered it below what runs"),
        pytest.param(
            Revision(1, (used("a", leaving=True),), 1), [], id="one that is being deleted is replaced by the ReplicaSet"
        ),
        pytest.param(Revision(1, (free("a", leaving=True),), 1), [], id="and gets nothing"),
        pytest.param(Revision(0, (free("a", condemned=True),), 1), [Raise(2)], id="nothing is started on a pod that is to go"),
        pytest.param(Revision(2, (free("a", condemned=True), coming("b")), 1), [], id="nor is it counted on"),
        pytest.param(Revision(1, (coming("a", broken=True),), 1), [Replace("a")], id="a broken pod that is needed is replaced"),
        pytest.param(Revision(1, (coming("a", broken=True),), 0), [Lower(0, ("a",))], id="one that is not needed goes"),
    ],
)
def test_the_decision(revision: Revision, actions: list[Action]) -> None:
    assert decide(revision) == actions


@dataclasses.dataclass
class _Pod:
    """What the simulated API has of one."""

    stage: tuple[bool, bool, bool] = UNBOUND
    cost: int = 0
    environment: bool = False
    leaving: bool = False
    condemned: bool = False
    spared: bool = False
    """The ReplicaSet has looked since."""
    broken: bool = False


class _Cluster:
    """One Deployment with a ReplicaSet controller and a scaler that wants things at random."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.replicas = 0
        self.pods: dict[str, _Pod] = {}
        self.pending = 0
        self.made = 0

    def picture(self) -> Revision:
        return Revision(
            self.replicas,
            tuple(
                Pod(
                    uid,
                    used=pod.environment,
                    free=not pod.environment and pod.stage != UNBOUND and not pod.broken,
                    idle=True,
                    leaving=pod.leaving,
                    broken=pod.broken,
                    condemned=pod.condemned,
                    stage=pod.stage,
                    cost=pod.cost,
                )
                for uid, pod in self.pods.items()
            ),
            self.pending,
        )

    def scaler(self, *, wants: bool) -> None:
        """Orders and endings of environments."""
        if wants and self.chance.random() < 0.3:
            self.pending += self.chance.randint(1, 4)
        if self.pending and self.chance.random() < 0.1:
            self.pending -= 1  # the start deadline
        for pod in self.pods.values():
            if pod.environment and self.chance.random() < (0.2 if wants else 0.6):
                pod.environment = False

    def provider(self) -> None:
        before = self.picture()
        environments = sum(pod.environment and not pod.leaving for pod in self.pods.values()) + self.pending
        for action in decide(before):
            match action:
                case Use(uid):
                    assert not self.pods[uid].environment
                    assert not self.pods[uid].leaving
                    self.pods[uid].environment = True
                    self.pending -= 1
                case Raise(number):
                    assert number > self.replicas
                    self.replicas = number
                case Lower(number, going):
                    assert environments <= number < self.replicas, "never below what runs or is awaited"
                    self.replicas = number
                    for uid in going:
                        self.pods[uid].condemned, self.pods[uid].spared = True, False
                case Mark(uid, cost):
                    self.pods[uid].cost = cost
                case Replace(uid):
                    assert not self.pods[uid].environment
                    self.pods[uid].leaving = True

    def replica_set(self) -> None:
        """As kubernetes does: makes what is missing, deletes what ranks lowest."""
        active = [uid for uid, pod in self.pods.items() if not pod.leaving]
        for _ in range(self.replicas - len(active)):
            self.made += 1
            self.pods[f"p{self.made}"] = _Pod()
        active.sort(key=lambda uid: (self.pods[uid].stage, self.pods[uid].cost))
        for uid in active:
            self.pods[uid].spared = self.pods[uid].condemned
        for uid in active[: max(0, len(active) - self.replicas)]:
            assert not self.pods[uid].environment, "a pod with an environment was taken"
            self.pods[uid].leaving = True

    def nodes(self, *, faults: bool) -> None:
        for uid, pod in list(self.pods.items()):
            if pod.leaving and not pod.environment and self.chance.random() < 0.5:
                del self.pods[uid]
            elif faults and pod.stage == UNBOUND and self.chance.random() < 0.1:
                pod.broken = True
            elif not pod.broken and pod.stage != READY and self.chance.random() < 0.5:
                pod.stage = STARTED if pod.stage == UNBOUND else READY
            elif faults and self.chance.random() < 0.02:
                self.pods.pop(uid)  # its node is gone
            if pod.spared and not pod.leaving and self.chance.random() < 0.2:
                pod.condemned = pod.spared = False  # after CONDEMNED_SECONDS


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_no_history_takes_a_pod_that_is_used_and_each_ends_at_zero(seed: int) -> None:
    cluster = _Cluster(random.Random(seed))
    steps = [cluster.provider, cluster.provider, cluster.replica_set, lambda: cluster.nodes(faults=True)]
    for _ in range(60):
        cluster.scaler(wants=True)
        cluster.chance.shuffle(steps)
        for step in steps:
            step()
    for _ in range(200):
        cluster.scaler(wants=False)
        cluster.provider()
        cluster.replica_set()
        cluster.nodes(faults=False)
    assert (cluster.replicas, cluster.pending, cluster.pods) == (0, 0, {})
