"""Virtual time for the simulation of the link: a queue of events, one seeded source of chance, a trace that is formatted only on failure.

Everything that happens in a simulation happens in an event of this world, in the order of its virtual time, so one seed is one
history. The trace keeps tuples; a failing seed prints them as a log.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any


class Violation(AssertionError):
    """A guarantee of the link was broken."""


class World:
    __slots__ = ("_events", "_number", "now", "random", "seed", "steps", "trace")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.trace: list[tuple[Any, ...]] = []
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def after(self, delay: float, action: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + delay, action, *arguments)

    def at(self, time: float, action: Callable[..., None], *arguments: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (max(time, self.now), self._number, action, arguments))

    def run(self, until: float, *, most_steps: int = 200_000) -> None:
        """Run every event up to a virtual time. Raises Violation where machines keep each other busy without end."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(events)
            action(*arguments)
            self.steps += 1
            if self.steps > most_steps:
                raise Violation(f"{most_steps} events and no end")
        self.now = until

    def log(self, *what: Any) -> None:
        self.trace.append((self.now, *what))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def text(self) -> str:
        """The trace as a readable log."""
        lines = []
        for time, who, *what in self.trace:
            lines.append(f"{time:9.4f}  {who!s:14}  " + " ".join(_word(item) for item in what))
        return "\n".join(lines)


def _word(item: Any) -> str:
    return f"{item:.4f}" if isinstance(item, float) else str(item)
