"""Who may call a gateway, and do what: access keys, bearer tokens and rights, against a real API server that reviews them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cluster_gateway import ClusterGatewayProcess, gateway_process
from kappa_cluster import ROLE, Cluster, eventually
from postgres_server import PostgresServer
from zip_samples import files

FUNCTIONS = "/2015-03-31/functions"
DRY_RUN = {"InvocationType": "DryRun"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[ClusterGatewayProcess]:
    dsn = postgres_server.create_database("gateway_auth")
    with gateway_process(Cluster(), tmp_path_factory.mktemp("gateway"), KAPPA_POSTGRES_DSN=dsn) as started:
        client = started.client()
        for name in ("hello", "other"):
            client.create_function(
                FunctionName=name, Runtime="python3.13", Handler="app.handler", Role=ROLE, Code={"ZipFile": code()}
            )
        yield started


def code() -> bytes:
    return files({"app.py": "def handler(event, context): return event"})


@pytest.fixture
def account(gateway: ClusterGatewayProcess, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Makes a ServiceAccount with these rules in the functions' namespace, and a token of it."""
    made: list[str] = []

    def make(*rules: dict[str, object], audience: str = "") -> str:
        name = f"caller-{abs(hash(request.node.name)) % 10**8}-{len(made)}"
        made.append(name)
        cluster, namespace = gateway.cluster, gateway.functions
        cluster.kubectl("create", "serviceaccount", name, namespace=namespace)
        about = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}}
        cluster.apply({**about, "kind": "Role", "rules": list(rules)}, namespace=namespace)
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        cluster.apply({**about, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]}, namespace=namespace)
        options = [f"--audience={audience}"] if audience else []
        return cluster.kubectl("create", "token", name, *options, namespace=namespace).strip()

    return make


def allow(verb: str, resource: str, *names: str, group: str = "lambda.kappa.dev") -> dict[str, object]:
    rule: dict[str, object] = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
    return rule | ({"resourceNames": list(names)} if names else {})


def refusal(answer: tuple[int, str]) -> str:
    status, body = answer
    assert status == 403, answer
    found = json.loads(body)
    return str(found.get("message") or found["Message"])


def test_the_charts_first_key_may_do_everything(gateway: ClusterGatewayProcess) -> None:
    client = gateway.client()
    assert [each["FunctionName"] for each in client.list_functions()["Functions"]] == ["hello", "other"]
    assert client.invoke(FunctionName="hello", **DRY_RUN)["StatusCode"] == 204


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        pytest.param(("AKIAUNKNOWN", "secret"), "UnrecognizedClientException", id="unknown key"),
        pytest.param((None, "wrong secret"), "InvalidSignatureException", id="wrong secret"),
    ],
)
def test_other_keys_are_refused_in_awss_words(gateway: ClusterGatewayProcess, keys: tuple[str | None, str], error: str) -> None:
    client = gateway.client((keys[0] or gateway.keys[0], keys[1]))
    for call in (client.list_functions, lambda: client.invoke(FunctionName="hello", **DRY_RUN)):
        with pytest.raises(ClientError) as caught:
            call()
        assert caught.value.response["Error"]["Code"] == error
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_nobody_gets_in_without_a_signature_or_token(gateway: ClusterGatewayProcess) -> None:
    assert "Missing Authentication Token" in refusal(gateway.request("GET", f"{FUNCTIONS}/hello"))
    assert "Missing Authentication Token" in refusal(gateway.request("POST", f"{FUNCTIONS}/hello/invocations", body=b"{}"))


def test_a_key_made_by_kubectl_works_within_seconds_and_ends_with_its_secret(gateway: ClusterGatewayProcess) -> None:
    data = {"aws_access_key_id": "AKIASECOND", "aws_secret_access_key": "second"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "second", "labels": {"lambda.kappa.dev/access-key": "true"}},
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    }
    client = gateway.client(("AKIASECOND", "second"))
    gateway.cluster.apply(secret, namespace=gateway.namespace)
    eventually(lambda: _works(client), what="the new key works", seconds=20)
    gateway.cluster.kubectl("delete", "secret", "second", namespace=gateway.namespace)
    eventually(lambda: not _works(client), what="the deleted key does not work", seconds=20)


def test_a_key_may_be_bound_to_the_rights_of_a_service_account(
    gateway: ClusterGatewayProcess, account: Callable[..., str]
) -> None:
    caller = name_in(account(allow("create", "functions/invoke")))
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "bound",
            "labels": {"lambda.kappa.dev/access-key": "true"},
            "annotations": {"lambda.kappa.dev/review-as": f"{gateway.functions}/{caller}"},
        },
        "stringData": {"aws_access_key_id": "AKIABOUND", "aws_secret_access_key": "bound"},
    }
    gateway.cluster.apply(secret, namespace=gateway.namespace)
    client = gateway.client(("AKIABOUND", "bound"))

    def invoked() -> bool:
        try:
            return bool(client.invoke(FunctionName="hello", **DRY_RUN)["StatusCode"] == 204)
        except ClientError:
            return False

    eventually(invoked, what="the bound key may invoke", seconds=20)
    with pytest.raises(ClientError, match=r"delete functions\.lambda\.kappa\.dev"):
        client.delete_function(FunctionName="hello")


def test_a_bearer_token_may_invoke_what_its_rules_name_and_nothing_else(
    gateway: ClusterGatewayProcess, account: Callable[..., str]
) -> None:
    token = account(allow("create", "functions/invoke", "hello"))
    path = f"{FUNCTIONS}/hello/invocations"
    assert dry_run(gateway, "hello", token) == 204
    assert dry_run(gateway, "other", token) == 403
    said = refusal(gateway.request("GET", f"{FUNCTIONS}/hello", token=token))
    assert "is not authorized to perform: lambda:GetFunction" in said
    assert "get functions.lambda.kappa.dev" in said
    assert gateway.request("POST", path, token=f"{token}x", body=b"{}")[0] == 403


def test_a_token_for_pods_links_is_no_token_for_the_api(gateway: ClusterGatewayProcess, account: Callable[..., str]) -> None:
    token = account(allow("create", "functions/invoke"), audience="lambda.kappa.dev/link")
    assert "The security token included in the request is invalid." in refusal(
        gateway.request("POST", f"{FUNCTIONS}/hello/invocations", token=token, body=b"{}")
    )


def test_a_role_is_given_to_a_function_only_by_whoever_may_use_its_service_account(
    gateway: ClusterGatewayProcess, account: Callable[..., str]
) -> None:
    writer = account(allow("create", "functions"))
    body = json.dumps(
        {
            "FunctionName": "made-by-token",
            "Runtime": "python3.13",
            "Handler": "app.handler",
            "Role": ROLE,
            "Code": {"ZipFile": base64.b64encode(code()).decode()},
        }
    ).encode()
    said = refusal(gateway.request("POST", FUNCTIONS, token=writer, body=body))
    assert "iam:PassRole" in said
    assert "serviceaccounts/kappa-lambda" in said
    passer = account(allow("create", "functions"), allow("use", "serviceaccounts", "kappa-lambda", group=""))
    assert gateway.request("POST", FUNCTIONS, token=passer, body=body)[0] == 201


def test_a_lists_right_is_of_its_own(gateway: ClusterGatewayProcess, account: Callable[..., str]) -> None:
    token = account(allow("list", "functions"))
    status, body = gateway.request("GET", f"{FUNCTIONS}/", token=token)
    assert status == 200
    assert "hello" in {each["FunctionName"] for each in json.loads(body)["Functions"]}
    assert "list functionversions.lambda.kappa.dev" in refusal(gateway.request("GET", f"{FUNCTIONS}/hello/versions", token=token))


def test_anonymous_only_where_it_is_said(tmp_path: Path) -> None:
    with gateway_process(Cluster(), tmp_path, KAPPA_AUTH_MODE="anonymous") as open_gateway:
        assert open_gateway.request("GET", f"{FUNCTIONS}/")[0] == 200
        status, body = open_gateway.request("POST", FUNCTIONS, body=json.dumps(_without_code_store()).encode())
        assert status == 500
        assert "KAPPA_POSTGRES_DSN" in body


def _without_code_store() -> dict[str, object]:
    return {
        "FunctionName": "nowhere",
        "Runtime": "python3.13",
        "Handler": "app.handler",
        "Role": ROLE,
        "Code": {"ZipFile": base64.b64encode(code()).decode()},
    }


def name_in(token: str) -> str:
    """The ServiceAccount that a token says it is."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return str(claims["sub"].rpartition(":")[2])


def _works(client: Any) -> bool:
    try:
        client.list_functions()
    except ClientError:
        return False
    return True


def dry_run(gateway: ClusterGatewayProcess, function: str, token: str) -> int:
    return gateway.request(
        "POST", f"{FUNCTIONS}/{function}/invocations", token=token, body=b"{}", headers={"X-Amz-Invocation-Type": "DryRun"}
    )[0]
