"""The operator dies, loses its API server, or the namespace goes: what there should be comes about all the same, and is written once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from kappa_cluster import Cluster, eventually
from operator_process import Stage, stage

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture
def operated(cluster: Cluster, tmp_path: Path) -> Iterator[Stage]:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRDS}")
    with stage(cluster, tmp_path, suffix=secrets.token_hex(3)) as made:
        yield made


def test_when_the_leader_is_killed_the_standby_takes_over_and_repeats_nothing(operated: Stage, name: str) -> None:
    first = operated.operator("first")
    second = operated.operator("second")
    assert (first.leads, second.leads) == (True, False)
    operated.function(name)
    operated.until_condition("functions", name, ("True", "Ready"))
    first.kill()
    operated.function(f"{name}-2")
    eventually(lambda: second.leads and second.ready, what="the standby leads")
    operated.until_condition("functions", f"{name}-2", ("True", "Ready"))
    assert second.metric("kappa_operator_writes_total", kind="Deployment") == 1
    lease = operated.cluster.get("lease", "kappa-operator", namespace=operated.release)
    assert lease is not None
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("second", 2)


def test_a_leader_that_is_told_to_stop_lets_go_at_once(operated: Stage) -> None:
    first = operated.operator("first", KAPPA_LEASE_SECONDS="60")
    second = operated.operator("second", KAPPA_LEASE_SECONDS="60")
    assert first.stop() == 0
    eventually(lambda: second.leads, what="the standby leads, long before the Lease has run out", seconds=30)


def test_a_leader_that_has_lost_its_lease_ends(operated: Stage) -> None:
    leader = operated.operator("first")
    thief = '{"spec":{"holderIdentity":"thief","leaseTransitions":9}}'
    operated.cluster.kubectl("patch", "lease", "kappa-operator", "--type=merge", f"--patch={thief}", namespace=operated.release)
    eventually(lambda: leader.process.poll() is not None, what="the process has ended", seconds=30)
    assert leader.process.returncode == 1
    assert "the Lease is lost" in leader.log()


def test_killed_again_and_again_in_the_middle_it_still_ends_at_what_there_should_be(operated: Stage, name: str) -> None:
    for number in range(3):
        leader = operated.operator(f"round-{number}")
        for each in range(4):
            operated.function(f"{name}-{number}-{each}")
        leader.kill()
    last = operated.operator("last")
    eventually(
        lambda: len(operated.deployments()) == 12 and last.metric("kappa_operator_workqueue_depth") == 0,
        what="every function has its Deployment",
    )
    for number in range(3):
        for each in range(4):
            operated.until_condition("functions", f"{name}-{number}-{each}", ("True", "Ready"))


def test_a_namespace_with_functions_is_deleted_cleanly(operated: Stage, name: str) -> None:
    operator = operated.operator()
    operated.function(name)
    operated.version(name, 1)
    operated.alias(name, "live", "1")
    operated.until_condition("aliases", f"{name}.live", ("True", "Ready"))
    operated.cluster.kubectl("delete", "namespace", operated.functions, "--wait=false")
    eventually(
        lambda: operated.cluster.get("namespace", operated.functions) is None,
        what="the namespace is gone",
    )
    assert operator.process.poll() is None
    assert operator.ask("/healthz")[0] == 200
