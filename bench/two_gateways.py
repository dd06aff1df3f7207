"""What gateways that share environments say to each other and to supervisors about those who wait, and what that does to waiting.

    make bench ARGS="--only two-gateways"

The real dispatchers, parkings and scaler in virtual time (tests/support/shared_environments.py), so the numbers are the same on every
machine: callers who call again as soon as they are answered, at gateways that have fewer environments between them than callers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from bench.report import Report

from shared_environments import SharedEnvironments


class Load(NamedTuple):
    gateways: int
    environments: int
    callers: int
    run_seconds: float


LOADS: Final = (
    Load(1, 4, 8, 0.002),
    Load(2, 2, 8, 0.002),
    Load(2, 4, 8, 0.002),
    Load(2, 6, 8, 0.002),
    Load(2, 4, 32, 0.001),
    Load(2, 4, 8, 0.05),
    Load(2, 40, 80, 0.01),
    Load(3, 8, 24, 0.005),
)


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:  # one signature for all
    """Every load."""
    seconds = 2.0 if quick else 10.0
    for load in LOADS:
        world = SharedEnvironments(**load._asdict())
        world.run(seconds)
        title = f"{load.gateways} gateways, {load.environments} environments, {load.callers} callers, {1000 * load.run_seconds:g} ms each"
        report.add(title, "invocations", len(world.seconds) / seconds, "/s")
        for percent in (50, 99):
            report.add(title, f"p{percent}", 1000 * world.percentile(percent), "ms")
        report.add(title, "words for an invocation besides its own three", world.words_each(), "")
        report.add(title, "moves of an environment, for an invocation", world.moves / len(world.seconds), "")
