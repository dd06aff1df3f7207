"""What happens to invocations while functions change, gateways are replaced, and many come at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from invocation_load import invoke, load
from kappa_cluster import Cluster, Release, eventually

WORD = "import os\n\ndef handler(event, context):\n    return os.environ['WORD']\n"
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(event['seconds'])\n    return context.log_stream_name\n"


def test_an_update_under_load_fails_no_invocation_and_ends_in_the_new_configuration(release: Release, name: str) -> None:
    release.apply_function(name, WORD, environment={"variables": {"WORD": "one"}})
    with load(release.client, name) as running:
        running.wait_for(20)
        release.apply_function(name, WORD, environment={"variables": {"WORD": "two"}})
        updated = time.monotonic()
        running.wait_for(40)
        client = release.client()
        client.update_function_configuration(FunctionName=name, Description="by the API")
        client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 300})
        running.wait_for(20)
    assert not running.errors, running.describe()
    # The index of a gateway may be a second behind the resource.
    late = {each.answer for each in running.outcomes if each.began > updated + 1}
    assert late == {"two"}
    assert {each.answer for each in running.outcomes} == {"one", "two"}


def test_a_helm_upgrade_and_a_rollback_that_replace_every_gateway_under_load_fail_no_invocation(
    release: Release, name: str
) -> None:
    release.apply_function(name, WORD, environment={"variables": {"WORD": "here"}})

    def replaced(change: Callable[[], object]) -> None:
        before = {pod["metadata"]["name"] for pod in release.gateways()}
        change()
        eventually(
            lambda: not before & {pod["metadata"]["name"] for pod in release.gateways()}, what="every gateway is a new one"
        )

    with load(release.client, name) as running:
        running.wait_for(20)
        pods = {pod["metadata"]["name"] for pod in release.pods(name)}
        replaced(lambda: release.upgrade(gateway={"podAnnotations": {"test/revision": str(time.time())}}))
        running.wait_for(20)
        replaced(release.rollback)
        running.wait_for(20)
    assert not running.errors, running.describe()
    assert {pod["metadata"]["name"] for pod in release.pods(name)} & pods, "the function's pods went with the gateways"


def test_many_invocations_at_once_scale_to_as_many_environments_and_back_to_zero(release: Release, name: str) -> None:
    release.apply_function(name, SLOW)
    with ThreadPoolExecutor(6) as threads:
        client = release.client()
        streams = list(threads.map(lambda _: invoke(client, name, {"seconds": 12}), range(6)))
    assert len(set(streams)) == 6
    assert [each["spec"]["replicas"] for each in release.deployments(name)] == [6]
    eventually(
        lambda: [each["spec"]["replicas"] for each in release.deployments(name)] == [0] and not release.pods(name),
        what="back at zero",
    )


def test_an_alias_with_weights_made_by_kubectl_leads_to_both_versions(cluster: Cluster, release: Release, name: str) -> None:
    client = release.client()
    release.apply_function(name, WORD, environment={"variables": {"WORD": "first"}})
    client.publish_version(FunctionName=name)
    release.apply_function(name, WORD, environment={"variables": {"WORD": "second"}})
    client.publish_version(FunctionName=name)
    cluster.apply(
        {
            "apiVersion": "lambda.kappa.dev/v1alpha1",
            "kind": "Alias",
            "metadata": {"name": f"{name}.live"},
            "spec": {
                "functionName": name,
                "name": "live",
                "functionVersion": "1",
                "routingConfig": {"additionalVersionWeights": {"2": 0.5}},
            },
        },
        namespace=release.functions,
    )
    eventually(
        lambda: [each["Name"] for each in client.list_aliases(FunctionName=name)["Aliases"]] == ["live"],
        what="the alias is listed",
    )
    answers = [invoke(client, f"{name}:live", {}) for _ in range(40)]
    assert set(answers) == {"first", "second"}


def test_a_deleted_function_takes_its_deployments_and_pods_with_it(cluster: Cluster, release: Release, name: str) -> None:
    release.apply_function(name, SLOW)
    client = release.client()
    invoke(client, name, {"seconds": 0})
    assert release.pods(name)
    client.delete_function(FunctionName=name)
    eventually(lambda: not release.deployments(name) and not release.pods(name), what="nothing of it is left")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        invoke(client, name, {"seconds": 0})
