"""Functions that nobody invokes: what the operator needs for them, and that a look at all of them writes nothing.

Their code is not there, so they get no Deployment; what is left is watching, reconciling and telling. The operator is told to look at
everything every LOOK_SECONDS instead of every ten minutes, and counts itself what it reconciled and wrote.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from bench.pod_metrics import METRICS_SECONDS, cpu_seconds, memory_megabytes, own_metric
from bench.report import Report

from kappa_cluster import Release, eventually
from kappa_crds.api import KubernetesApi, Object, api_path

T = TypeVar("T")

LOOK_SECONDS = 30
REST_SECONDS = 2 * LOOK_SECONDS
AT_ONCE = 16
"""Requests that make functions."""
PORT = 8080


def measure_many(report: Report, release: Release, *, quick: bool) -> None:
    """One number of functions after the other; the later ones come to those before."""
    release.upgrade(operator={"env": {"KAPPA_RESYNC_SECONDS": str(LOOK_SECONDS)}})
    path = api_path("lambda.kappa.dev/v1alpha1", "functions", namespace=release.functions)
    made = 0
    for count in (100,) if quick else (1000, 5000):
        title = f"operator: {count} functions"
        manifests = [
            release.manifest(f"many-{number}", "", code={"configMap": {"name": "none"}}) for number in range(made, count)
        ]
        begun, before = time.perf_counter(), cpu_seconds(release, "operator")
        asyncio.run(_create(path, manifests))
        report.add(title, f"making {len(manifests)} of them, at the API server", time.perf_counter() - begun, "s")
        eventually(lambda: _told(release) >= count, what="every function has a condition", seconds=1800, pause=5)  # noqa: B023
        report.add(title, "from the first one until each has its condition", time.perf_counter() - begun, "s")
        _settle(release)
        report.add(
            title, "CPU of the operators until they have nothing left to write", cpu_seconds(release, "operator") - before, "s"
        )
        made = count
        _rest(report, release, title)
    asyncio.run(_delete(path, [f"many-{number}" for number in range(made)]))
    eventually(lambda: not _told(release), what="the functions are gone", seconds=600, pause=2)


def _settle(release: Release) -> None:
    """Until nothing was written for as long as the kubelets' metrics are old."""
    wrote = -1.0
    while wrote != (wrote := _counted(release, "writes")):
        time.sleep(METRICS_SECONDS)


def _rest(report: Report, release: Release, title: str) -> None:
    """Two looks at everything, with nothing to do."""
    cpu, looked, wrote = (cpu_seconds(release, "operator"), _counted(release, "reconcile"), _counted(release, "writes"))
    time.sleep(REST_SECONDS)
    looked, wrote = _counted(release, "reconcile") - looked, _counted(release, "writes") - wrote
    time.sleep(METRICS_SECONDS)
    report.add(title, f"reconciles in {REST_SECONDS} s of rest, a look at everything every {LOOK_SECONDS} s", looked, "")
    report.add(title, "writes in it", wrote, "", at_most=0)
    report.add(title, "CPU of the operators in it", cpu_seconds(release, "operator") - cpu, "s")
    report.add(title, "memory of the larger operator", memory_megabytes(release, "operator"), "MB")


def _counted(release: Release, what: str) -> float:
    return own_metric(release, "operator", f"kappa_operator_{what}_total", port=PORT)


def _told(release: Release) -> int:
    listed = release.cluster.list("functions.lambda.kappa.dev", namespace=release.functions)
    return sum(1 for each in listed if each.get("status", {}).get("conditions"))


async def _create(path: str, manifests: list[Object]) -> None:
    await _each(manifests, lambda api, manifest: api.create(path, manifest, field_manager="bench"))


async def _delete(path: str, names: list[str]) -> None:
    """One by one: the API server gives a request for all of them a minute."""
    await _each(names, lambda api, name: api.delete(f"{path}/{name}"))


async def _each(items: list[T], request: Callable[[KubernetesApi, T], Awaitable[Object]]) -> None:
    api = await KubernetesApi.connect()
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> None:
        async with turn:
            await request(api, item)

    try:
        await asyncio.gather(*map(one, items))
    finally:
        await api.close()
