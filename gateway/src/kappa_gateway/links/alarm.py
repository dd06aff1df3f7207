"""Wakes the owner of a state machine when the machine next has something to decide, which it says anew after every event.

Stands between the event loop and what drives a dispatcher or a scaler. It refuses to know what is decided.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """``ring`` is told the time, on the loop's clock, and no earlier one than it was set for: a loop whose clock counts milliseconds
    may call a little early, and a machine that has nothing to do yet would have it call again and again until the time has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[float], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, at: float | None) -> None:
        """Ring at this time and at no other; None: not at all."""
        if self._timer is not None:
            if at == self._at:
                return
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._at = at
            self._timer = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer = None
        self._ring(max(self._loop.time(), self._at))
