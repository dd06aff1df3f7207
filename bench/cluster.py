"""`make bench-cluster`: Kappa on the cluster of KUBECONFIG, installed from its chart for the run, against the budgets of the design.

`python -m bench.cluster --only cold warm many`. Anonymous access, so that signing is not what is measured. It reads what any user can read:
answers, the pods' watch, REPORT lines, the kubelets' resource metrics. Times of a watch are those at which this process heard of
something, so a phase includes what its news took. Scale is not that of production: everything shares one machine here.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, Protocol
from urllib.parse import urlsplit

from bench.bare_pods import bare_pods
from bench.client import invocation
from bench.greeting import measure_greeting
from bench.load import Plan, percentile, run
from bench.many import measure_many
from bench.pod_metrics import METRICS_SECONDS, cpu_seconds
from bench.report import Report
from bench.warm import EVENT, EXPECT, SOURCE

from kappa_cluster import Cluster, Release, eventually, installed, require_cluster

COLD_IDLE_SECONDS = 3
"""Short: a cold start is measured again and again."""
IDLE_SECONDS = 60
"""For everything else: pods that end beside those that begin are no part of it."""
CAPACITY_WAIT_SECONDS = 120
"""Four times the default: what a burst takes is measured, not where it is cut off."""
OWN_MS = 430.0
"""What a cold start may take beyond that of a bare pod of its shape (docs/rfc/0004)."""


class Measurement(Protocol):
    def __call__(self, report: Report, release: Release, *, quick: bool) -> None: ...


class PodWatch:
    """When this process first heard that a pod of the function namespace was there, had a node, ran."""

    def __init__(self, namespace: str) -> None:
        self.seen: dict[str, dict[str, float]] = {}
        self._process = subprocess.Popen(
            ["kubectl", "--namespace", namespace, "get", "pods", "--watch", "--output-watch-events", "--output=json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._note(json.loads(line)["object"], time.perf_counter())

    def _note(self, pod: dict[str, Any], now: float) -> None:
        times = self.seen.setdefault(pod["metadata"]["name"], {"there": now})
        if pod["spec"].get("nodeName"):
            times.setdefault("scheduled", now)
        for status in pod["status"].get("containerStatuses", []):
            if "running" in status["state"]:
                times.setdefault("running", now)

    def since(self, begun: float) -> dict[str, float] | None:
        """The times of the pod that came after this moment."""
        return next((times for times in self.seen.values() if times["there"] >= begun), None)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()


@contextmanager
def watched(namespace: str) -> Iterator[PodWatch]:
    watch = PodWatch(namespace)
    try:
        yield watch
    finally:
        watch.close()


def measure_cold(report: Report, release: Release, *, quick: bool) -> None:
    """One cold start after the other, then many functions at once."""
    title = "cold: a 128 MB Python function from no pod, image present"
    release.apply_function("cold", SOURCE)
    client = release.client()
    totals: list[float] = []
    phases: dict[str, list[float]] = {"pod is there": [], "scheduled": [], "container runs (as its status says)": []}
    inits: list[float] = []
    floors: dict[str, list[float]] = {"bench-bare": [], "bench-bare-no-volumes": []}
    client.invoke(FunctionName="cold", Payload=EVENT)  # its Deployment is there afterwards
    with watched(release.functions) as watch, bare_pods(release) as bare:
        for name in floors:
            bare.make(name, like="cold", volumes=name == "bench-bare")
        for number in range(4 if quick else 15):
            for name, floor in floors.items():
                if (alone := bare.start(name)) is not None and number > 0:
                    floor.append(alone)
            eventually(lambda: not release.pods("cold"), what="the function is at zero")
            begun = time.perf_counter()
            answer = client.invoke(FunctionName="cold", Payload=EVENT, LogType="Tail")
            took = (time.perf_counter() - begun) * 1000
            assert answer["Payload"].read().decode() == EXPECT
            if number == 0:
                continue  # the first one may have pulled the image
            totals.append(took)
            found = re.search(r"Init Duration: ([0-9.]+) ms", base64.b64decode(answer["LogResult"]).decode())
            if found is not None:
                inits.append(float(found[1]))
            times = eventually(lambda: watch.since(begun), what="the watch has seen the pod") or {}  # noqa: B023 - called at once
            for name, key in zip(phases, ("there", "scheduled", "running"), strict=True):
                if key in times:
                    phases[name].append((times[key] - begun) * 1000)
        bare.remove(*floors)
    totals.sort()
    for name, values in phases.items():
        report.add(title, f"from the request until {name}: p50", median(values) if values else None, "ms", why_not="not seen")
    report.add(title, "init, as REPORT says: p50", median(inits) if inits else None, "ms", why_not="no REPORT line")
    p50 = percentile(totals, 0.5)
    report.add(title, "from the request to the answer: p50", p50, "ms", at_most=800.0)
    report.add(title, "from the request to the answer: p95", percentile(totals, 0.95), "ms")
    unreached = "pods do not reach this machine"
    bares = {name: median(values) if values else None for name, values in floors.items()}
    report.add(title, "a bare pod without volumes: p50", bares["bench-bare-no-volumes"], "ms", why_not=unreached)
    shape = bares["bench-bare"]
    report.add(title, "a bare pod of the same shape: p50", shape, "ms", why_not=unreached)
    own = None if shape is None else p50 - shape
    report.add(title, "the cold start beyond that", own, "ms", at_most=OWN_MS, why_not=unreached)
    report.add(title, "their ratio", None if shape is None else p50 / shape, "x", why_not=unreached)


def measure_burst(report: Report, release: Release, *, quick: bool) -> None:
    """Functions that are all cold, invoked at the same moment."""
    count = 10 if quick else 50
    names = [f"burst-{number}" for number in range(count)]
    for name in names:
        release.cluster.apply(release.manifest(name, SOURCE, timeout=60), namespace=release.functions)
    for name in names:
        release.wait_ready(name)
    seen = run(_plan(release, names, connections=count, requests=1))
    title = f"cold: {count} functions at once"
    report.add(title, "p50", seen.p50_ms, "ms")
    report.add(title, "p95", seen.p95_ms, "ms")
    report.add(title, "the last one", seen.max_ms, "ms")
    report.add(title, "failures", sum(seen.failures.values()), "", at_most=0)


def measure_warm(report: Report, release: Release, *, quick: bool) -> None:
    """Through the Service, at concurrency 1 and 8."""
    title = "warm: no-op Python through the Service"
    release.apply_function("warm", SOURCE)
    seconds = 5.0 if quick else 30.0
    for connections in (1, 8):
        run(_plan(release, ["warm"], connections=connections, seconds=2.0))
        before = cpu_seconds(release, "gateway")
        seen = run(_plan(release, ["warm"], connections=connections, seconds=seconds))
        time.sleep(METRICS_SECONDS)
        spent = cpu_seconds(release, "gateway") - before
        report.add(title, f"c{connections}: throughput", seen.per_second, "/s")
        report.add(title, f"c{connections}: p50", seen.p50_ms, "ms")
        report.add(title, f"c{connections}: p99", seen.p99_ms, "ms")
        report.add(title, f"c{connections}: failures", sum(seen.failures.values()), "", at_most=0)
        report.add(title, f"c{connections}: CPU of the gateways", spent / seen.sent * 1e6, "µs")
        if spent > 0:
            report.add(title, f"c{connections}: requests per second and gateway core", seen.sent / spent, "/s")


# -- what everything here uses -----------------------------------------------------------------------------------------
def _wait_gone(release: Release) -> None:
    """Pods that end are work for the machine that the next measurement is not about."""
    eventually(lambda: not release.cluster.list("pods", namespace=release.functions), what="all pods are gone", seconds=180)


def _plan(release: Release, names: list[str], *, connections: int, seconds: float = 1.0, requests: int | None = None) -> Plan:
    where = urlsplit(release.endpoint)
    assert where.hostname is not None
    return Plan(
        host=where.hostname,
        port=where.port or 80,
        paths=[invocation(name) for name in names],
        body=EVENT,
        connections=connections,
        seconds=seconds,
        requests=requests,
        expect=EXPECT,
    )


MEASUREMENTS: dict[str, Measurement] = {
    "cold": measure_cold,
    "burst": measure_burst,
    "warm": measure_warm,
    "many": measure_many,
    "greeting": measure_greeting,
}


def main(exit_with: Callable[[int], object] = sys.exit) -> None:
    """Install, measure what was asked for, uninstall."""
    parser = argparse.ArgumentParser(prog="make bench-cluster ARGS=...", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS), help="in this order")
    parser.add_argument("--quick", action="store_true", help="a fraction of the time: to see that it works, not to quote")
    chosen = parser.parse_args()
    report = Report(quick=chosen.quick)
    if report.busy:
        print(report.busy)
    cluster: Cluster = require_cluster()
    groups = ([name for name in chosen.only if name == "cold"], [name for name in chosen.only if name != "cold"])
    for names, idle_seconds in zip(groups, (COLD_IDLE_SECONDS, IDLE_SECONDS), strict=True):
        if not names:
            continue
        limits = {"capacityWaitSeconds": CAPACITY_WAIT_SECONDS}
        functions = {"idleSeconds": idle_seconds}
        with installed(cluster, auth={"mode": "anonymous"}, functions=functions, limits=limits) as release:
            for name in names:
                MEASUREMENTS[name](report, release, quick=chosen.quick)
                release.delete_functions()
                _wait_gone(release)
    print(f"\nwritten to {report.write()}")
    for row in report.missed:
        print(f"over budget: {row.benchmark}: {row.name}")
    exit_with(0)


if __name__ == "__main__":
    main()
