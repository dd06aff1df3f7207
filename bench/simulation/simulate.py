"""Run seeds of the link's simulation, any number of them, or one with its whole trace.

    python bench/simulation/simulate.py 10000:200000        # a range, on all cores
    python bench/simulation/simulate.py --trace 4711        # one seed's history as a log

It is the same simulation that ``tests/unit/link/test_simulation.py`` runs on ten thousand seeds; let it run over night here. The exit
status says whether a guarantee was broken.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from simulation.cluster import simulate
from simulation.report import first_failure
from simulation.world import World

BATCH = 250


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", help="a seed, or first:last")
    parser.add_argument("--trace", action="store_true", help="print the trace of a single seed")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition(":")
    if arguments.trace:
        return _trace(int(first))
    return _run(range(int(first), int(last) if last else int(first) + 1), arguments.jobs)


def _trace(seed: int) -> int:
    try:
        world = simulate(seed)
    except AssertionError as broken:
        message, world = broken.args
        assert isinstance(world, World)
        print(world.text(), message, sep="\n")
        return 1
    print(world.text())
    return 0


def _run(seeds: range, jobs: int) -> int:
    began = time.monotonic()
    batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
    with multiprocessing.Pool(jobs) as pool:
        for number, failure in enumerate(pool.imap_unordered(first_failure, batches), 1):
            if failure:
                print(failure)
                pool.terminate()
                return 1
            print(
                f"\r{min(number * BATCH, len(seeds))} of {len(seeds)} seeds, {time.monotonic() - began:.0f} s", end="", flush=True
            )
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
