"""What happens to invocations while functions change, gateways are replaced, and many come at once."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from invocation_load import load
from kappa_cluster import Cluster, Release, eventually

WORD = "import os\n\ndef handler(event, context):\n    return os.environ['WORD']\n"
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(event['seconds'])\n    return context.log_stream_name\n"

# Each environment notes when it begins and ends; the test counts how many overlap. Nodes of one test cluster share a clock to within this:
CLOCK_SKEW = 0.05
SPANS = """
import time

def handler(event, context):
    began = time.time()
    time.sleep(event["seconds"])
    return [began, time.time()]
"""


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


def test_a_helm_upgrade_that_replaces_every_gateway_under_load_fails_no_invocation(release: Release, name: str) -> None:
    release.apply_function(name, WORD, environment={"variables": {"WORD": "here"}})
    before = {pod["metadata"]["name"] for pod in release.gateways()}
    pods = {pod["metadata"]["name"] for pod in release.pods(name)}
    with load(release.client, name) as running:
        running.wait_for(20)
        pods = {pod["metadata"]["name"] for pod in release.pods(name)}
        release.upgrade(gateway={"podAnnotations": {"test/revision": str(time.time())}})
        eventually(
            lambda: not before & {pod["metadata"]["name"] for pod in release.gateways()}, what="every gateway is a new one"
        )
        running.wait_for(20)
    assert not running.errors, running.describe()
    assert {pod["metadata"]["name"] for pod in release.pods(name)} & pods, "the function's pods went with the gateways"


def test_many_invocations_at_once_scale_to_as_many_environments_and_back_to_zero(release: Release, name: str) -> None:
    release.apply_function(name, SLOW)
    with ThreadPoolExecutor(6) as threads:
        client = release.client()
        streams = list(threads.map(lambda _: _invoke(client, name, {"seconds": 12}), range(6)))
    assert len(set(streams)) == 6
    assert [each["spec"]["replicas"] for each in release.deployments(name)] == [6]
    eventually(
        lambda: [each["spec"]["replicas"] for each in release.deployments(name)] == [0] and not release.pods(name),
        what="back at zero",
    )


def test_reserved_concurrency_is_exact_over_all_gateways(cluster: Cluster, release: Release, name: str) -> None:
    limit = 3
    release.apply_function(name, SPANS, reservedConcurrentExecutions=limit)
    gateways = [f"http://{pod['status']['podIP']}:9000" for pod in release.gateways()]
    assert len(gateways) >= 2
    clients = [_client_of(release, gateways[number % len(gateways)]) for number in range(12)]
    reasons: set[str] = set()
    spans: list[list[float]] = []

    def hammer(client: Any) -> int:
        refused = 0
        deadline = time.monotonic() + 12
        while time.monotonic() < deadline:
            try:
                spans.append(_invoke(client, name, {"seconds": 0.2}))
            except client.exceptions.TooManyRequestsException as error:
                reasons.add(error.response["Reason"])
                refused += 1
        return refused

    with ThreadPoolExecutor(len(clients)) as threads:
        throttles = sum(threads.map(hammer, clients))
    assert throttles > 0
    assert reasons == {"ReservedFunctionConcurrentInvocationLimitExceeded"}
    assert len(spans) > limit
    assert _most_at_once(spans) <= limit


def test_serial_calls_that_alternate_between_gateways_never_meet_a_throttle(release: Release, name: str) -> None:
    release.apply_function(name, SPANS, reservedConcurrentExecutions=1)
    clients = [_client_of(release, f"http://{pod['status']['podIP']}:9000") for pod in release.gateways()]
    assert len(clients) >= 2
    for number in range(40):
        _invoke(clients[number % len(clients)], name, {"seconds": 0})


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
    answers = [_invoke(client, f"{name}:live", {}) for _ in range(40)]
    assert set(answers) == {"first", "second"}


def test_a_deleted_function_takes_its_deployments_and_pods_with_it(cluster: Cluster, release: Release, name: str) -> None:
    release.apply_function(name, SLOW)
    client = release.client()
    _invoke(client, name, {"seconds": 0})
    assert release.pods(name)
    client.delete_function(FunctionName=name)
    eventually(lambda: not release.deployments(name) and not release.pods(name), what="nothing of it is left")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        _invoke(client, name, {"seconds": 0})


def _client_of(release: Release, endpoint: str) -> Any:
    return release.client(endpoint=endpoint)


def _invoke(client: Any, name: str, event: Any) -> Any:
    said = client.invoke(FunctionName=name, Payload=json.dumps(event))
    answer = json.load(said["Payload"])
    assert "FunctionError" not in said, answer
    return answer


def _most_at_once(spans: list[list[float]]) -> int:
    """How many spans overlap at most, each shortened by what clocks may differ."""
    steps = [(began + CLOCK_SKEW, 1) for began, _ in spans] + [(ended - CLOCK_SKEW, -1) for _, ended in spans]
    running = most = 0
    for _, step in sorted(steps):
        running += step
        most = max(most, running)
    return most
