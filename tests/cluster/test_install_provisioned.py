"""Provisioned concurrency in the cluster: pods that stay, by `kubectl scale` and by the API alike, through the loss of a pod and of the
gateway that holds the scaler."""

from __future__ import annotations

import json
from typing import Any

import botocore.exceptions
import pytest

from kappa_cluster import Cluster, Object, Release, eventually

SOURCE = """
import os

def handler(event, context):
    return {"type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], "version": context.function_version}
"""
READY_SECONDS = 120


def published(release: Release, name: str) -> Any:
    """A client; the function has a version 1 and an alias `live` of it."""
    release.apply_function(name, SOURCE)
    client = release.client()
    assert client.publish_version(FunctionName=name)["Version"] == "1"
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    return client


def noted(release: Release, name: str) -> Object:
    """What the status of the alias says."""
    alias = release.cluster.get("aliases.lambda.kappa.dev", f"{name}.live", namespace=release.functions)
    assert alias is not None
    found: Object = (alias.get("status") or {}).get("provisionedConcurrency") or {}
    return found


def pods(release: Release, name: str) -> set[str]:
    """UIDs of the alias's pods, found as an autoscaler finds them."""
    scale = json.loads(
        release.cluster.kubectl(
            "get", "--raw", f"/apis/lambda.kappa.dev/v1alpha1/namespaces/{release.functions}/aliases/{name}.live/scale"
        )
    )
    found = release.cluster.list("pods", namespace=release.functions, selector=scale["status"]["selector"])
    return {pod["metadata"]["uid"] for pod in found if "deletionTimestamp" not in pod["metadata"]}


def await_ready(release: Release, client: Any, name: str, number: int) -> None:
    def ready() -> bool:
        try:
            found = client.get_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
        except (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError):
            return False  # the Service led to a gateway that has just been lost
        facts = (found["Status"], found["AvailableProvisionedConcurrentExecutions"])
        return facts == ("READY", number) and noted(release, name).get("ready") == number

    eventually(ready, what=f"{number} environments of {name}:live are ready, in the API and in the status", seconds=READY_SECONDS)


def result(client: Any, name: str, qualifier: str) -> Any:
    return json.load(client.invoke(FunctionName=name, Qualifier=qualifier)["Payload"])


def test_kubectl_scale_and_the_api_provision_the_same_pods_and_idle_windows_do_not_end_them(
    cluster: Cluster, release: Release, name: str
) -> None:
    client = published(release, name)
    cluster.kubectl("scale", f"alias/{name}.live", "--replicas=2", namespace=release.functions)
    await_ready(release, client, name, 2)
    config = client.get_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    assert config["LastModified"] > "2026"  # a scale that nobody dates is dated all the same
    kept = pods(release, name)
    assert len(kept) == 2
    assert result(client, name, "live") == {"type": "provisioned-concurrency", "version": "1"}
    assert result(client, name, "$LATEST")["type"] == "on-demand"
    eventually(
        lambda: sum(each["spec"]["replicas"] for each in release.deployments(name)) == 2,
        what="the idle window of $LATEST is over, and only what is provisioned is left",
    )
    assert pods(release, name) == kept
    client.put_provisioned_concurrency_config(FunctionName=name, Qualifier="live", ProvisionedConcurrentExecutions=1)
    await_ready(release, client, name, 1)
    alias = cluster.get("aliases.lambda.kappa.dev", f"{name}.live", namespace=release.functions)
    assert alias is not None
    assert alias["spec"]["provisionedConcurrentExecutions"] == 1
    eventually(lambda: len(pods(release, name)) == 1 and pods(release, name) < kept, what="one of the two pods is left")
    client.delete_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    with pytest.raises(botocore.exceptions.ClientError, match="ProvisionedConcurrencyConfigNotFound"):
        client.get_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    eventually(lambda: noted(release, name)["ready"] == 0 and not release.pods(name), what="nothing is provisioned any more")


def test_lost_pods_are_replaced_and_a_lost_gateway_loses_none(cluster: Cluster, release: Release, name: str) -> None:
    client = published(release, name)
    client.put_provisioned_concurrency_config(FunctionName=name, Qualifier="live", ProvisionedConcurrentExecutions=2)
    await_ready(release, client, name, 2)
    before = pods(release, name)
    lease = cluster.get("lease", "kappa-scaler", namespace=release.namespace)
    assert lease is not None
    holder = lease["spec"]["holderIdentity"].partition("@")[0]
    cluster.kubectl("delete", "pod", holder, "--grace-period=0", "--force", namespace=release.namespace)
    eventually(
        lambda: (
            (cluster.get("lease", "kappa-scaler", namespace=release.namespace) or lease)["spec"]["holderIdentity"]
            != lease["spec"]["holderIdentity"]
        ),
        what="another gateway holds the scaler",
    )
    await_ready(release, client, name, 2)
    assert pods(release, name) == before
    victim = next(pod for pod in release.pods(name) if pod["metadata"]["uid"] in before)
    cluster.kubectl("delete", "pod", victim["metadata"]["name"], "--grace-period=0", "--force", namespace=release.functions)
    eventually(
        lambda: len(pods(release, name)) == 2 and victim["metadata"]["uid"] not in pods(release, name),
        what="another pod has taken its place",
    )
    await_ready(release, client, name, 2)
    assert result(client, name, "live")["type"] == "provisioned-concurrency"
