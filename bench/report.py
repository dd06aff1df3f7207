"""Collects measurements, compares them with the budgets of the design, prints them and writes them to `bench/results/`.

A number without a budget is printed as it is. What could not be measured is a line as well, with its reason: a missing number never
looks like a kept budget.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number."""

    benchmark: str
    name: str
    value: float | None
    """None when it could not be measured."""
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    why_not: str = ""
    """Why there is no value."""

    @property
    def verdict(self) -> str:
        """`ok`, `over budget`, or empty for a number without a budget."""
        if self.at_most is None and self.at_least is None:
            return ""
        if self.value is None:
            return "budget not checked"
        kept = (self.at_most is None or self.value <= self.at_most) and (self.at_least is None or self.value >= self.at_least)
        return "ok" if kept else "over budget"


class Report:
    """Rows as they come in, printed at once."""

    def __init__(self, *, quick: bool) -> None:
        self.rows: list[Row] = []
        self._quick = quick
        self._machine = _machine()
        self._last = ""

    def add(
        self,
        benchmark: str,
        name: str,
        value: float | None,
        unit: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        why_not: str = "",
    ) -> None:
        """Print and keep one row."""
        row = Row(benchmark=benchmark, name=name, value=value, unit=unit, at_most=at_most, at_least=at_least, why_not=why_not)
        self.rows.append(row)
        if benchmark != self._last:
            print(f"\n{benchmark}", flush=True)
            self._last = benchmark
        limit = f"  budget <= {at_most:g}" if at_most is not None else f"  budget >= {at_least:g}" if at_least is not None else ""
        shown = f"not measured: {why_not}" if value is None else f"{_plain(value)} {unit}".rstrip()
        print(f"  {name:<58} {shown:>16}{limit}  {row.verdict}".rstrip(), flush=True)

    @property
    def busy(self) -> str:
        """A warning when other work is on the machine; asked before the first measurement. Else empty."""
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        return (
            f"busy machine (load {load:.1f} on {cores} cores): only ratios within this run mean something"
            if load > cores / 2
            else ""
        )

    @property
    def missed(self) -> list[Row]:
        """Rows over their budget."""
        return [row for row in self.rows if row.verdict == "over budget"]

    def write(self) -> Path:
        """Write everything with the machine it was measured on; returns the file."""
        _RESULTS.mkdir(exist_ok=True)
        now = time.gmtime()
        path = _RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', now)}.json"
        described = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
            "quick": self._quick,
            "machine": self._machine,
            "commit": _commit(),
            "rows": [asdict(row) | {"verdict": row.verdict} for row in self.rows],
        }
        path.write_text(json.dumps(described, indent=2) + "\n")
        return path


def _plain(value: float) -> str:
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _machine() -> dict[str, object]:
    model = next(
        (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "load": os.getloadavg()[0],
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _commit() -> str:
    ran = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return ran.stdout.strip()
