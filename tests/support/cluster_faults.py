"""SIGKILL for processes in a cluster, and the loss of its own components.

A container's processes are killed from a privileged pod on their node, as a crash or the kernel's memory killer would: no preStop, no
SIGTERM, no grace. What is not a pod (API server, kubelet, the network of a node) needs a command that can do it, KAPPA_CLUSTER; tests that
want it are skipped where there is none.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kappa_cluster import Cluster, eventually, run

TOOL = Path(os.environ.get("KAPPA_CLUSTER", Path(__file__).parents[3] / "shared" / "cluster" / "cluster"))
"""A command with `kill`, `start`, `cut` and `heal`."""

needs_faults = pytest.mark.skipif(not TOOL.is_file(), reason="no KAPPA_CLUSTER can stop parts of this cluster")

# Every process of the container: its cgroup names the container.
_KILL = """
import os, signal, sys
found = 0
for entry in os.listdir("/proc"):
    if entry.isdigit():
        try:
            if sys.argv[1] in open(f"/proc/{entry}/cgroup").read():
                os.kill(int(entry), signal.SIGKILL)
                found += 1
        except (OSError, ProcessLookupError):
            pass
print(found)
"""


def kill_container(cluster: Cluster, pod: dict[str, Any], *, image: str = "kappa/control-plane:dev") -> None:
    """SIGKILL every process of a pod's first container, from a pod on its node, and wait until the kubelet knows: before that the pod
    counts as ready, and whoever then waits for it to be back waits for nothing."""
    container = container_id(cluster, pod)
    with killer(cluster, node=pod["spec"]["nodeName"], image=image) as kill:
        kill(container)
        eventually(lambda: not _runs(cluster, pod, container), what="the kubelet has noticed the death")


def _runs(cluster: Cluster, pod: dict[str, Any], container: str) -> bool:
    """Whether the kubelet says so."""
    found = cluster.get("pod", pod["metadata"]["name"], namespace=pod["metadata"]["namespace"])
    statuses = (found or {}).get("status", {}).get("containerStatuses") or [{}]
    return container in statuses[0].get("containerID", "") and "running" in statuses[0].get("state", {})


def container_id(cluster: Cluster, pod: dict[str, Any]) -> str:
    """Of a pod's first container; the kubelet tells it some time after the container has begun to answer."""

    def told() -> str:
        found = json.loads(
            cluster.kubectl("get", "pod", pod["metadata"]["name"], "--output=json", namespace=pod["metadata"]["namespace"])
        )
        (status, *_) = found["status"].get("containerStatuses") or [{}]
        return str(status.get("containerID", "")).partition("://")[2]

    return eventually(told, what="the kubelet has told of the container")


@contextmanager
def killer(cluster: Cluster, *, node: str, image: str = "kappa/control-plane:dev") -> Iterator[Any]:
    """A function that kills a container by its id at once: the pod that does it runs already."""
    name = f"kappa-killer-{secrets.token_hex(3)}"
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "nodeName": node,
                "hostPID": True,
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}],
                "containers": [
                    {
                        "name": "killer",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "600"],
                        "securityContext": {"privileged": True, "runAsUser": 0},
                    }
                ],
            },
        },
        namespace="default",
    )

    def kill(container: str) -> None:
        killed = cluster.kubectl("exec", name, "--", "python3", "-c", _KILL, container, namespace="default")
        assert int(killed) > 0, f"container {container} has no process on {node}"

    try:
        cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s", namespace="default")
        yield kill
    finally:
        cluster.kubectl("delete", "pod", name, "--wait=false", "--ignore-not-found", namespace="default")


@contextmanager
def lost(component: str) -> Iterator[None]:
    """A component of the cluster (`kube-apiserver`, `kubelet@node2`) is killed, and back at the end of the block."""
    run(str(TOOL), "kill", component)
    try:
        yield
    finally:
        run(str(TOOL), "start", component)


@contextmanager
def cut_off(node: str) -> Iterator[None]:
    """A node without its network for the duration of the block."""
    run(str(TOOL), "cut", node)
    try:
        yield
    finally:
        run(str(TOOL), "heal", node)
