"""How long things take, learnt from those that have ended: running means for *queue or scale* (:mod:`kappa_core.link.policy`).

A dispatcher learns how long an invocation holds an environment and reports it with its waiters; the scaler learns how long a start takes.
Nothing is known of a revision before its first, and nobody waits on the strength of what is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kappa_core.link.frames import Demand

_WEIGHT: Final = 8
"""One part in so many is the latest one's."""


def mean(known: float, latest: float) -> float:
    """The mean with one more; 0 is none yet. Seconds or anything else."""
    return known + (latest - known) / _WEIGHT if known else latest


class Pace:
    """What the scaler knows of one revision's times, in seconds."""

    __slots__ = ("start_seconds", "waited_since")

    def __init__(self) -> None:
        self.start_seconds = 0.0
        """From the order of an environment until it is ready; 0: none has been."""
        self.waited_since: float | None = None
        """Since when there has always been somebody waiting."""

    def started(self, seconds: float) -> None:
        """An environment is ready so long after it was ordered."""
        self.start_seconds = mean(self.start_seconds, max(0.0, seconds))

    def waits(self, waiting: bool, now: float) -> None:
        """Somebody waits, or nobody does any more."""
        if not waiting:
            self.waited_since = None
        elif self.waited_since is None:
            self.waited_since = now

    def standing_seconds(self, now: float) -> float:
        """How long the queue has not been empty."""
        return 0.0 if self.waited_since is None else now - self.waited_since


def run_seconds(demands: Iterable[Demand]) -> float:
    """How long an invocation takes: at the gateway where it takes longest. 0: none has ended."""
    return max((demand.run_us for demand in demands), default=0) / 1e6
