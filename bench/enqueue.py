"""Asynchronous invocations: how many a second are accepted (each durable before its 202), how fast they run, and how long the first event
of another function waits behind a long queue.

The function that the queue is filled for sleeps, so that it holds the slots it gets and the rest waits; what is accepted is measured
without the work of running it. The drain is measured with a function that does nothing.
"""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

from bench import servers
from bench.client import BlockingConnection, invocation, request_bytes
from bench.load import Plan, run
from bench.report import Report
from bench.warm import address_of

from kappa_dev import KappaDev, kappa_dev

EVENT = '{"key1": "value1", "key2": "value2", "key3": "value3"}'
ASYNCHRONOUS = {"X-Amz-Invocation-Type": "Event"}
SLEEPER = "import time\ndef handler(event, context):\n    time.sleep(600)\n"
NOOP = "def handler(event, context):\n    return None\n"
STAMP = (
    "import os, time\ndef handler(event, context):\n"
    "    with open(os.environ['STAMPS'], 'a') as stamps:\n        stamps.write(f'{time.time()}\\n')\n"
)


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:  # one signature for all
    """Run it and report."""
    _accept(report, scratch, quick=quick)
    _drain(report, scratch, quick=quick)


def _accept(report: Report, scratch: Path, *, quick: bool) -> None:
    title = "asynchronous: events accepted, durable, concurrency 32"
    stamps = scratch / "stamps"
    stamps.touch()
    # Few sleepers: the machine is for what is measured.
    with kappa_dev(scratch / "accept", settings={"KAPPA_ASYNC_CONCURRENCY": "8", "KAPPA_SANDBOX": "plain"}) as kappa:
        kappa.create_function("sleeper", {"app.py": SLEEPER}, Timeout=900)
        kappa.create_function("stamp", {"app.py": STAMP}, Environment={"Variables": {"STAMPS": str(stamps)}})
        kappa.client().invoke(FunctionName="stamp")
        where = address_of(kappa)
        before_memory = servers.gateway_memory(kappa).resident
        rates: list[float] = []
        costs: list[float] = []
        for _ in range(2 if quick else 5):
            before = servers.cpu(kappa)
            seen = run(
                Plan(
                    host=where.host,
                    port=where.port,
                    paths=[invocation("sleeper")],
                    body=EVENT,
                    connections=32,
                    seconds=2.0 if quick else 6.0,
                    headers=ASYNCHRONOUS,
                    status=202,
                )
            )
            costs.append(servers.cpu(kappa).since(before, invocations=seen.sent)["gateway"])
            rates.append(seen.per_second)
            report.add(title, "p99", seen.p99_ms, "ms")
            report.add(title, "failures", sum(seen.failures.values()), "", at_most=0)
        report.add(title, "throughput", median(rates), "/s", at_least=5_000.0)
        report.add(title, "CPU of gateway", median(costs), "µs")
        depth = _waiting(kappa)
        report.add(title, "events that wait then", depth, "")
        report.add(title, "memory that they cost", (servers.gateway_memory(kappa).resident - before_memory) / depth, "B each")
        waits: list[float] = []
        connection = BlockingConnection((where.host, where.port))
        request = request_bytes(invocation("stamp"), b"{}", address=(where.host, where.port), headers=ASYNCHRONOUS)
        for turn in range(5 if quick else 30):
            sent = time.time()
            connection.exchange(request)
            while len(lines := stamps.read_text().splitlines()) < turn + 2:
                time.sleep(0.002)
            waits.append((float(lines[-1]) - sent) * 1000)
        connection.close()
        report.add(title, "from the request to the run of another function's event: p50", median(waits), "ms", at_most=50.0)
        report.add(title, "the same, worst", max(waits), "ms")


def _drain(report: Report, scratch: Path, *, quick: bool) -> None:
    title = "asynchronous: no-op Python from the queue"
    with kappa_dev(scratch / "drain", settings={"KAPPA_ASYNC_CONCURRENCY": "32"}) as kappa:
        kappa.create_function("noop", {"app.py": NOOP})
        where = address_of(kappa)
        count = 2_000 if quick else 20_000
        begun = time.monotonic()
        seen = run(
            Plan(
                host=where.host,
                port=where.port,
                paths=[invocation("noop")],
                body=EVENT,
                connections=16,
                requests=count // 16,
                headers=ASYNCHRONOUS,
                status=202,
            )
        )
        while _waiting(kappa):
            time.sleep(0.05)
        took = time.monotonic() - begun
        report.add(title, "accepted, run and acknowledged", seen.sent / took, "/s")
        report.add(title, "failures", sum(seen.failures.values()), "", at_most=0)


def _waiting(kappa: KappaDev) -> int:
    with urllib.request.urlopen(f"{kappa.endpoint}/_kappa/events") as answer:
        functions: list[dict[str, Any]] = json.load(answer)["Functions"]
    return sum(one["Waiting"] for one in functions)
