"""The operator as a process against a real API server: from resources to Deployments, and nothing written where nothing is amiss."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kappa_cluster import Cluster, CommandError, eventually
from operator_process import OperatorProcess, Stage, stage

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="module")
def operated(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One operator for all tests of this file."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={CRDS}")
    with stage(cluster, tmp_path_factory.mktemp("operator"), suffix=secrets.token_hex(3)) as made:
        yield made


@pytest.fixture(scope="module")
def operator(operated: Stage) -> OperatorProcess:
    return operated.operator(KAPPA_RESYNC_SECONDS="3")


def test_a_function_has_a_deployment_at_zero_and_says_that_it_is_ready(
    operated: Stage, operator: OperatorProcess, name: str
) -> None:
    operated.function(name)
    operated.until_condition("functions", name, ("True", "Ready"))
    (found,) = operated.deployments(name)
    assert found["spec"]["replicas"] == 0
    assert found["metadata"]["ownerReferences"][0]["name"] == name
    policy = operated.cluster.get("networkpolicy", "kappa-functions", namespace=operated.functions)
    assert policy is not None
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    authority = operated.cluster.get("configmap", "kappa-link-ca", namespace=operated.functions)
    assert authority is not None
    assert authority["data"] == {"ca.crt": "PEM"}


def test_its_pods_are_admitted_under_the_restricted_standard(operated: Stage, operator: OperatorProcess, name: str) -> None:
    operated.function(name)
    operated.until_condition("functions", name, ("True", "Ready"))
    (found,) = operated.deployments(name)
    operated.cluster.kubectl("scale", f"deployment/{found['metadata']['name']}", "--replicas=1", namespace=operated.functions)
    selector = f"lambda.kappa.dev/function={name}"
    (pod,) = eventually(
        lambda: operated.cluster.list("pods", namespace=operated.functions, selector=selector), what="a pod is admitted"
    )
    assert (
        pod["metadata"]["annotations"]["lambda.kappa.dev/revision"]
        == found["metadata"]["annotations"]["lambda.kappa.dev/revision"]
    )
    eventually(
        lambda: operated.deployments(name)[0]["spec"]["replicas"] == 1 and operator.metric("kappa_operator_workqueue_depth") == 0,
        what="the operator has seen it",
    )
    assert operator.metric("kappa_operator_writes_total", kind="Deployment", verb="reshape") == 0


def test_an_update_is_a_new_deployment_and_the_old_one_goes_once_it_has_no_pod(
    operated: Stage, operator: OperatorProcess, name: str
) -> None:
    operated.function(name)
    operated.until_condition("functions", name, ("True", "Ready"))
    (old,) = operated.deployments(name)
    old_name = old["metadata"]["name"]
    operated.cluster.kubectl("scale", f"deployment/{old_name}", "--replicas=1", namespace=operated.functions)
    operated.function(name, memorySize=256)
    eventually(lambda: len(operated.deployments(name)) == 2, what="a Deployment of the new revision")
    assert operated.cluster.get("deployment", old_name, namespace=operated.functions) is not None
    operated.cluster.kubectl("scale", f"deployment/{old_name}", "--replicas=0", namespace=operated.functions)
    eventually(
        lambda: [each["metadata"]["name"] != old_name for each in operated.deployments(name)] == [True],
        what="the old revision's Deployment is gone",
    )


def test_an_alias_written_by_hand_keeps_its_versions_deployment(operated: Stage, operator: OperatorProcess, name: str) -> None:
    operated.alias(name, "live", "1")
    operated.until_condition("aliases", f"{name}.live", ("False", "FunctionNotFound"))
    operated.function(name)
    operated.until_condition("aliases", f"{name}.live", ("False", "VersionNotFound"))
    operated.version(name, 1)
    operated.until_condition("aliases", f"{name}.live", ("True", "Ready"))
    eventually(lambda: operated.versions_deployed(name) == ["$LATEST", "1"], what="the version has a Deployment")
    operated.cluster.kubectl("delete", "aliases.lambda.kappa.dev", f"{name}.live", namespace=operated.functions)
    eventually(lambda: operated.versions_deployed(name) == ["$LATEST"], what="the version's Deployment is gone")


def test_a_deleted_function_takes_everything_with_it(operated: Stage, operator: OperatorProcess, name: str) -> None:
    operated.function(name)
    operated.version(name, 1)
    operated.alias(name, "live", "1")
    eventually(lambda: operated.versions_deployed(name) == ["$LATEST", "1"], what="both have a Deployment")
    operated.cluster.kubectl("delete", "functions.lambda.kappa.dev", name, namespace=operated.functions)
    eventually(
        lambda: (
            not operated.deployments(name)
            and not operated.cluster.list(
                "aliases.lambda.kappa.dev,functionversions.lambda.kappa.dev",
                namespace=operated.functions,
                selector=f"lambda.kappa.dev/function={name}",
            )
        ),
        what="Deployments, versions and aliases are collected",
    )


def test_of_two_objects_that_claim_a_name_the_older_is_served(operated: Stage, operator: OperatorProcess, name: str) -> None:
    operated.function(name)
    operated.until_condition("functions", name, ("True", "Ready"))
    time.sleep(1.1)  # what the API server says of an object's age are whole seconds
    operated.function(f"{name}-2", functionName=name)
    operated.until_condition("functions", f"{name}-2", ("False", "NameConflict"))
    assert operated.condition("functions", name) == ("True", "Ready")
    assert operated.deployments(f"{name}-2") == []
    events = operated.cluster.list("events", namespace=operated.functions)
    assert [each["reason"] for each in events if each["involvedObject"]["name"] == f"{name}-2"].count("NameConflict") == 1
    operated.cluster.kubectl("delete", "functions.lambda.kappa.dev", name, namespace=operated.functions)
    operated.until_condition("functions", f"{name}-2", ("True", "Ready"))


def test_a_function_whose_layer_is_not_there_says_so(operated: Stage, operator: OperatorProcess, name: str) -> None:
    operated.function(name, layers=["tools:7"])
    operated.until_condition("functions", name, ("False", "LayerNotFound"))
    spec = {"layerName": "tools", "version": 7, "content": {"blob": {"sha256": "b" * 64, "size": 1, "unzippedSize": 1}}}
    operated.apply("LayerVersion", "tools.7", spec)
    operated.until_condition("functions", name, ("True", "Ready"))
    operated.until_condition("layerversions", "tools.7", ("True", "Ready"))


def test_an_event_source_mapping_says_that_nobody_polls(operated: Stage, operator: OperatorProcess, name: str) -> None:
    spec = {"functionName": name, "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:orders"}
    operated.apply("EventSourceMapping", name, spec)
    operated.until_condition("eventsourcemappings", name, ("False", "PollersNotIncluded"))


def test_a_policy_that_somebody_changes_is_as_it_was_a_moment_later(
    operated: Stage, operator: OperatorProcess, name: str
) -> None:
    operated.function(name)
    operated.until_condition("functions", name, ("True", "Ready"))
    before = operated.cluster.get("networkpolicy", "kappa-functions", namespace=operated.functions)
    assert before is not None
    operated.cluster.kubectl("delete", "networkpolicy", "kappa-functions", namespace=operated.functions)

    def again() -> bool:
        found = operated.cluster.get("networkpolicy", "kappa-functions", namespace=operated.functions)
        return found is not None and found["spec"] == before["spec"]

    eventually(again, what="the policy is there again")


def test_looking_at_everything_again_writes_nothing(operated: Stage, operator: OperatorProcess, name: str) -> None:
    operated.function(name)
    operated.version(name, 1)
    operated.alias(name, "live", "1")
    operated.until_condition("aliases", f"{name}.live", ("True", "Ready"))
    operated.until_condition("functions", name, ("True", "Ready"))

    def quiet() -> bool:
        before = operator.metric("kappa_operator_writes_total")
        looked = operator.metric("kappa_operator_reconcile_total")
        eventually(lambda: operator.metric("kappa_operator_reconcile_total") >= looked + 10, what="a resync has begun")
        return operator.metric("kappa_operator_writes_total") == before and operator.metric("kappa_operator_workqueue_depth") == 0

    eventually(quiet, what="a resync without a write")


def test_bookmarks_or_events_flow_for_every_watched_collection(operated: Stage, operator: OperatorProcess) -> None:
    assert operator.ask("/healthz") == (200, "ok\n")
    assert operator.ask("/metrics")[1].count("kappa_operator_watch_last_event_seconds{") == 11


def test_a_wrong_manifest_is_refused_before_the_operator_sees_it(operated: Stage, name: str) -> None:
    with pytest.raises(CommandError, match="memorySize"):
        operated.apply("Function", name, {"runtime": "python3.13", "handler": "a.b", "memorySize": 1, "code": {"inline": "x"}})
