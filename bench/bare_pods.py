"""What the platform alone takes to start a pod: from the patch of a Deployment's scale to a connection that its container's shell dials.

The floor of a cold start, measured in turn with it. Pods have the shape that the operator gives to a function's (image, volumes,
resources, security context), once as they are and once without volumes: the kubelet looks for the volumes of a pod when it gets to it
and then only after 300 ms (``podAttachAndMountRetryInterval``), which any volume costs. Pods have to reach this machine; where they do
not, there is no floor.
"""

from __future__ import annotations

import copy
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kappa_cluster import Release, eventually

DIAL_SECONDS = 30.0
_LABEL = "bench.kappa.dev/bare"


class BarePods:
    """See the module. Made by :func:`bare_pods`."""

    def __init__(self, release: Release, listener: socket.socket, port: int) -> None:
        self._release = release
        self._listener = listener
        self._api = http.client.HTTPConnection("127.0.0.1", port)
        self._deployments = f"/apis/apps/v1/namespaces/{release.functions}/deployments"

    def make(self, name: str, *, like: str, volumes: bool) -> None:
        """A Deployment without pods, of the shape of this function's."""
        selector = f"lambda.kappa.dev%2Ffunction%3D{like}"
        (found, *_) = self._call("GET", f"{self._deployments}?labelSelector={selector}")["items"]
        spec = copy.deepcopy(found["spec"]["template"]["spec"])
        host, port = self._listener.getsockname()
        (container,) = spec["containers"]
        container["command"] = ["bash", "-c", f"echo >/dev/tcp/{host}/{port}; exec sleep 600"]
        spec["terminationGracePeriodSeconds"] = 0
        if not volumes:
            spec["volumes"], container["volumeMounts"] = [], []
        labels = {_LABEL: name}
        template = {"metadata": {"labels": labels}, "spec": spec}
        body = {"replicas": 0, "revisionHistoryLimit": 0, "selector": {"matchLabels": labels}, "template": template}
        self._call(
            "POST", self._deployments, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body}
        )

    def start(self, name: str) -> float | None:
        """Milliseconds from no pod to a connection; None if none came. The pod is gone afterwards."""
        begun = time.perf_counter()
        self._scale(name, 1)
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            took = None
        else:
            took = (time.perf_counter() - begun) * 1000
            connection.close()
        self._scale(name, 0)
        pods = f"/api/v1/namespaces/{self._release.functions}/pods?labelSelector={_LABEL.replace('/', '%2F')}%3D{name}"
        eventually(lambda: not self._call("GET", pods)["items"], what=f"the pod of {name} is gone")
        return took

    def remove(self, *names: str) -> None:
        for name in names:
            self._call("DELETE", f"{self._deployments}/{name}")

    def _scale(self, name: str, replicas: int) -> None:
        self._call("PATCH", f"{self._deployments}/{name}/scale", {"spec": {"replicas": replicas}})

    def _call(self, method: str, path: str, body: object = None) -> Any:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        self._api.request(method, path, None if body is None else json.dumps(body), {"Content-Type": kind})
        answer = self._api.getresponse()
        read = answer.read()
        if answer.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {answer.status} {read.decode(errors='replace')[:200]}")
        return json.loads(read)


@contextmanager
def bare_pods(release: Release) -> Iterator[BarePods]:
    """Through `kubectl proxy`, so that starting kubectl is not in the times."""
    proxy = subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        assert proxy.stdout is not None
        port = int(proxy.stdout.readline().rpartition(":")[2])
        with socket.create_server((_own_address(release), 0)) as listener:
            listener.settimeout(DIAL_SECONDS)
            yield BarePods(release, listener, port)
    finally:
        proxy.kill()
        proxy.wait()


def _own_address(release: Release) -> str:
    """Under which this machine speaks to pods."""
    (pod, *_) = release.cluster.list("pods", namespace=release.namespace, selector="app.kubernetes.io/component=gateway")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((pod["status"]["podIP"], 9))
        return str(probe.getsockname()[0])
