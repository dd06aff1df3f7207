"""A counter of invocations in a pod of its own, and the handler that counts itself there: who is inside, at any moment, over all nodes.

A connection is one invocation: it is counted from its first line, which is answered with the number that are inside, until its end.
The pod has a policy that lets this function reach it; nothing else of what functions may reach changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kappa_cluster import Cluster, Object, Release, eventually

PORT = 7070
COUNTED = f"""
import os, socket, time

def dial():
    for _ in range(100):
        try:
            return socket.create_connection((os.environ["COUNTER"], {PORT}), timeout=2)
        except OSError:  # plugins learn of a new pod some time after it runs
            time.sleep(0.1)
    raise ConnectionError("the counter is out of reach")

def handler(event, context):
    with dial() as counter, counter.makefile("rw") as lines:
        print("enter", file=lines, flush=True)
        inside = int(lines.readline())
        time.sleep(event["seconds"])
        print("leave", file=lines, flush=True)
        lines.readline()
        return inside
"""
_COUNTER = f"""
import asyncio

inside = 0

async def count(reader, writer):
    global inside
    if not await reader.readline():
        return
    inside += 1
    try:
        writer.write(b"%d\\n" % inside)
        await reader.readline()
    finally:
        inside -= 1
        writer.write(b"left\\n")
        writer.close()

async def main():
    server = await asyncio.start_server(count, "", {PORT})
    await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def invocation_counter(cluster: Cluster, release: Release, *, function: str) -> Iterator[str]:
    """The counter's address; ``function`` may dial it, and nobody else of the functions."""
    name = f"counter-{function}"
    mine = {"app": name}
    container = {
        "name": "counter",
        "image": release.gateways()[0]["spec"]["containers"][0]["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", _COUNTER],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
    egress = [{"to": [{"podSelector": {"matchLabels": mine}}], "ports": [{"port": PORT}]}]
    policy = {
        "podSelector": {"matchLabels": {"lambda.kappa.dev/function": function}},
        "policyTypes": ["Egress"],
        "egress": egress,
    }
    objects: list[Object] = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": mine}, "spec": pod},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": policy},
    ]
    for each in objects:
        cluster.apply(each, namespace=release.functions)
    try:
        yield eventually(lambda: _ready_address(cluster, release, name), what="the counter is ready")
    finally:
        cluster.kubectl("delete", "pod,networkpolicy", name, "--wait=false", namespace=release.functions)


def _ready_address(cluster: Cluster, release: Release, name: str) -> str:
    status: Object = (cluster.get("pod", name, namespace=release.functions) or {}).get("status", {})
    ready = {"type": "Ready", "status": "True"}.items()
    return str(status["podIP"]) if any(ready <= each.items() for each in status.get("conditions", [])) else ""
