"""Starting and stopping `kappa dev` with an empty data directory: seconds until it answers, memory at rest, seconds to end."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from bench import servers
from bench.report import Report

from kappa_dev import kappa_dev

_MB = 1024 * 1024


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:  # one signature for all
    """Start it several times; the first start of a machine pays for reading files, so the median counts."""
    ready: list[float] = []
    ended: list[float] = []
    resident: list[float] = []
    proportional: list[float] = []
    for attempt in range(2 if quick else 7):
        begun = time.monotonic()
        with kappa_dev(scratch / f"empty{attempt}") as kappa:
            ready.append(time.monotonic() - begun)
            time.sleep(1.0)  # what is loaded in the background belongs to the memory at rest
            tree = servers.memory(kappa)
            resident.append(tree.resident / _MB)
            proportional.append(tree.proportional / _MB)
            ended.append(kappa.stop())
    title = "start: kappa dev with nothing in it"
    report.add(title, "from the command to the first answer", median(ready), "s", at_most=1.5)
    report.add(title, "memory of all its processes (shared pages once)", median(proportional), "MB", at_most=90.0)
    report.add(title, "sum of their resident sets", median(resident), "MB")
    report.add(title, "from Ctrl-C to the end of the last process", median(ended), "s", at_most=2.0)
