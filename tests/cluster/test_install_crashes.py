"""kill -9 of each part under load: what it costs is asserted and printed, and nothing is silent.

A synchronous invocation that was dispatched is never dispatched again, so what a killed part had in hand may fail; everything else is
answered. The numbers are printed with `-rP` or on failure.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from cluster_faults import cut_off, kill_container, lost, needs_faults
from invocation_load import Load, load
from kappa_cluster import Cluster, Release, eventually

QUICK = "def handler(event, context):\n    return context.aws_request_id\n"
IN_HAND = 4
"""Threads of the load: as many invocations can be with one part when it dies."""


@pytest.fixture
def quick(release: Release, name: str) -> str:
    release.apply_function(name, QUICK)
    return name


def _killed_under_load(release: Release, function: str, kill: Callable[[], None], *, after: int = 50) -> Load:
    with load(release.client, function, threads=IN_HAND) as running:
        running.wait_for(50)
        kill()
        running.wait_for(after, seconds=90)
    print(running.describe())
    assert len(set(running.answers)) == len(running.answers), "an invocation ran twice"
    return running


def _pods_of(cluster: Cluster, release: Release, component: str) -> list[Any]:
    found = cluster.list("pods", namespace=release.namespace, selector=f"app.kubernetes.io/component={component}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def _leader(cluster: Cluster, release: Release, lease: str) -> str:
    found = cluster.get("lease", lease, namespace=release.namespace)
    assert found is not None
    holder: str = found["spec"]["holderIdentity"]
    return holder.partition("@")[0]


def _ready(cluster: Cluster, release: Release, component: str, count: int) -> None:
    def ready() -> bool:
        states = [pod["status"].get("containerStatuses") or [{}] for pod in _pods_of(cluster, release, component)]
        return sum(bool(each[0].get("ready")) for each in states) == count

    eventually(ready, what=f"{count} of {component} are ready")


def test_a_killed_operator_costs_no_invocation_and_the_standby_goes_on(
    cluster: Cluster, release: Release, quick: str, name: str
) -> None:
    leader = _leader(cluster, release, "kappa-operator")
    (pod,) = [each for each in _pods_of(cluster, release, "operator") if each["metadata"]["name"] == leader]
    running = _killed_under_load(release, quick, lambda: kill_container(cluster, pod))
    assert not running.errors, running.describe()
    release.apply_function(f"{name}-after", QUICK)
    assert json.load(release.client().invoke(FunctionName=f"{name}-after")["Payload"])
    _ready(cluster, release, "operator", 2)


def test_a_killed_gateway_costs_at_most_what_it_had_in_hand(cluster: Cluster, release: Release, quick: str) -> None:
    holder = _leader(cluster, release, "kappa-scaler")
    pod = next(each for each in release.gateways() if each["metadata"]["name"] != holder)
    running = _killed_under_load(release, quick, lambda: kill_container(cluster, pod))
    _only_connections(running)
    _ready(cluster, release, "gateway", 2)


def test_a_killed_holder_of_the_scaler_is_followed_by_another_that_starts_environments(
    cluster: Cluster, release: Release, quick: str, name: str
) -> None:
    holder = _leader(cluster, release, "kappa-scaler")
    pod = next(each for each in release.gateways() if each["metadata"]["name"] == holder)
    running = _killed_under_load(release, quick, lambda: kill_container(cluster, pod))
    _only_connections(running)
    other = f"{name}-after"
    began = time.monotonic()
    release.apply_function(other, QUICK)
    assert json.load(release.client().invoke(FunctionName=other)["Payload"])
    print(f"a new function answered {time.monotonic() - began:.1f} s after the load")
    _ready(cluster, release, "gateway", 2)


def test_a_killed_function_pod_is_an_error_of_its_own_invocation_alone(cluster: Cluster, release: Release, quick: str) -> None:
    client = release.client()
    client.invoke(FunctionName=quick)
    (pod, *_) = release.pods(quick)
    running = _killed_under_load(release, quick, lambda: kill_container(cluster, pod))
    assert sum(running.errors.values()) <= IN_HAND, running.describe()


def test_a_killed_postgresql_costs_no_synchronous_invocation(cluster: Cluster, release: Release, quick: str) -> None:
    (pod,) = _pods_of(cluster, release, "postgresql")
    running = _killed_under_load(release, quick, lambda: kill_container(cluster, pod))
    assert not running.errors, running.describe()
    _ready(cluster, release, "postgresql", 1)
    client = release.client()
    eventually(lambda: _accepted(client, quick), what="asynchronous invocations are accepted again")


@needs_faults
def test_a_killed_api_server_costs_no_invocation_of_a_warm_function(release: Release, quick: str) -> None:
    with load(release.client, quick, threads=IN_HAND) as running:
        running.wait_for(50)
        with lost("kube-apiserver"):
            running.wait_for(200)
        running.wait_for(50)
    print(running.describe())
    assert not running.errors, running.describe()


@needs_faults
def test_a_killed_kubelet_costs_no_invocation(cluster: Cluster, release: Release, quick: str) -> None:
    release.client().invoke(FunctionName=quick)
    node = release.pods(quick)[0]["spec"]["nodeName"]
    with load(release.client, quick, threads=IN_HAND) as running:
        running.wait_for(50)
        with lost(f"kubelet@{node}"):
            running.wait_for(200)
    print(running.describe())
    assert not running.errors, running.describe()
    cluster.kubectl("wait", f"node/{node}", "--for=condition=Ready", "--timeout=60s")


@needs_faults
def test_the_loss_of_a_node_fails_what_ran_there_and_the_rest_goes_on(cluster: Cluster, release: Release, quick: str) -> None:
    """The load goes to a gateway on another node: a Service forgets the lost one only when Kubernetes does."""
    release.client().invoke(FunctionName=quick)
    gateways = {pod["spec"]["nodeName"]: pod for pod in release.gateways()}
    assert len(gateways) >= 2, "the gateways share a node"
    (database,) = _pods_of(cluster, release, "postgresql")
    node = next(each for each in gateways if each != database["spec"]["nodeName"])
    staying = next(pod for each, pod in gateways.items() if each != node)
    endpoint = f"http://{staying['status']['podIP']}:9000"
    with load(lambda: release.client(endpoint=endpoint), quick, threads=IN_HAND) as running:
        running.wait_for(50)
        with cut_off(node):
            running.wait_for(100, seconds=90)
            time.sleep(20)  # long enough for Kubernetes to count the node as lost
            running.wait_for(50, seconds=90)
        running.wait_for(50, seconds=90)
    print(running.describe())
    assert sum(running.errors.values()) <= 3 * IN_HAND, running.describe()
    cluster.kubectl("wait", f"node/{node}", "--for=condition=Ready", "--timeout=90s")
    _ready(cluster, release, "gateway", 2)


def _only_connections(running: Load) -> None:
    """What a dead gateway had in hand breaks off, once for each client. Connections to its address are refused until the Service
    forgets it, which is Kubernetes' to do: with two gateways every other attempt, so a client that meets many has found none alive."""
    refused = running.errors[EndpointConnectionError.__name__]
    assert running.errors.total() - refused <= IN_HAND, running.describe()
    assert refused <= 6 * IN_HAND, running.describe()


def _accepted(client: Any, name: str) -> bool:
    try:
        return bool(client.invoke(FunctionName=name, InvocationType="Event")["StatusCode"] == 202)
    except client.exceptions.ClientError:
        return False
