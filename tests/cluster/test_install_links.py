"""What tokens get at the gateways' links, over TLS and from outside: a pod's own is good for that pod, and nothing else is for anybody."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from kappa_cluster import Cluster, Object, Release
from kappa_core.link.frames import OLDEST_VERSION, PROTOCOL_VERSION, FrameReader, FrameType, Hello, PeerHello, encode
from probing_function import PROBE, ask

AUDIENCE = "lambda.kappa.dev/link"
LINK_PORT = 9443


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
        """The first word of each gateway that answers somebody who says that he is this pod's supervisor."""
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
                while not answer and (data := link.recv(65536)):
                    answer = [frame.type for frame in reader.feed(data)]
                heard += answer[:1]
        return heard


@pytest.fixture
def two_functions(release: Release, name: str) -> tuple[str, str]:
    """Names of two functions that tell their pods' tokens."""
    one, other = f"{name}-one", f"{name}-other"
    for function in (one, other):
        release.cluster.apply(release.manifest(function, PROBE), namespace=release.functions)
    for function in (one, other):
        release.wait_ready(function)
    return one, other


@pytest.fixture
def greeter(release: Release, two_functions: tuple[str, str]) -> Iterator[Greeter]:
    """Knows the gateways' certificate from where pods know it."""
    authority = release.cluster.get("configmap", "kappa-link-ca", namespace=release.functions)
    assert authority is not None, f"no authority in the namespace of {two_functions}"
    one, other = release.gateways()
    with forwarded(release, one) as first, forwarded(release, other) as second:
        name = f"kappa-gateway-links.{release.namespace}.svc"
        yield Greeter([first, second], authority=authority["data"]["ca.crt"], name=name)


def test_a_pod_is_welcome_by_its_own_token_while_it_is_there_and_by_no_other(
    cluster: Cluster, release: Release, two_functions: tuple[str, str], greeter: Greeter
) -> None:
    function, another = two_functions
    ask(release, another)
    (other,) = release.pods(another)
    token = ask(release, function)["token"]
    (pod,) = release.pods(function)
    uid, name, account = pod["metadata"]["uid"], pod["metadata"]["name"], pod["spec"]["serviceAccountName"]

    def made(*options: str) -> str:
        return cluster.kubectl("create", "token", account, *options, namespace=release.functions).strip()

    bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
    header, payload, signature = token.split(".")
    revision = other["metadata"]["annotations"]["lambda.kappa.dev/revision"]
    unbound = made(f"--audience={AUDIENCE}")
    for_the_api_server = made(*bound)
    assert greeter.supervisor(token=token, pod_uid=uid) == [FrameType.WELCOME] * 2
    assert ask(release, function)["token"] == token  # and its real supervisor still serves

    answers = {
        "no token": greeter.supervisor(token="", pod_uid=uid),
        "no such token": greeter.supervisor(token="let-me-in", pod_uid=uid),
        "a forged signature": greeter.supervisor(token=f"{header}.{payload}.{signature[::-1]}", pod_uid=uid),
        "the pod's token for the API server": greeter.supervisor(token=for_the_api_server, pod_uid=uid),
        "a token of its account, of no pod": greeter.supervisor(token=unbound, pod_uid=uid),
        "its token, as another pod": greeter.supervisor(token=token, pod_uid=other["metadata"]["uid"]),
        "its token, with another revision": greeter.supervisor(token=token, pod_uid=uid, revision=revision),
        "its token, as a gateway": greeter.gateway(token=token),
        "no token, as a gateway": greeter.gateway(token=""),
    }
    assert {case: heard for case, heard in answers.items() if heard} == {}

    cluster.kubectl("delete", "pod", name, "--ignore-not-found", namespace=release.functions)
    assert greeter.supervisor(token=token, pod_uid=uid) == []
