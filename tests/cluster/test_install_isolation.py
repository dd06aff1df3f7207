"""What a function's own code can get at from inside its pod: under the chart's own policies.

Whatever a function has to find closed is first reached from where it is open, so that no test passes because nobody listens. A cluster
whose network plugin enforces no NetworkPolicies is told by a pod under a policy of the test's own; only what needs them is skipped there.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from kappa_cluster import Cluster, Object, Release, eventually
from probing_function import DIAL, LISTENING, PROBE, Address, ask, dial_from

AUDIENCE = "lambda.kappa.dev/link"


@dataclass(frozen=True)
class Inside:
    """What the function `probe` saw."""

    look: dict[str, Any]
    reviews: dict[str, Object]
    """What the API server said of its token while the pod was there, by audience."""
    pod: Object
    closed: list[str]
    """What has to be closed to it; all of it that exists is open to others."""
    dialled: dict[str, str]
    """What became of its dials to these, and to others."""
    from_a_gateway: dict[str, str]
    """What became of dials from a gateway's pod to the neighbour."""

    @property
    def too_much(self) -> list[str]:
        """What somebody reached who must not."""
        by_others = [f"{name}, by a gateway" for name, became in self.from_a_gateway.items() if became == "reached"]
        return [name for name in self.closed if self.dialled[name] == "reached"] + by_others


def review(cluster: Cluster, token: str, audience: str) -> Object:
    """What the API server says of a token; without an audience, of one that is for itself."""
    spec = {"token": token, **({"audiences": [audience]} if audience else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
    status: Object = json.loads(cluster.kubectl("create", "--filename=-", "--output=json", stdin=json.dumps(body)))["status"]
    return status


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
    gateway, *_ = release.gateways()
    guarded = addresses(cluster, release, function_pod=pod)
    assert set((there := dial_from(release, gateway, guarded)).values()) == {"reached"}, there
    open_ones = {
        "a gateway by name": (f"kappa-gateway.{release.namespace}.svc", 80),
        **{each["metadata"]["name"]: (each["status"]["podIP"], 9000) for each in release.gateways()},
    }

    def try_all() -> Inside:
        neighbour = ask(release, "neighbour")["address"]
        beside = {f"the neighbour's port {port}": (neighbour, port) for port in LISTENING}
        assert ask(release, "neighbour", dial=list(beside.values())) == ["reached"] * len(beside)
        closed = guarded | beside | {"the metadata address": ("169.254.169.254", 80)}
        targets = closed | open_ones
        dialled = dict(zip(targets, ask(release, "probe", dial=list(targets.values())), strict=True))
        return Inside(look, reviews, pod, list(closed), dialled, dial_from(release, gateway, beside))

    found = try_all()
    for _ in range(3):  # plugins learn of a new pod some time after it runs
        if not found.too_much:
            break
        time.sleep(1)
        found = try_all()
    return found


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
