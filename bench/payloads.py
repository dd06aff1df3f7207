"""Warm invocations of a function that returns its event: 1 KB, 100 KB and 6 MB each way, beside RIE."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench import servers, warm
from bench.client import invocation
from bench.emulator import Unavailable, rie_binary
from bench.load import Plan, Seen, run
from bench.report import Report

from kappa_dev import kappa_dev

SOURCE = "def handler(event, context):\n    return event\n"
SIZES = {"1 KB": 1024, "100 KB": 100 * 1024, "6 MB": 6 * 1024 * 1024}


def event_of(size: int) -> str:
    """A JSON string of exactly `size` bytes, quotes included."""
    return json.dumps("x" * (size - 2))


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:
    """One request at a time, rounds interleaved."""
    rounds, seconds = (1, 1.0) if quick else (5, 2.0)
    task = scratch / "task"
    task.mkdir()
    (task / "app.py").write_text(SOURCE)
    title = "payloads: echo, concurrency 1"
    with ExitStack() as stack:
        kappa = stack.enter_context(kappa_dev(scratch / "data"))
        kappa.create_function("echo", {"app.py": SOURCE}, MemorySize=512)
        targets = {"kappa": (warm.address_of(kappa), "echo")}
        why_not = ""
        try:
            emulator = stack.enter_context(servers.rie(rie_binary(rie), task))
            targets["rie"] = (emulator, servers.RIE_FUNCTION)
        except Unavailable as error:
            why_not = f"RIE: {error}"
        for label, size in SIZES.items():
            event = event_of(size)
            seen: dict[str, list[Seen]] = {name: [] for name in targets}
            for _ in range(rounds):
                for name, (where, function) in targets.items():
                    path = invocation(function)
                    plan = Plan(host=where.host, port=where.port, paths=[path], body=event, seconds=seconds, expect=event)
                    seen[name].append(run(plan))
            for name, answered in seen.items():
                report.add(title, f"{label}: {name}: p50", median(each.p50_ms for each in answered), "ms")
                report.add(title, f"{label}: {name}: p99", median(each.p99_ms for each in answered), "ms")
                report.add(
                    title, f"{label}: {name}: failures", sum(sum(each.failures.values()) for each in answered), "", at_most=0
                )
            pairs = zip(seen["kappa"], seen.get("rie", []), strict=False)
            ratios = [ours.p50_ms / theirs.p50_ms for ours, theirs in pairs if theirs.p50_ms]
            report.add(title, f"{label}: p50, Kappa / RIE", median(ratios) if ratios else None, "×", why_not=why_not)
