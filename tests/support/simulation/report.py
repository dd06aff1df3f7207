"""Running many seeds: which ones, in what shares, and how a failing one is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from simulation.cluster import Machines, simulate
from simulation.plan import Plan
from simulation.world import World

SEEDS = "KAPPA_SIMULATION_SEEDS"
"""Environment variable: ``17`` is one seed, ``20000:30000`` a range; the default is 0:2000, ten thousand are `make simulation`."""


def seeds() -> range:
    first, _, last = os.environ.get(SEEDS, "0:2000").partition(":")
    return range(int(first), int(last) if last else int(first) + 1)


def shares(number: int) -> list[range]:
    """The chosen seeds in shares of about equal work."""
    chosen = seeds()
    return [chosen[start::number] for start in range(number) if len(chosen[start::number])]


def first_failure(
    chosen: Iterable[int], *, machines: Machines | None = None, change: Callable[[Plan], None] | None = None, of: str = ""
) -> str:
    """Simulate until one fails and tell it, the last lines of its trace included; empty if none does. ``of``: what its message has to
    say; one that fails for another reason does not count."""
    for seed in chosen:
        try:
            simulate(seed, machines=machines, change=change)
        except AssertionError as broken:
            message, world = broken.args
            assert isinstance(world, World)
            if of not in message:
                continue
            lines = world.text().splitlines()
            return (
                "\n".join([*lines[:1], "…", *lines[-200:]])
                + f"\n\n{message}\nthe whole trace: python bench/simulation/simulate.py --trace {seed}"
            )
    return ""
