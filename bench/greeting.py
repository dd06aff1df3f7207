"""A new gateway that many environments greet: how long until it knows all of them, what that costs it, and whether it serves by them.

No test cluster has room for so many pods: theirs are never scheduled, and :mod:`bench.played_pods` plays them at the links.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from bench.client import invocation
from bench.load import Plan, Seen, run
from bench.played_pods import PlayedPods
from bench.pod_metrics import METRICS_SECONDS, cpu_seconds, memory_megabytes, own_metric
from bench.report import Report
from bench.warm import EVENT, SOURCE

from kappa_cluster import Release, eventually

FUNCTION = "greeting"
NOWHERE = {"lambda.kappa.dev/bench": "no-node-has-this-label"}
WAIT_SECONDS = 300
"""For so many pods to be made: the ReplicaSet's controller makes twenty in a second."""
PORT = 9000


def measure_greeting(report: Report, release: Release, *, quick: bool) -> None:
    """Has so many environments started, by as many invocations at once, and all of them linked to two gateways; then adds a gateway."""
    count = 50 if quick else 500
    values = {"nodeSelector": NOWHERE, "idleSeconds": 1800}
    release.upgrade(functions=values, limits={"capacityWaitSeconds": WAIT_SECONDS}, gateway={"replicas": 2})
    release.apply_function(FUNCTION, SOURCE, timeout=WAIT_SECONDS)
    asyncio.run(_measure(report, release, count))


async def _measure(report: Report, release: Release, count: int) -> None:
    title = f"a new gateway, {count} environments (played at real links)"
    pods = PlayedPods(release=release.namespace, namespace=release.functions, function=FUNCTION, at_once=count)
    playing = asyncio.ensure_future(pods.play())
    try:
        begun = time.perf_counter()
        first = await asyncio.to_thread(_invoke, release.endpoint, connections=count, requests=1)
        if playing.done():
            await playing
        report.add(title, f"{count} invocations that all run at once, from no pod", time.perf_counter() - begun, "s")
        _failures(report, title, first)
        await asyncio.to_thread(eventually, lambda: _linked(release) >= 2 * count, what="all are linked", seconds=WAIT_SECONDS)
        report.add(title, "until all are linked to two gateways", time.perf_counter() - begun, "s")
        before = {pod["metadata"]["name"] for pod in release.gateways()}
        scale = ("scale", "deployment/kappa-gateway", "--replicas=3")
        begun = time.perf_counter()
        await asyncio.to_thread(release.cluster.kubectl, *scale, namespace=release.namespace)
        ((new, address),) = await asyncio.to_thread(
            eventually, lambda: _new(release, before), what="a new gateway runs", pause=0.1
        )
        runs = time.perf_counter()
        report.add(title, "from the patch until its container runs", runs - begun, "s")
        await asyncio.to_thread(
            eventually, lambda: _linked(release, new) >= count, what="all have greeted", seconds=WAIT_SECONDS, pause=0.1
        )
        report.add(title, "from then until all have greeted it", time.perf_counter() - runs, "s")
        await asyncio.sleep(METRICS_SECONDS)
        report.add(title, "its CPU from its start until some seconds later", cpu_seconds(release, "gateway", pod=new), "s")
        report.add(title, "its memory", memory_megabytes(release, "gateway", pod=new), "MB")
        seen = await asyncio.to_thread(_invoke, f"http://{address}:{PORT}", connections=8, seconds=3.0)
        report.add(title, "invocations through it, c8 (the pods are played): p50", seen.p50_ms, "ms")
        _failures(report, title, seen)
    finally:
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing


def _failures(report: Report, title: str, seen: Seen) -> None:
    kinds = "".join(f", {kind}" for kind in seen.failures)
    report.add(title, f"failures of these{kinds}", sum(seen.failures.values()), "", at_most=0)


def _new(release: Release, before: set[str]) -> list[tuple[str, str]]:
    """Name and address of the gateway that was not there."""
    found = [(pod["metadata"]["name"], pod["status"]["podIP"]) for pod in release.gateways()]
    return [(name, address) for name, address in found if name not in before]


def _linked(release: Release, pod: str = "") -> float:
    return own_metric(release, "gateway", "kappa_gateway_supervisors", port=PORT, pod=pod)


def _invoke(endpoint: str, *, connections: int, requests: int | None = None, seconds: float = 1.0) -> Seen:
    host, _, port = endpoint.removeprefix("http://").partition(":")
    return run(
        Plan(
            host=host,
            port=int(port),
            paths=[invocation(FUNCTION)],
            body=EVENT,
            connections=connections,
            requests=requests,
            seconds=seconds,
            timeout=WAIT_SECONDS,
        )
    )
