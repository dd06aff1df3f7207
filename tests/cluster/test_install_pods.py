"""What a pod gives its function and what becomes of it when something is over its size: values of Secrets and ConfigMaps, /tmp, memory."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cluster_faults import container_id, killer
from kappa_cluster import Cluster, Release, eventually

FILLS_TMP = """
import os

def handler(event, context):
    if event == "fill":
        with open("/tmp/full", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
    if event == "empty":
        size = os.path.getsize("/tmp/full")
        os.remove("/tmp/full")
        return size >> 20
    return os.listdir("/tmp")
"""
SHOWS_VALUES = "import os\ndef handler(event, context):\n    return {name: os.environ.get(name) for name in event}\n"


def invoke(release: Release, function: str, event: Any) -> tuple[str, Any]:
    """The function error, if any, and the answer."""
    answer = release.client().invoke(FunctionName=function, Payload=json.dumps(event).encode())
    return answer.get("FunctionError", ""), json.load(answer["Payload"])


def test_a_full_tmp_is_an_error_of_the_handler_and_costs_no_pod(release: Release, name: str) -> None:
    release.apply_function(name, FILLS_TMP)
    failure, error = invoke(release, name, "fill")
    assert (failure, error["errorType"], error["errorMessage"]) == (
        "Unhandled",
        "OSError",
        "[Errno 28] No space left on device",
    )
    (pod,) = release.pods(name)
    assert invoke(release, name, "empty") == ("", 512)
    assert invoke(release, name, "look") == ("", [])
    (same,) = release.pods(name)
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    told = eventually(lambda: release.pods(name)[0]["status"].get("containerStatuses"), what="the kubelet tells of the container")
    assert told[0]["restartCount"] == 0


TAKES_TMP = """
import os, time

def handler(event, context):
    if event:
        with open("/tmp/large", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, event << 20)
        time.sleep(50)
    return os.listdir("/tmp")
"""


def test_a_tmp_on_disk_that_is_over_its_size_is_an_error_of_the_function_and_costs_no_pod(release: Release, name: str) -> None:
    release.apply_function(name, TAKES_TMP, timeout=60, ephemeralStorage={"size": 513})
    failure, error = invoke(release, name, 600)
    assert (failure, error["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert "No space left on device: /tmp holds more than 513 MB" in error["errorMessage"]
    (pod,) = release.pods(name)
    assert invoke(release, name, 0) == ("", [])
    (same,) = release.pods(name)
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]


def _objects(cluster: Cluster, namespace: str, *, password: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "database"}, "stringData": {"password": password}}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "database"}, "data": {"host": "db.internal"}}
    for each in (secret, settings):
        cluster.apply(each, namespace=namespace)


VALUE_FROM = {
    "PASSWORD": {"secretKeyRef": {"name": "database", "key": "password"}},
    "DB_HOST": {"configMapKeyRef": {"name": "database", "key": "host"}},
    "MISSING": {"secretKeyRef": {"name": "database", "key": "none", "optional": True}},
}


def test_values_of_secrets_and_config_maps_reach_the_function_and_nobody_else(
    cluster: Cluster, release: Release, name: str
) -> None:
    _objects(cluster, release.functions, password="s3cr3t-of-a-test")
    release.apply_function(name, SHOWS_VALUES, environment={"variables": {"STAGE": "test"}, "valueFrom": VALUE_FROM})
    failure, seen = invoke(release, name, ["PASSWORD", "DB_HOST", "MISSING", "STAGE", "KAPPA_VALUE_PASSWORD"])
    assert (failure, seen) == (
        "",
        {
            "PASSWORD": "s3cr3t-of-a-test",
            "DB_HOST": "db.internal",
            "MISSING": None,
            "STAGE": "test",
            "KAPPA_VALUE_PASSWORD": None,
        },
    )
    client = release.client()
    assert client.get_function_configuration(FunctionName=name)["Environment"] == {"Variables": {"STAGE": "test"}}
    for kind in ("functions.lambda.kappa.dev", "deployments", "pods"):
        assert "s3cr3t-of-a-test" not in json.dumps(cluster.list(kind, namespace=release.functions))
    version = client.publish_version(FunctionName=name)["Version"]
    assert invoke(release, f"{name}:{version}", ["PASSWORD"]) == ("", {"PASSWORD": "s3cr3t-of-a-test"})


def test_a_missing_secret_is_told_to_callers_and_by_the_function_and_its_coming_ends_it(
    cluster: Cluster, release: Release, name: str
) -> None:
    source = {"TOKEN": {"secretKeyRef": {"name": name, "key": "token"}}}
    release.apply_function(name, SHOWS_VALUES, environment={"valueFrom": source})
    with pytest.raises(ClientError) as caught:
        invoke(release, name, ["TOKEN"])
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert f'secret "{name}" not found' in caught.value.response["Error"]["Message"]

    def said() -> str:
        function = cluster.get("functions.lambda.kappa.dev", name, namespace=release.functions) or {}
        found = {each["type"]: each for each in function["status"]["conditions"]}.get("Scalable", {})
        return str(found.get("message", "")) if found.get("status") == "False" else ""

    assert f'secret "{name}" not found' in eventually(said, what="the condition Scalable says why")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": "here"}}
    cluster.apply(secret, namespace=release.functions)

    def answered() -> Any:
        try:
            return invoke(release, name, ["TOKEN"])
        except ClientError:
            return None

    assert eventually(answered, what="an invocation is answered") == ("", {"TOKEN": "here"})


def test_an_edit_of_a_config_map_is_what_callers_get_next(cluster: Cluster, release: Release, name: str) -> None:
    def write(answer: str) -> None:
        source = f"def handler(event, context):\n    return {answer!r}\n"
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"app.py": source}}
        cluster.apply(config_map, namespace=release.functions)

    write("before")
    manifest = release.manifest(name, "")
    manifest["spec"]["code"] = {"configMap": {"name": name}}
    cluster.apply(manifest, namespace=release.functions)
    release.wait_ready(name)
    assert invoke(release, name, None) == ("", "before")
    write("after")
    eventually(lambda: invoke(release, name, None) == ("", "after"), what="the edited code answers")


SLEEPS = "import time\ndef handler(event, context):\n    print('it runs')\n    time.sleep(event)\n"


def _logged(cluster: Cluster, release: Release, function: str) -> list[dict[str, Any]]:
    """What the gateways have printed of a function."""
    pods = [each["metadata"]["name"] for each in release.gateways()]
    printed = [cluster.kubectl("logs", pod, "--container=gateway", namespace=release.namespace) for pod in pods]
    lines = [json.loads(line) for text in printed for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("function") == function and "message" in line]


def test_an_invocation_that_is_killed_with_its_pod_has_the_end_of_its_log(cluster: Cluster, release: Release, name: str) -> None:
    # A container that starts anew while its pod is deleted may not hear of it: its grace, half a minute longer than this, then passes.
    release.apply_function(name, SLEEPS, timeout=40)
    assert invoke(release, name, 0) == ("", None)
    (pod,) = release.pods(name)
    container = container_id(cluster, pod)
    with killer(cluster, node=pod["spec"]["nodeName"]) as kill, ThreadPoolExecutor(1) as pool:
        running = pool.submit(invoke, release, name, 35)
        eventually(
            lambda: sum(line["message"] == "it runs" for line in _logged(cluster, release, name)) == 2, what="the function runs"
        )
        kill(container)
        failure, error = running.result(timeout=60)
    assert (failure, error["errorType"]) == ("Unhandled", "Runtime.ExitError")
    request_id = error["errorMessage"].partition("RequestId: ")[2].partition(" ")[0]
    lines = [line for line in _logged(cluster, release, name) if line["request_id"] == request_id]
    assert len({line["log_stream"] for line in lines}) == 1
    end, report = sorted(line["message"] for line in lines if line["message"].startswith(("END ", "REPORT ")))
    assert end == f"END RequestId: {request_id}"
    assert report.startswith(f"REPORT RequestId: {request_id}\tDuration: ")
    assert report.endswith("Status: error\tError Type: Runtime.ExitError")
