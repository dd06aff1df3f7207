"""Warm synchronous invocations of a no-op Python function at concurrency 1 and 32, beside RIE and the echo floor.

Rounds are interleaved (floor, RIE, Kappa, floor, ...), so that what else the machine does falls on all of them; every figure is the median
of its rounds and every ratio the median of the rounds' ratios.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench import servers
from bench.client import invocation
from bench.emulator import Unavailable, rie_binary
from bench.load import Plan, Seen, run
from bench.report import Report

from kappa_dev import KappaDev, kappa_dev

TITLE = "warm: synchronous invocations, no-op Python"
SOURCE = 'def handler(event, context):\n    return {"ok": True}\n'
EXPECT = '{"ok": true}'
FLOOR_US = 7.6
"""CPU of the echo floor per request at concurrency 32 on the machine that the CPU budgets were set on. A budget in microseconds means
nothing on another machine, or on this one an hour later; as a multiple of the floor in the same run it does."""
EVENT = '{"key1": "value1", "key2": "value2", "key3": "value3"}'


def address_of(kappa: KappaDev) -> servers.Address:
    """Host and port of a running gateway."""
    parts = urlsplit(kappa.endpoint)
    assert parts.hostname is not None
    assert parts.port is not None
    return servers.Address(parts.hostname, parts.port)


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:
    """Run the rounds and report."""
    rounds, seconds = (2, 1.5) if quick else (7, 4.0)
    task = scratch / "warm-task"
    task.mkdir()
    (task / "app.py").write_text(SOURCE)
    seen: dict[str, list[Seen]] = {"floor c1": [], "floor c32": [], "kappa c1": [], "kappa c32": [], "rie c1": []}
    costs: dict[str, list[dict[str, float]]] = {"kappa c1": [], "kappa c32": []}
    floors: list[float] = []
    with ExitStack() as stack:
        kappa = stack.enter_context(kappa_dev(scratch / "warm"))
        kappa.create_function("noop", {"app.py": SOURCE})
        echo = stack.enter_context(servers.floor())
        why_not = ""
        emulator: servers.Address | None = None
        try:
            emulator = stack.enter_context(servers.rie(rie_binary(rie), task))
        except Unavailable as error:
            why_not = f"RIE: {error}"

        def load(where: servers.Address, function: str, *, connections: int, time: float) -> Seen:
            return run(
                Plan(
                    host=where.host,
                    port=where.port,
                    paths=[invocation(function)],
                    body=EVENT,
                    connections=connections,
                    seconds=time,
                    expect=EXPECT,
                )
            )

        load(address_of(kappa), "noop", connections=32, time=2.0)  # every environment that the rounds need is there
        for _ in range(rounds):
            seen["floor c1"].append(load(echo.address, "noop", connections=1, time=seconds / 2))
            if emulator is not None:
                seen["rie c1"].append(load(emulator, servers.RIE_FUNCTION, connections=1, time=seconds))
            for connections in (1, 32):
                name = f"kappa c{connections}"
                before = servers.cpu(kappa)
                answered = load(address_of(kappa), "noop", connections=connections, time=seconds)
                costs[name].append(servers.cpu(kappa).since(before, invocations=answered.sent))
                seen[name].append(answered)
            spent = echo.cpu_seconds
            seen["floor c32"].append(load(echo.address, "noop", connections=32, time=seconds / 2))
            floors.append((echo.cpu_seconds - spent) / seen["floor c32"][-1].sent * 1e6)
    _report(report, seen, costs, why_not)
    for part, budget in (("gateway", 60.0), ("gateway and supervisors", 150.0)):
        ratios = [
            (each["gateway"] if part == "gateway" else each["gateway"] + each["supervisors"]) / floor
            for each, floor in zip(costs["kappa c32"], floors, strict=True)
        ]
        report.add(TITLE, f"kappa c32: CPU of {part} / of the echo floor", median(ratios), "×", at_most=budget / FLOOR_US)


def _report(report: Report, seen: dict[str, list[Seen]], costs: dict[str, list[dict[str, float]]], why_not: str) -> None:
    for name in ("floor c1", "rie c1", "kappa c1", "floor c32", "kappa c32"):
        rounds = seen[name]
        if not rounds:
            report.add(TITLE, name, None, "", why_not=why_not)
            continue
        report.add(TITLE, f"{name}: throughput", median(each.per_second for each in rounds), "/s")
        report.add(TITLE, f"{name}: p50", median(each.p50_ms for each in rounds), "ms")
        report.add(TITLE, f"{name}: p99", median(each.p99_ms for each in rounds), "ms")
        if not name.startswith("floor"):
            report.add(TITLE, f"{name}: failures", sum(sum(each.failures.values()) for each in rounds), "", at_most=0)
    for name, readings in costs.items():
        for part in ("gateway", "supervisors", "runtimes"):
            report.add(TITLE, f"{name}: CPU of {part}", median(each[part] for each in readings), "µs")
        both = median(each["gateway"] + each["supervisors"] for each in readings)
        report.add(TITLE, f"{name}: CPU of gateway and supervisors", both, "µs")
    paired = list(zip(seen["rie c1"], seen["kappa c1"], seen["kappa c32"], strict=False))
    faster = median(many.per_second / one.per_second for one, _, many in paired) if paired else None
    latency = median(kappa.p50_ms / one.p50_ms for one, kappa, _ in paired) if paired else None
    report.add(TITLE, "throughput, Kappa c32 / RIE c1", faster, "×", at_least=2.0, why_not=why_not)
    report.add(TITLE, "p50 at c1, Kappa / RIE", latency, "×", at_most=1.0, why_not=why_not)
