"""What the pods of a release use and do, as any administrator can read it: the kubelets' resource metrics, and the pods' own counters.

Everything goes through the API server, so it works wherever the cluster is.
"""

from __future__ import annotations

import re
from contextlib import suppress

from kappa_cluster import CommandError, Release

METRICS_SECONDS = 16
"""How old a kubelet's resource metrics may be."""


def cpu_seconds(release: Release, component: str, *, pod: str = "") -> float:
    """CPU time so far, as old as METRICS_SECONDS, of a pod or of all of a component."""
    return sum(_resource_metric(release, "container_cpu_usage_seconds_total", component, pod=pod))


def memory_megabytes(release: Release, component: str, *, pod: str = "") -> float:
    """Working set of a pod, or of the largest one of a component."""
    return max(_resource_metric(release, "container_memory_working_set_bytes", component, pod=pod), default=0.0) / 1e6


def _resource_metric(release: Release, metric: str, component: str, *, pod: str) -> list[float]:
    """Of each container."""
    wanted = {pod} if pod else set(_pods(release, component))
    values = []
    for node in release.cluster.list("nodes"):
        page = release.cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node['metadata']['name']}/proxy/metrics/resource")
        for known, value in _samples(page, metric):
            if known.get("namespace") == release.namespace and known.get("pod") in wanted:
                values.append(value)
    return values


def own_metric(release: Release, component: str, metric: str, *, port: int, pod: str = "") -> float:
    """The sum of what the pods of a component themselves say, over all labels."""
    total = 0.0
    for name in [pod] if pod else _pods(release, component):
        # A pod that has just come does not answer yet.
        with suppress(CommandError):
            path = f"/api/v1/namespaces/{release.namespace}/pods/{name}:{port}/proxy/metrics"
            total += sum(value for _, value in _samples(release.cluster.kubectl("get", "--raw", path), metric))
    return total


def _pods(release: Release, component: str) -> list[str]:
    found = release.cluster.list("pods", namespace=release.namespace, selector=f"app.kubernetes.io/component={component}")
    return [pod["metadata"]["name"] for pod in found]


def _samples(page: str, metric: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each sample of a metric in Prometheus' text format."""
    found = re.findall(rf"^{metric}(?:{{([^}}]*)}})? ([0-9.e+-]+)", page, re.MULTILINE)
    return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in found]
