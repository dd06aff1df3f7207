"""What whoever runs Kappa relies on: logs at every gateway, a certificate that never ends, and who may hand out which role."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from invocation_load import invoke
from kappa_cluster import SCRIPTS, Cluster, CommandError, Release, eventually
from kappa_gateway.kubernetes.certificates import SERVER_DAYS, Pair, make_server
from kappa_gateway.kubernetes.prepare import AUTHORITY_SECRET, LINK_SECRET, link_names

PRINTING = "def handler(event, context):\n    print(event['word'])\n"
CALLING = """
import boto3, json

def handler(event, context):
    said = boto3.client("lambda").invoke(FunctionName=event["function"], Payload=json.dumps({}))
    return json.load(said["Payload"])
"""
RENEWED_SECONDS = 240.0
"""Until a changed Secret is in a pod's volume (the kubelet looks once a minute) and the gateway has looked (every half minute)."""


# -- logs --------------------------------------------------------------------------------------------------------------------
def printed(release: Release, name: str, *, endpoint: str) -> list[str]:
    """The words that a function has printed, as one gateway answers."""
    return re.findall(r"^word \d+$", release.kappa("logs", name, endpoint=endpoint), re.MULTILINE)


def test_every_gateway_answers_all_lines_of_a_function(release: Release, name: str) -> None:
    release.apply_function(name, PRINTING)
    gateways = [release.endpoint_of(pod) for pod in release.gateways()]
    assert len(gateways) == 2
    wanted = [f"word {number}" for number in range(6)]
    for number, word in enumerate(wanted):
        invoke(release.client(endpoint=gateways[number % 2]), name, {"word": word})
    eventually(
        lambda: all(printed(release, name, endpoint=gateway) == wanted for gateway in gateways),
        what="every gateway has all lines",
    )


def test_a_follower_at_either_gateway_hears_what_is_printed_from_then_on(release: Release, name: str, tmp_path: Path) -> None:
    release.apply_function(name, PRINTING)
    heard = [tmp_path / f"{number}.txt" for number in range(2)]
    with following(release, name, heard):
        word = 0

        def both_have_heard() -> bool:
            nonlocal word
            word += 1
            invoke(release.client(), name, {"word": f"word {word}"})
            return all("word" in each.read_text() for each in heard)

        eventually(both_have_heard, what="both followers hear the function")
        invoke(release.client(), name, {"word": "word 0"})
        eventually(lambda: all("word 0" in each.read_text() for each in heard), what="both followers hear the last line")
    lines = [[line for line in each.read_text().splitlines() if line.startswith("word")] for each in heard]
    assert lines[0] == lines[1] == [*(f"word {number}" for number in range(1, word + 1)), "word 0"]


@contextmanager
def following(release: Release, name: str, files: list[Path]) -> Iterator[None]:
    """`kappa logs -f` at each gateway, into a file each."""
    command = [str(SCRIPTS / "kappa"), "logs", name, "-f", "--since", "1d"]
    environments = [release.environment() | {"AWS_ENDPOINT_URL_LAMBDA": release.endpoint_of(pod)} for pod in release.gateways()]
    processes = []
    try:
        for file, environment in zip(files, environments, strict=True):
            with file.open("wb") as output:
                processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.DEVNULL))
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


# -- certificate -------------------------------------------------------------------------------------------------------------
def certificate_end(release: Release, gateway: dict[str, Any]) -> float:
    """When the links' certificate ends, as a gateway's metrics say."""
    with urllib.request.urlopen(f"{release.endpoint_of(gateway)}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(r'^kappa_gateway_link_certificate_end_seconds\{certificate="server"\} (\S+)$', text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_a_certificate_that_ends_soon_is_renewed_without_an_upgrade_and_gateways_take_it_over(
    cluster: Cluster, release: Release, name: str
) -> None:
    release.apply_function(name, PRINTING)
    invoke(release.client(), name, {"word": "before"})
    gateways = release.gateways()
    before = certificate_end(release, gateways[0])
    ends_soon(cluster, release)
    cluster.kubectl("create", "job", "renew-now", "--from=cronjob/kappa-renew", namespace=release.namespace)
    cluster.kubectl("wait", "job/renew-now", "--for=condition=Complete", "--timeout=120s", namespace=release.namespace)
    said = cluster.kubectl("logs", "job/renew-now", namespace=release.namespace)
    assert f"Secret {LINK_SECRET}: signed anew" in said
    eventually(
        lambda: all(certificate_end(release, gateway) > before for gateway in gateways),
        what="the gateways have the new certificate",
        seconds=RENEWED_SECONDS,
    )
    assert [pod["metadata"]["name"] for pod in release.gateways()] == [pod["metadata"]["name"] for pod in gateways]
    invoke(release.client(), name, {"word": "after"})


def ends_soon(cluster: Cluster, release: Release) -> None:
    """Put a certificate of the same authority in its place that has ten days left."""
    authority = cluster.get("secret", AUTHORITY_SECRET, namespace=release.namespace)
    assert authority is not None
    pair = Pair(*(base64.b64decode(authority["data"][key]) for key in ("tls.crt", "tls.key")))
    names = link_names("kappa-gateway-links", namespace=release.namespace, domain="cluster.local")
    short = make_server(names, authority=pair, now=datetime.now(UTC) - timedelta(days=SERVER_DAYS - 10))
    data = {"tls.crt": base64.b64encode(short.certificate).decode(), "tls.key": base64.b64encode(short.key).decode()}
    cluster.kubectl("patch", "secret", LINK_SECRET, f"--patch={json.dumps({'data': data})}", namespace=release.namespace)


# -- roles -------------------------------------------------------------------------------------------------------------------
def grant(cluster: Cluster, namespace: str, subject: dict[str, str], rules: list[dict[str, list[str]]]) -> None:
    """A Role with these rules, for one subject."""
    about = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": f"test-{subject['name']}"}}
    cluster.apply({**about, "kind": "Role", "rules": rules}, namespace=namespace)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"test-{subject['name']}"}
    cluster.apply({**about, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]}, namespace=namespace)


@pytest.fixture(scope="module")
def author(cluster: Cluster, release: Release) -> str:
    """A user who may write functions and use the ServiceAccounts of two roles."""
    annotation = {"lambda.kappa.dev/role": "arn:aws:iam::000000000000:role/auditor"}
    vault = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "vault", "annotations": annotation}}
    cluster.apply(vault, namespace=release.functions)
    writes = {"apiGroups": ["lambda.kappa.dev"], "resources": ["functions", "functionversions"], "verbs": ["*"]}
    used = ["kappa-orders", "kappa-auditor"]
    uses = {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": used, "verbs": ["use"]}
    grant(cluster, release.functions, {"kind": "User", "name": "author"}, [writes, uses])
    return "author"


def as_user(cluster: Cluster, release: Release, user: str, manifest: dict[str, Any]) -> str:
    """What `kubectl apply` as this user says, or its error."""
    try:
        return cluster.kubectl("apply", f"--as={user}", "--filename=-", namespace=release.functions, stdin=json.dumps(manifest))
    except CommandError as error:
        return str(error)


@pytest.mark.parametrize(
    ("role", "refused"),
    [
        pytest.param(None, "", id="none"),
        pytest.param("orders", "", id="its own"),
        pytest.param("arn:aws:iam::000000000000:role/orders", "", id="its own by ARN"),
        pytest.param("admin", "serviceaccounts/kappa-admin", id="another"),
        pytest.param("Admin", "to use serviceaccounts in", id="one whose name needs a digest"),
        pytest.param("arn:aws:iam::111111111111:role/orders", "to use serviceaccounts in", id="another account's"),
        pytest.param("auditor", "serviceaccounts/vault", id="one that stands for an annotated ServiceAccount"),
    ],
)
def test_kubectl_hands_out_a_role_only_to_who_may_use_its_service_account(
    cluster: Cluster, release: Release, author: str, name: str, role: str | None, refused: str
) -> None:
    manifest = release.manifest(name, PRINTING, **({} if role is None else {"role": role}))
    wanted = f"may not hand out {role}: it takes the right" if refused else "created"
    said: list[str] = []

    def as_expected() -> bool:  # RBAC learns of a new Role a moment later
        said.append(as_user(cluster, release, author, manifest))
        return wanted in said[-1]

    eventually(as_expected, what=f"the API server says: {wanted}", seconds=20)
    assert refused in said[-1]


def test_a_role_that_a_function_has_is_no_reason_to_refuse_another_edit_of_it(
    cluster: Cluster, release: Release, author: str, name: str
) -> None:
    cluster.apply(release.manifest(name, PRINTING, role="admin"), namespace=release.functions)
    patch = ("patch", "function", name, "--type=merge", f"--as={author}")
    cluster.kubectl(*patch, '--patch={"spec":{"memorySize":256}}', namespace=release.functions)
    with pytest.raises(CommandError, match="may not hand out superuser"):
        cluster.kubectl(*patch, '--patch={"spec":{"role":"superuser"}}', namespace=release.functions)


def test_a_function_calls_another_one_once_a_role_binding_allows_its_service_account_to(
    cluster: Cluster, release: Release, name: str
) -> None:
    called = f"{name}-called"
    release.apply_function(called, "def handler(event, context):\n    return 'called'\n")
    release.apply_function(name, CALLING, role="caller", memorySize=512)
    client = release.client()
    refused = client.invoke(FunctionName=name, Payload=json.dumps({"function": called}))
    assert refused["FunctionError"] == "Unhandled"
    assert f"create functions/invoke.lambda.kappa.dev in namespace {release.functions}" in refused["Payload"].read().decode()
    subject = {"kind": "ServiceAccount", "name": "kappa-caller", "namespace": release.functions}
    invokes = {
        "apiGroups": ["lambda.kappa.dev"],
        "resources": ["functions/invoke"],
        "resourceNames": [called],
        "verbs": ["create"],
    }
    grant(cluster, release.functions, subject, [invokes])

    def answered() -> bool:
        said = client.invoke(FunctionName=name, Payload=json.dumps({"function": called}))
        return "FunctionError" not in said and json.load(said["Payload"]) == "called"

    eventually(answered, what="the right is known to the gateways")
