"""Cold invocations: nothing of the function runs before the request, its code is there and unpacked.

Each measured invocation is the first one of a function made for it, so neither an environment nor a supervisor of that version exists.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import warm
from bench.client import BlockingConnection, invocation
from bench.load import Plan, percentile, run
from bench.report import Report

from kappa_dev import ROLE, RUNTIME, KappaDev, kappa_dev, zip_of

PAUSE_SECONDS = 0.5
"""Between cold invocations that are measured apart: what one leaves to be done must not fall on the next."""

NODE_ALONE_MS = 65.0
"""`node -e 0` where the budget of 90 ms was set, at its fastest. The interpreter's own start is not Kappa's, and differs by a factor of
two between machines and hours; what is added to it is judged."""

NODE_SOURCE = "exports.handler = async () => ({ ok: true });\n"


def node_runtime() -> str | None:
    """`nodejs20.x` where node 20 is on PATH, and so on; None without Node.js."""
    node = shutil.which("node")
    if node is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    return f"nodejs{version.removeprefix('v').split('.')[0]}.x" if version.startswith("v") else None


def wait_until_settled(client: Any, name: str) -> None:
    """Until a function is Active and its last update done; botocore's waiters look once a second, too coarse to measure with."""
    while True:
        found = client.get_function_configuration(FunctionName=name)
        if found["State"] != "Pending" and found.get("LastUpdateStatus") != "InProgress":
            assert found["State"] == "Active", found.get("StateReason")
            return
        time.sleep(0.01)


def create_many(kappa: KappaDev, names: list[str], code: bytes, **parameters: Any) -> None:
    """Create functions eight at a time and wait until each is Active."""
    client = kappa.client()

    def create(name: str) -> None:
        client.create_function(FunctionName=name, Role=ROLE, Code={"ZipFile": code}, **parameters)
        wait_until_settled(client, name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, names))


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:  # one signature for all
    """One after the other for each language, then a hundred at once."""
    count = 10 if quick else 50
    python = {"Runtime": RUNTIME, "Handler": "app.handler", "Timeout": 60}
    title = "cold: the first invocation of a function"
    with kappa_dev(scratch / "data") as kappa:
        code = zip_of({"app.py": warm.SOURCE})
        _one_by_one(report, kappa, f"Python ({RUNTIME})", "py", code, count=count, at_most=30.0, **python)
        runtime = node_runtime()
        if runtime is None:
            report.add(title, "Node.js: p50", None, "", at_most=90.0, why_not="no node on PATH")
        else:
            code = zip_of({"index.js": NODE_SOURCE})
            node = {"Runtime": runtime, "Handler": "index.handler", "Timeout": 60}
            before = _node_alone(count)
            p50 = _one_by_one(report, kappa, f"Node.js ({runtime})", "js", code, count=count, at_most=None, **node)
            alone = percentile(sorted(before + _node_alone(count)), 0.5)
            report.add(title, "Node.js: `node -e 0` alone, before and after: p50", alone, "ms")
            report.add(title, "Node.js: what a cold start adds to that", p50 - alone, "ms", at_most=90.0 - NODE_ALONE_MS)
    with kappa_dev(scratch / "burst") as kappa:
        names = [f"burst-{index}" for index in range(100)]
        create_many(kappa, names, zip_of({"app.py": warm.SOURCE}), **python)
        where = warm.address_of(kappa)
        seen = run(
            Plan(
                host=where.host,
                port=where.port,
                paths=[invocation(name) for name in names],
                body=warm.EVENT,
                connections=len(names),
                requests=1,
                expect=warm.EXPECT,
            )
        )
    title = "cold: 100 Python functions at once"
    report.add(title, "p50", seen.p50_ms, "ms")
    report.add(title, "p95", seen.p95_ms, "ms")
    report.add(title, "all answered after", seen.seconds * 1000, "ms")
    report.add(title, "failures", sum(seen.failures.values()), "", at_most=0)


def _node_alone(count: int) -> list[float]:
    """How long an interpreter with nothing to do takes, in milliseconds."""
    took = []
    for _ in range(max(5, count // 3)):
        begun = time.perf_counter()
        subprocess.run(["node", "-e", "0"], check=True)
        took.append((time.perf_counter() - begun) * 1000)
    return took


def _one_by_one(
    report: Report,
    kappa: KappaDev,
    label: str,
    prefix: str,
    code: bytes,
    *,
    count: int,
    at_most: float | None,
    **parameters: Any,
) -> float:
    """The p50 of the spaced ones, in milliseconds."""
    title = "cold: the first invocation of a function"
    names = [f"{prefix}-{index}" for index in range(2 * count + 1)]
    create_many(kappa, names, code, **parameters)
    connection = BlockingConnection(warm.address_of(kappa))
    latencies, failures = [], 0
    for index, name in enumerate(names):
        milliseconds, right = _timed(connection, name)
        latencies.append(milliseconds)
        failures += right not in (warm.EXPECT.encode(), b'{"ok":true}')
        if index < count:
            time.sleep(PAUSE_SECONDS)
    connection.close()
    # The very first one also starts what all functions of a language share (the interpreter's zygote); it is a line of its own.
    apart, together = sorted(latencies[1 : count + 1]), sorted(latencies[count + 1 :])
    report.add(title, f"{label}: the first function of the language", latencies[0], "ms")
    report.add(title, f"{label}: one every {PAUSE_SECONDS} s: p50", percentile(apart, 0.5), "ms", at_most=at_most)
    report.add(title, f"{label}: one every {PAUSE_SECONDS} s: p95", percentile(apart, 0.95), "ms")
    report.add(title, f"{label}: back to back: p50", percentile(together, 0.5), "ms")
    report.add(title, f"{label}: failures", failures, "", at_most=0)
    return percentile(apart, 0.5)


def _timed(connection: BlockingConnection, name: str) -> tuple[float, bytes]:
    begun = time.perf_counter()
    answer = connection.invoke(name, warm.EVENT.encode())
    return (time.perf_counter() - begun) * 1000, answer.body
