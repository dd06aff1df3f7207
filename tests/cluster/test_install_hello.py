"""The thin path, as the README promises it: helm install, kubectl apply, aws lambda invoke, to zero and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kappa_cluster import Cluster, Release, eventually, run
from zip_samples import files

ROLE = "arn:aws:iam::000000000000:role/lambda"
EXAMPLE = Path(__file__).parents[2] / "examples" / "hello" / "function.yaml"
COUNTING = "calls = 0\n\ndef handler(event, context):\n    global calls\n    calls += 1\n    return calls\n"


@pytest.fixture(scope="module")
def hello(cluster: Cluster, release: Release) -> str:
    """The example, applied by kubectl."""
    cluster.kubectl("apply", f"--filename={EXAMPLE}", namespace=release.functions)
    cluster.kubectl("wait", "function/hello", "--for=condition=Ready", "--timeout=90s", namespace=release.functions)
    return "hello"


def test_a_function_applied_by_kubectl_answers_the_aws_cli_through_the_service(
    release: Release, hello: str, tmp_path: Path
) -> None:
    (tmp_path / "event.json").write_text('{"name": "Ada"}')
    answer = tmp_path / "answer.json"
    said = release.aws("lambda", "invoke", "--function-name", hello, "--payload", f"fileb://{tmp_path}/event.json", str(answer))
    assert said["StatusCode"] == 200
    assert json.loads(answer.read_bytes()) == {"greeting": "Hello, Ada"}


def test_a_function_applied_by_kubectl_is_listed_by_the_aws_cli(release: Release, hello: str) -> None:
    found = {each["FunctionName"]: each for each in release.aws("lambda", "list-functions")["Functions"]}
    assert found[hello]["Handler"] == "app.handler"
    assert found[hello]["Environment"] == {"Variables": {"WORD": "Hello"}}


def test_a_function_made_by_the_api_is_seen_by_kubectl_and_answers(cluster: Cluster, release: Release, name: str) -> None:
    client = release.client()
    client.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="app.handler",
        Role=ROLE,
        Code={"ZipFile": files({"app.py": COUNTING})},
        MemorySize=256,
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 300})
    found = cluster.get("functions.lambda.kappa.dev", name, namespace=release.functions)
    assert found is not None
    assert (found["spec"]["runtime"], found["spec"]["memorySize"]) == ("python3.13", 256)
    assert json.load(client.invoke(FunctionName=name)["Payload"]) == 1


def test_the_kubectl_table_answers_the_usual_questions(cluster: Cluster, release: Release, hello: str) -> None:
    head, *rows = cluster.kubectl("get", "functions", namespace=release.functions).splitlines()
    (row,) = [each.split() for each in rows if each.startswith(f"{hello} ")]
    told = dict(zip(head.split(), row, strict=True))
    assert (told["RUNTIME"], told["STATE"], told["READY"], told["MEMORY"]) == ("python3.13", "Active", "True", "128")


def test_an_idle_function_goes_to_zero_and_the_next_invocation_brings_it_back(release: Release, name: str) -> None:
    release.apply_function(name, COUNTING)
    client = release.client()
    assert json.load(client.invoke(FunctionName=name)["Payload"]) == 1
    assert json.load(client.invoke(FunctionName=name)["Payload"]) == 2
    eventually(
        lambda: [each["spec"]["replicas"] for each in release.deployments(name)] == [0] and not release.pods(name),
        what="the Deployment is at 0 and its pod is gone",
    )
    assert json.load(client.invoke(FunctionName=name)["Payload"]) == 1
    assert [each["spec"]["replicas"] for each in release.deployments(name)] == [1]


def test_helm_test_invokes_a_function(cluster: Cluster, release: Release) -> None:
    assert "Phase:          Succeeded" in cluster.helm("test", "kappa", "--namespace", release.namespace, "--timeout=3m")


def test_plain_http_signed_by_curl_is_answered(release: Release, hello: str) -> None:
    key_id, secret = release.keys
    said = run(
        "curl",
        "--silent",
        "--show-error",
        "--aws-sigv4",
        "aws:amz:us-east-1:lambda",
        "--user",
        f"{key_id}:{secret}",
        "--data",
        '{"name": "curl"}',
        f"{release.endpoint}/2015-03-31/functions/{hello}/invocations",
    )
    assert json.loads(said) == {"greeting": "Hello, curl"}


def test_an_unsigned_request_is_refused(release: Release, hello: str) -> None:
    said = run(
        "curl",
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--data",
        "{}",
        f"{release.endpoint}/2015-03-31/functions/{hello}/invocations",
    )
    assert said == "403"


def test_a_second_preparation_of_the_cluster_changes_nothing(cluster: Cluster, release: Release) -> None:
    def versions() -> dict[str, str]:
        return {
            each["metadata"]["name"]: each["metadata"]["resourceVersion"]
            for each in cluster.list("secrets", namespace=release.namespace, selector="app.kubernetes.io/part-of=kappa")
        }

    before = versions()
    release.upgrade()
    assert versions() == before
    assert before.keys() >= {"kappa-link-tls", "kappa-signing", "kappa-access-key", "kappa-postgresql"}
