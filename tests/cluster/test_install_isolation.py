"""What a function's own code can get at from inside its pod, and what a token gets at the gateways: under the chart's own policies.

Whatever a function has to find closed is first reached from where it is open, so that no test passes because nobody listens. A cluster
whose network plugin enforces no NetworkPolicies is told by a pod under a policy of the test's own; only what needs them is skipped there.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import pytest

from kappa_cluster import Cluster, Object, Release, eventually
from kappa_core.link.frames import OLDEST_VERSION, PROTOCOL_VERSION, FrameReader, FrameType, Hello, PeerHello, encode

AUDIENCE = "lambda.kappa.dev/link"
LINK_PORT = 9443
LISTENING = (8080, 9000, 9443)
"""Ports of the neighbour: the last two are open to functions at the gateways."""
Address = tuple[str, int]

DIAL = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def dial(address):
    try:
        socket.create_connection(address, timeout=2).close()
    except OSError as error:
        return type(error).__name__
    return "reached"

def dial_all(addresses):
    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(dial, map(tuple, addresses)))
"""
DIAL_AND_PRINT = DIAL + "print(json.dumps(dial_all(json.loads(sys.argv[1]))))"
PROBE = (
    DIAL
    + f"""
import os

listening = [socket.create_server(("", port)) for port in {LISTENING}]

def words(path):
    with open(path, errors="replace") as file:
        return file.read()

def refusal(folder):
    path = os.path.join(folder, "written-by-a-function")
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
    os.remove(path)
    return ""

def tokens():
    found = set()
    for root in ("/run", "/var", "/etc", "/opt", "/tmp", "/dev/shm", "/home", "/root", "/srv", "/mnt"):
        for folder, _, names in os.walk(root):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and os.path.getsize(path) < 65536 and os.access(path, os.R_OK):
                    if words(path).startswith("eyJ"):
                        found.add(os.path.realpath(path))
    return sorted(found)

def look():
    return {{
        "uid": os.getuid(),
        "status": dict(line.split(":", 1) for line in words("/proc/self/status").splitlines() if ":" in line),
        "environment": dict(os.environ),
        "supervisor": words("/proc/1/environ").split(chr(0)),
        "refusals": {{folder: refusal(folder) for folder in ("/", "/etc", "/usr", "/var", "/var/runtime", "/run/kappa", "/tmp")}},
        "tokens": [words(path) for path in tokens()],
        "token": words("/var/run/kappa/token"),
        "identity": sorted(name for name in os.listdir("/var/run/kappa") if not name.startswith("..")),
        "address": socket.gethostbyname(socket.gethostname()),
    }}

def handler(event, context):
    return dial_all(event["dial"]) if "dial" in event else look()
"""
)


@dataclass(frozen=True)
class Inside:
    """What the function `probe` saw."""

    look: dict[str, Any]
    reviews: dict[str, Object]
    """What the API server said of its token while the pod was there, by audience."""
    pod: Object
    closed: dict[str, Address]
    """What has to be closed to it, by name; all are open to others."""
    dialled: dict[str, str]
    """What became of its dials to these, and to others."""
    from_a_gateway: dict[str, str]


def ask(release: Release, function: str, **event: Any) -> Any:
    """Invoke the probe that is deployed as `function`."""
    answer = release.client().invoke(FunctionName=function, Payload=json.dumps(event))
    said = json.load(answer["Payload"])
    assert "FunctionError" not in answer, said
    return said


def review(cluster: Cluster, token: str, audience: str) -> Object:
    """What the API server says of a token; without an audience, of one that is for itself."""
    spec = {"token": token, **({"audiences": [audience]} if audience else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    status: Object = json.loads(cluster.kubectl("create", "--filename=-", "--output=json", stdin=json.dumps(body)))["status"]
    return status


def dial_from(release: Release, pod: Object, targets: dict[str, Address]) -> dict[str, str]:
    """What becomes of dials from a gateway's pod."""
    command = ("exec", pod["metadata"]["name"], "--", "python3", "-c", DIAL_AND_PRINT, json.dumps(list(targets.values())))
    return dict(zip(targets, json.loads(release.cluster.kubectl(*command, namespace=release.namespace)), strict=True))


def addresses(cluster: Cluster, release: Release, *, function_pod: Object) -> dict[str, Address]:
    """What functions have no business with, by name."""
    found = {
        "the API server's Service": ("kubernetes.default.svc", 443),
        "PostgreSQL's Service": (f"kappa-postgresql.{release.namespace}.svc", 5432),
    }
    for slice_ in cluster.list("endpointslices", namespace="default", selector="kubernetes.io/service-name=kubernetes"):
        for endpoint in slice_["endpoints"]:
            for address in endpoint["addresses"]:
                found[f"the API server at {address}"] = (address, slice_["ports"][0]["port"])
    for pod in cluster.list("pods", namespace=release.namespace):
        component = pod["metadata"]["labels"].get("app.kubernetes.io/component")
        if component in {"postgresql", "operator"}:
            port = 5432 if component == "postgresql" else 8080
            found[f"the pod {pod['metadata']['name']}"] = (pod["status"]["podIP"], port)
    for node in cluster.list("nodes"):
        # A pod's own node is always open to it: kubernetes.io/docs/concepts/services-networking/network-policies
        if node["metadata"]["name"] != function_pod["spec"]["nodeName"]:
            address = next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
            found[f"the kubelet of {node['metadata']['name']}"] = (address, 10250)
    return found


@pytest.fixture(scope="module")
def inside(cluster: Cluster, release: Release) -> Inside:
    """Two functions; one looks around and dials whatever it may want to reach, the other one among it."""
    for function in ("probe", "neighbour"):
        cluster.apply(release.manifest(function, PROBE), namespace=release.functions)
    for function in ("probe", "neighbour"):
        release.wait_ready(function)
    look = ask(release, "probe")
    (pod,) = release.pods("probe")
    reviews = {audience: review(cluster, look["token"], audience) for audience in ("", AUDIENCE)}
    neighbour = ask(release, "neighbour")["address"]
    gateway, *_ = release.gateways()
    closed = addresses(cluster, release, function_pod=pod)
    from_a_gateway = dial_from(release, gateway, closed)
    beside = {f"the neighbour's port {port}": (neighbour, port) for port in LISTENING}
    itself = dict(zip(beside, ask(release, "neighbour", dial=list(beside.values())), strict=True))
    assert set(from_a_gateway.values()) | set(itself.values()) == {"reached"}, (from_a_gateway, itself)
    closed |= beside
    closed["the metadata address"] = ("169.254.169.254", 80)
    further = {
        "a gateway by name": (f"kappa-gateway.{release.namespace}.svc", 80),
        **{each["metadata"]["name"]: (each["status"]["podIP"], 9000) for each in release.gateways()},
    }
    targets = closed | further
    dialled: dict[str, str] = {}
    for _ in range(5):
        dialled = dict(zip(targets, ask(release, "probe", dial=list(targets.values())), strict=True))
        if not any(dialled[name] == "reached" for name in closed):
            break
        time.sleep(1)  # plugins learn of a new pod some time after it runs
    return Inside(look, reviews, pod, closed, dialled, dial_from(release, gateway, beside))


@pytest.fixture(scope="module")
def policies_count(cluster: Cluster, release: Release) -> Callable[[], bool]:
    """Whether the cluster enforces NetworkPolicies: a pod that may reach nobody tries the API server."""

    @cache
    def find_out() -> bool:
        with cluster.namespace(f"kappa-closed-{secrets.token_hex(3)}") as closed:
            spec = {"podSelector": {}, "policyTypes": ["Egress"]}
            meta = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "nobody"}}
            cluster.apply({**meta, "spec": spec}, namespace=closed)
            address = cluster.get("service", "kubernetes", namespace="default")
            assert address is not None
            target = (address["spec"]["clusterIP"], 443)
            source = (
                DIAL
                + f"import time\nfor _ in range(10):\n if dial({target}) != 'reached': break\n time.sleep(1)\nelse: sys.exit(1)"
            )
            image = release.gateways()[0]["spec"]["containers"][0]["image"]
            container = {"name": "dial", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["python3", "-c", source]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dial"}}
            cluster.apply({**pod, "spec": {"restartPolicy": "Never", "containers": [container]}}, namespace=closed)

            def ended() -> str:
                phase = (cluster.get("pod", "dial", namespace=closed) or {}).get("status", {}).get("phase", "")
                return phase if phase in {"Succeeded", "Failed"} else ""

            return eventually(ended, what="a pod under a policy of its own has tried the API server") == "Succeeded"

    return find_out


# -- the network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["the API server", "PostgreSQL", "the neighbour", "the metadata address", "the pod", "the kubelet"]
)
def test_a_function_does_not_reach(what: str, inside: Inside, policies_count: Callable[[], bool]) -> None:
    tried = [name for name in inside.closed if name.startswith(what)]
    if not tried and what == "the kubelet":
        pytest.skip("this cluster has no second node")
    assert tried
    reached = [name for name in tried if inside.dialled[name] == "reached"]
    if reached and not policies_count():
        pytest.skip("the network plugin of this cluster enforces no NetworkPolicies")
    assert reached == []


def test_nobody_reaches_a_function_not_even_a_gateway(inside: Inside, policies_count: Callable[[], bool]) -> None:
    reached = [name for name, became in inside.from_a_gateway.items() if became == "reached"]
    if reached and not policies_count():
        pytest.skip("the network plugin of this cluster enforces no NetworkPolicies")
    assert reached == []


def test_a_function_resolves_names_and_reaches_every_gateway(inside: Inside, release: Release) -> None:
    gateways = [each["metadata"]["name"] for each in release.gateways()]
    assert len(gateways) == 2
    assert {name: inside.dialled[name] for name in ("a gateway by name", *gateways)} == dict.fromkeys(
        ("a gateway by name", *gateways), "reached"
    )


# -- the pod -----------------------------------------------------------------------------------------------------------


def test_the_pods_token_is_good_for_links_and_nothing_else(inside: Inside) -> None:
    assert not inside.reviews[""].get("authenticated")
    links = inside.reviews[AUDIENCE]
    assert links["authenticated"]
    assert links["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [inside.pod["metadata"]["uid"]]
    payload = inside.look["token"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["aud"] == [AUDIENCE]


def test_no_other_token_is_in_the_pod(inside: Inside) -> None:
    assert inside.look["tokens"] == [inside.look["token"]]
    assert inside.look["identity"] == ["ca.crt", "token"]


def test_the_root_file_system_is_read_only_and_tmp_is_not(inside: Inside) -> None:
    refusals = dict(inside.look["refusals"])
    assert refusals.pop("/tmp") == ""
    assert set(refusals.values()) == {"Read-only file system"}, refusals


def test_a_function_has_no_rights_on_its_node(inside: Inside) -> None:
    status = {name: value.strip() for name, value in inside.look["status"].items()}
    assert inside.look["uid"] != 0
    assert set(status["Uid"].split() + status["Gid"].split() + status["Groups"].split()) == {str(inside.look["uid"])}
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "CapAmb": 0,
    }
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_neither_a_function_nor_its_supervisor_has_a_secret_of_the_release_or_service_links(
    inside: Inside, cluster: Cluster, release: Release
) -> None:
    kept = {
        f"{each['metadata']['name']}: {key}": base64.b64decode(value).decode()
        for each in cluster.list("secrets", namespace=release.namespace, selector="app.kubernetes.io/part-of=kappa")
        for key, value in each["data"].items()
        if key != "ca.crt"
    }
    assert len(kept) >= 5
    seen = [*inside.look["environment"].values(), *(line.partition("=")[2] for line in inside.look["supervisor"])]
    assert [name for name, value in kept.items() if any(value in each for each in seen)] == []
    linked = re.compile(r"_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP))")
    assert [name for name in inside.look["environment"] if linked.search(name)] == []
    links = [line.partition("=")[0] for line in inside.look["supervisor"] if linked.search(line.partition("=")[0])]
    assert [name for name in links if not name.startswith("KUBERNETES_")] == []  # these, the kubelet gives to every container


# -- the links ---------------------------------------------------------------------------------------------------------


@contextmanager
def forwarded(release: Release, pod: Object) -> Iterator[int]:
    """A port of this machine that leads to a gateway's links: policies let nobody in but pods of functions and gateways."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = ["kubectl", "--namespace", release.namespace, "port-forward", pod["metadata"]["name"], f"{port}:{LINK_PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as forward:
        try:
            assert forward.stdout is not None
            assert forward.stdout.readline().startswith("Forwarding from")
            yield port
        finally:
            forward.kill()


class Greeter:
    """Dials every gateway's links over TLS and says one thing."""

    def __init__(self, ports: list[int], *, authority: str, name: str) -> None:
        self._ports = ports
        self._name = name
        self._context = ssl.create_default_context(cadata=authority)

    def supervisor(self, *, token: str, pod_uid: str, revision: str = "") -> list[FrameType]:
        """What the gateways answer to somebody who says that he is this pod's supervisor."""
        return self._greet(
            FrameType.HELLO,
            Hello(
                supervisor_id=f"{pod_uid}.0badcafe",
                oldest=OLDEST_VERSION,
                newest=PROTOCOL_VERSION,
                revision=revision,
                pid=1,
                environments=[],
                token=token,
            ),
        )

    def gateway(self, *, token: str) -> list[FrameType]:
        """The same of somebody who says that he is a gateway."""
        hello = PeerHello(gateway_id="gateway-of-a-test", oldest=OLDEST_VERSION, newest=PROTOCOL_VERSION, token=token)
        return self._greet(FrameType.PEER_HELLO, hello)

    def _greet(self, kind: FrameType, hello: msgspec.Struct) -> list[FrameType]:
        heard: list[FrameType] = []
        for port in self._ports:
            reader = FrameReader()
            with (
                socket.create_connection(("127.0.0.1", port), timeout=15) as raw,
                self._context.wrap_socket(raw, server_hostname=self._name) as link,
            ):
                link.sendall(encode(kind, hello))
                answer: list[FrameType] = []
                while FrameType.WELCOME not in answer and (data := link.recv(65536)):
                    answer += [frame.type for frame in reader.feed(data)]
                heard += answer
        return heard


@pytest.fixture(scope="module")
def greeter(cluster: Cluster, release: Release, inside: Inside) -> Iterator[Greeter]:
    """Knows the gateways' certificate from where pods know it."""
    found = cluster.get("configmap", "kappa-link-ca", namespace=release.functions)
    assert found is not None
    one, other = release.gateways()
    with forwarded(release, one) as first, forwarded(release, other) as second:
        name = f"kappa-gateway-links.{release.namespace}.svc"
        yield Greeter([first, second], authority=found["data"]["ca.crt"], name=name)


@pytest.mark.usefixtures("inside")
def test_the_gateways_welcome_a_pod_by_its_own_token_and_nobody_else(
    cluster: Cluster, release: Release, greeter: Greeter
) -> None:
    token = ask(release, "neighbour")["token"]
    ask(release, "probe")
    (pod,), (other,) = release.pods("neighbour"), release.pods("probe")
    uid, name, account = pod["metadata"]["uid"], pod["metadata"]["name"], pod["spec"]["serviceAccountName"]

    def made(*options: str) -> str:
        return cluster.kubectl("create", "token", account, *options, namespace=release.functions).strip()

    bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
    header, payload, signature = token.split(".")
    revision = other["metadata"]["annotations"]["lambda.kappa.dev/revision"]
    answers = {
        "no token": greeter.supervisor(token="", pod_uid=uid),
        "no such token": greeter.supervisor(token="let-me-in", pod_uid=uid),
        "a forged signature": greeter.supervisor(token=f"{header}.{payload}.{signature[::-1]}", pod_uid=uid),
        "its token for the API server": greeter.supervisor(token=made(*bound), pod_uid=uid),
        "a token of its account, of no pod": greeter.supervisor(token=made(f"--audience={AUDIENCE}"), pod_uid=uid),
        "its token, as another pod": greeter.supervisor(token=token, pod_uid=other["metadata"]["uid"]),
        "its token, with another revision": greeter.supervisor(token=token, pod_uid=uid, revision=revision),
        "its token, as a gateway": greeter.gateway(token=token),
        "no token, as a gateway": greeter.gateway(token=""),
    }
    assert answers == {case: [] for case in answers}
    assert greeter.supervisor(token=token, pod_uid=uid) == [FrameType.WELCOME] * 2

    cluster.kubectl("delete", "pod", name, "--wait=true", namespace=release.functions)
    assert greeter.supervisor(token=token, pod_uid=uid) == []
