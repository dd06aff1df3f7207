"""The settler on a real API server: code from where a manifest says, what is wrong in the object's own words, updates by kubectl."""

from __future__ import annotations

import base64
import hashlib
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cluster_gateway import ClusterGatewayProcess, gateway_process
from kappa_cluster import Cluster, eventually
from postgres_server import PostgresServer
from zip_samples import files

INLINE = "def handler(event, context):\n    return 'inline'\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[ClusterGatewayProcess]:
    dsn = postgres_server.create_database("gateway_settler")
    with gateway_process(Cluster(), tmp_path_factory.mktemp("gateway"), KAPPA_POSTGRES_DSN=dsn) as started:
        yield started


def apply(gateway: ClusterGatewayProcess, name: str, code: dict[str, Any], **spec: Any) -> None:
    manifest = {
        "apiVersion": "lambda.kappa.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": name},
        "spec": {"runtime": "python3.13", "handler": "app.handler", "code": code, **spec},
    }
    gateway.cluster.apply(manifest, namespace=gateway.functions)


def settled(gateway: ClusterGatewayProcess, name: str) -> dict[str, Any]:
    """The status that speaks of the present spec, once nothing is under way."""

    def look() -> dict[str, Any] | None:
        found = gateway.cluster.get("functions.lambda.kappa.dev", name, namespace=gateway.functions) or {}
        status: dict[str, Any] = found.get("status") or {}
        lags = status.get("observedGeneration", 0) < found["metadata"]["generation"]
        return None if lags or status.get("lastUpdateStatus") not in {"Successful", "Failed"} else status

    return eventually(look, what=f"{name} is settled", seconds=30) or {}


def archive_of(gateway: ClusterGatewayProcess, name: str) -> bytes:
    """The archive by the link that GetFunction answers."""
    link = gateway.client().get_function(FunctionName=name)["Code"]["Location"]
    with urllib.request.urlopen(link, timeout=10) as response:
        data: bytes = response.read()
    return data


def test_inline_code_is_taken_in_and_an_edit_of_it_is_an_update(gateway: ClusterGatewayProcess) -> None:
    apply(gateway, "inline", {"inline": INLINE})
    first = settled(gateway, "inline")
    assert (first["state"], first["conditions"][0]["type"], first["conditions"][0]["status"]) == ("Active", "CodeReady", "True")
    apply(gateway, "inline", {"inline": INLINE + "# another one\n"})
    second = settled(gateway, "inline")
    assert second["codeSHA256"] != first["codeSHA256"]
    found = gateway.client().get_function_configuration(FunctionName="inline")
    assert (found["CodeSha256"], found["LastUpdateStatus"]) == (second["codeSHA256"], "Successful")
    digest = hashlib.sha256(archive_of(gateway, "inline")).digest()
    assert base64.b64encode(digest).decode() == second["codeSHA256"]


def test_an_edit_of_tags_alone_is_observed_and_is_no_update(gateway: ClusterGatewayProcess) -> None:
    apply(gateway, "tagged", {"inline": INLINE})
    first = settled(gateway, "tagged")
    apply(gateway, "tagged", {"inline": INLINE}, tags={"team": "orders"})
    second = settled(gateway, "tagged")
    assert second["observedGeneration"] == first["observedGeneration"] + 1
    assert second["lastModified"] == first["lastModified"]


def test_code_in_a_config_map_may_come_after_its_function(gateway: ClusterGatewayProcess) -> None:
    apply(gateway, "mapped", {"configMap": {"name": "mapped-code"}})
    failed = settled(gateway, "mapped")
    assert failed["state"] == "Failed"
    assert failed["stateReason"] == f"The code is in ConfigMap mapped-code, which is not in namespace {gateway.functions}."
    assert failed["conditions"][0]["status"] == "False"
    gateway.cluster.kubectl("create", "configmap", "mapped-code", f"--from-literal=app.py={INLINE}", namespace=gateway.functions)
    eventually(lambda: settled(gateway, "mapped")["state"] == "Active", what="the function is Active", seconds=60)


def test_an_edit_of_a_config_map_is_an_update_of_the_functions_made_of_it(gateway: ClusterGatewayProcess) -> None:
    cluster, namespace = gateway.cluster, gateway.functions

    def write(text: str) -> None:
        files = {"app.py": text}
        cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "edited-code"}, "data": files}, namespace=namespace
        )

    write(INLINE)
    apply(gateway, "edited", {"configMap": {"name": "edited-code"}})
    before = settled(gateway, "edited")
    write(INLINE + "# edited\n")
    eventually(lambda: settled(gateway, "edited")["codeSHA256"] != before["codeSHA256"], what="the edit is taken in", seconds=30)
    after = settled(gateway, "edited")
    assert after["serving"]["code"]["blob"]["sha256"] == hashlib.sha256(archive_of(gateway, "edited")).hexdigest()
    assert after["lastModified"] > before["lastModified"]
    gateway.stop()
    write(INLINE + "# while nobody settles\n")
    gateway.start()
    eventually(lambda: settled(gateway, "edited")["codeSHA256"] != after["codeSHA256"], what="it is found", seconds=30)
    cluster.kubectl("delete", "configmap", "edited-code", namespace=namespace)
    gateway.client().update_function_configuration(FunctionName="edited", Description="goes on without it")
    assert settled(gateway, "edited")["lastUpdateStatus"] == "Successful"


@pytest.mark.parametrize(
    ("name", "code", "spec", "words"),
    [
        pytest.param("no-runtime", {"inline": INLINE}, {"runtime": "ruby3.4"}, "No image is configured", id="runtime"),
        pytest.param(
            "metadata",
            {"https": {"url": "https://169.254.169.254/code.zip", "sha256": "a" * 64}},
            {},
            "not public",
            id="a private address",
        ),
    ],
)
def test_what_cannot_run_says_why(
    gateway: ClusterGatewayProcess, name: str, code: dict[str, Any], spec: dict[str, Any], words: str
) -> None:
    apply(gateway, name, code, **spec)
    status = settled(gateway, name)
    assert status["state"] == "Failed"
    assert words in status["stateReason"]
    assert words in status["conditions"][0]["message"]


def test_what_failed_to_update_goes_on_serving_what_it_was(gateway: ClusterGatewayProcess) -> None:
    apply(gateway, "kept", {"inline": INLINE})
    before = settled(gateway, "kept")
    apply(gateway, "kept", {"https": {"url": "https://127.0.0.1/code.zip", "sha256": "a" * 64}})
    after = settled(gateway, "kept")
    assert (after["state"], after["lastUpdateStatus"]) == ("Active", "Failed")
    assert after["serving"] == before["serving"]


def test_code_that_a_manifest_owns_is_not_overwritten_by_the_api(gateway: ClusterGatewayProcess) -> None:
    apply(gateway, "owned", {"inline": INLINE})
    settled(gateway, "owned")
    client = gateway.client()
    with pytest.raises(ClientError, match=r"\.spec\.code by 'kubectl-client-side-apply'") as caught:
        client.update_function_code(FunctionName="owned", ZipFile=files({"app.py": "x = 1"}))
    assert caught.value.response["Error"]["Code"] == "ResourceConflictException"
    client.update_function_configuration(FunctionName="owned", Description="nobody's field yet")
    assert settled(gateway, "owned")["serving"]["description"] == "nobody's field yet"


def test_the_settler_goes_on_after_a_restart(gateway: ClusterGatewayProcess) -> None:
    gateway.stop()
    apply(gateway, "while-away", {"inline": INLINE})
    gateway.start()
    assert settled(gateway, "while-away")["state"] == "Active"


def test_a_layer_of_a_config_map_becomes_a_version_that_functions_use(gateway: ClusterGatewayProcess) -> None:
    cluster, namespace = gateway.cluster, gateway.functions
    cluster.kubectl("create", "configmap", "base-content", "--from-literal=shared.py=VALUE = 1", namespace=namespace)
    layer = {"apiVersion": "lambda.kappa.dev/v1alpha1", "kind": "Layer", "metadata": {"name": "base"}}
    cluster.apply({**layer, "spec": {"content": {"configMap": {"name": "base-content"}}}}, namespace=namespace)

    def published() -> int:
        found = cluster.get("layers.lambda.kappa.dev", "base", namespace=namespace) or {}
        return int((found.get("status") or {}).get("version", 0))

    assert eventually(published, what="the layer is published", seconds=30) == 1
    listed = gateway.client().list_layer_versions(LayerName="base")["LayerVersions"]
    assert [each["Version"] for each in listed] == [1]
    apply(gateway, "layered", {"inline": INLINE}, layers=["base:1"])
    assert settled(gateway, "layered")["state"] == "Active"
    apply(gateway, "unlayered", {"inline": INLINE}, layers=["base:7"])
    assert "does not exist" in settled(gateway, "unlayered")["stateReason"]
