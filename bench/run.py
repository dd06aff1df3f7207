"""`make bench`: measures Kappa against the budgets of its design and prints ratios formed within one run.

`python -m bench.run --only warm cold --quick`. Each benchmark starts gateways of its own on free ports and in a scratch directory, and
leaves nothing but a JSON file in `bench/results/`. Nothing here is part of the tests: a busy machine makes numbers, not failures.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench import cold, defined, enqueue, payloads, postgres, queue_or_scale, soak, start, two_gateways, warm
from bench.report import Report


class Benchmark(Protocol):
    """One benchmark; every module here has one."""

    def __call__(self, report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None: ...


BENCHMARKS: dict[str, Benchmark] = {
    "start": start.measure,
    "warm": warm.measure,
    "cold": cold.measure,
    "payloads": payloads.measure,
    "defined": defined.measure,
    "enqueue": enqueue.measure,
    "postgres": postgres.measure,
    "soak": soak.measure,
    "queue-or-scale": queue_or_scale.measure,
    "two-gateways": two_gateways.measure,
}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="benchmarks to run, in this order"
    )
    parser.add_argument("--quick", action="store_true", help="a fraction of the time: to see that it works, not to quote")
    parser.add_argument("--rie", type=Path, help="an aws-lambda-rie binary, instead of the one that is fetched")
    parser.add_argument("--check", action="store_true", help="exit with status 1 when a budget is missed")
    return parser.parse_args(given)


def main() -> int:
    """Run what was asked for."""
    chosen = arguments()
    report = Report(quick=chosen.quick)
    if report.busy:
        print(report.busy)
    scratch = Path(tempfile.mkdtemp(prefix="kappa-bench-"))
    failed: list[str] = []
    try:
        for name in chosen.only:
            failed += _run(name, BENCHMARKS[name], report, scratch=scratch, chosen=chosen)
    except KeyboardInterrupt:
        failed.append("interrupted")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"\nwritten to {report.write()}")
    for row in report.missed:
        print(f"over budget: {row.benchmark}: {row.name}")
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed or (chosen.check and report.missed) else 0


def _run(name: str, measure: Callable[..., None], report: Report, *, scratch: Path, chosen: argparse.Namespace) -> list[str]:
    folder = scratch / name
    folder.mkdir()
    try:
        measure(report, scratch=folder, rie=chosen.rie, quick=chosen.quick)
    except AssertionError as error:  # a gateway that does not start, or leaves processes behind
        return [f"{name}: {error}"]
    return []


if __name__ == "__main__":
    sys.exit(main())
