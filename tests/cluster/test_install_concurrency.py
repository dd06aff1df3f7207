"""Reserved concurrency over three gateways: the handler counts itself, at a counter that stands outside of all environments.

An invocation enters there before it does anything and leaves before it answers, each acknowledged, so whoever is counted is running.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from invocation_counter import COUNTED, invocation_counter
from invocation_load import invoke
from kappa_cluster import Cluster, Release, eventually

THREADS = 12
TIMES = 120
"""How often two gateways are asked in turn."""


@pytest.fixture(scope="module")
def gateways(cluster: Cluster, release: Release) -> Iterator[list[str]]:
    """The addresses of three gateways."""

    def scale(number: int) -> None:
        cluster.kubectl("scale", "deployment/kappa-gateway", f"--replicas={number}", namespace=release.namespace)
        cluster.kubectl("rollout", "status", "deployment/kappa-gateway", "--timeout=120s", namespace=release.namespace)
        eventually(lambda: len(release.gateways()) == number, what=f"there are {number} gateways")

    before = len(release.gateways())
    scale(3)
    try:
        yield [f"http://{pod['status']['podIP']}:9000" for pod in release.gateways()]
    finally:
        scale(before)


def test_a_handler_that_counts_itself_never_sees_one_too_many_while_environments_come_and_go(
    cluster: Cluster, release: Release, name: str, gateways: list[str]
) -> None:
    limit = 3
    refused: Counter[str] = Counter()
    seen: list[int] = []
    over = False

    def hammer(client: Any) -> None:
        while not over:
            try:
                seen.append(invoke(client, name, {"seconds": 0.2}))
            except client.exceptions.TooManyRequestsException as error:
                refused[error.response["Reason"]] += 1
                time.sleep(0.05)

    with invocation_counter(cluster, release, function=name) as address, ThreadPoolExecutor(THREADS) as threads:
        variables = {"COUNTER": address}
        release.apply_function(name, COUNTED, reservedConcurrentExecutions=limit, environment={"variables": variables})
        hammering = [
            threads.submit(hammer, release.client(endpoint=gateways[number % len(gateways)])) for number in range(THREADS)
        ]
        try:
            eventually(lambda: limit in seen, what="as many as there may be are inside")
            # One is told to end, and gives its place away; then a change ends all of them.
            cluster.kubectl(
                "delete", "pod", release.pods(name)[0]["metadata"]["name"], "--wait=false", namespace=release.functions
            )
            _wait_for(seen, 30)
            changed = {"variables": {**variables, "CHANGED": "yes"}}
            release.apply_function(name, COUNTED, reservedConcurrentExecutions=limit, environment=changed)
            _wait_for(seen, 40)
        finally:
            over = True
        for each in hammering:
            each.result()
    assert max(seen) <= limit, Counter(seen)
    assert set(refused) == {"ReservedFunctionConcurrentInvocationLimitExceeded"}


def test_serial_calls_that_alternate_between_gateways_never_meet_a_throttle(
    release: Release, name: str, gateways: list[str]
) -> None:
    release.apply_function(name, "def handler(event, context):\n    return event\n", reservedConcurrentExecutions=1)
    clients = [release.client(endpoint=each) for each in gateways]
    for number in range(TIMES):
        assert invoke(clients[number % len(clients)], name, number) == number


def _wait_for(seen: list[int], more: int, *, seconds: float = 60) -> None:
    wanted = len(seen) + more
    eventually(lambda: len(seen) >= wanted, what=f"{more} more invocations are answered", seconds=seconds)
