"""How long things take, learnt from those that have ended: running means for *queue or scale* (:mod:`kappa_core.link.policy`).

A dispatcher learns how long an invocation holds an environment and reports it with its waiters; the scaler learns how long a start takes.
Nothing is known of a revision before its first, and nobody waits on the strength of what is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kappa_core.link.frames import Demand

REMEMBERED: Final = 256
"""A mean goes over about so many: long enough to know of what happens once in a hundred times."""


class RunTimes:
    """How long the invocations of one revision hold an environment, in seconds. Told of every one of them: it is kept short."""

    __slots__ = ("count", "mean", "square")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.square = 0.0
        """Mean of the squares."""

    def add(self, seconds: float) -> None:
        """One more has ended."""
        if self.count < REMEMBERED:
            self.count += 1
        self.mean += (seconds - self.mean) / self.count
        self.square += (seconds * seconds - self.square) / self.count

    @property
    def rest(self) -> float:
        """How long one that runs now goes on: a long one is more likely to be met than a short one (mean residual life)."""
        return self.square / (2 * self.mean) if self.mean > 0.0 else 0.0


class Pace:
    """What the scaler knows of one revision's times, in seconds."""

    __slots__ = ("rest_seconds", "run_seconds", "start_seconds", "starts", "waited_since")

    def __init__(self) -> None:
        self.run_seconds = 0.0
        """How long an invocation holds an environment, at the gateway where it takes longest; 0: none has ended."""
        self.rest_seconds = 0.0
        """How long one that runs goes on, likewise."""
        self.starts = 0
        self.start_seconds = 0.0
        """From the order of an environment until it is ready; 0: none has been."""
        self.waited_since: float | None = None
        """Since when there has always been somebody waiting, and no further environment has become ready."""

    def started(self, seconds: float, now: float) -> None:
        """An environment is ready so long after it was ordered."""
        if self.starts < REMEMBERED:
            self.starts += 1
        self.start_seconds += (max(0.0, seconds) - self.start_seconds) / self.starts
        if self.waited_since is not None:
            self.waited_since = now

    def waits(self, demands: Iterable[Demand], now: float) -> None:
        """These wait now, or nobody does any more."""
        reported = [(demand.run_us, demand.rest_us) for demand in demands]
        if not reported:
            self.waited_since = None
            return
        run_us, rest_us = max(reported)
        if run_us:  # a gateway that has just come knows of none that has ended
            self.run_seconds, self.rest_seconds = run_us / 1e6, rest_us / 1e6
        if self.waited_since is None:
            self.waited_since = now

    def standing_seconds(self, now: float) -> float:
        """How long those who have become ready by now have not emptied the queue."""
        return 0.0 if self.waited_since is None else now - self.waited_since
