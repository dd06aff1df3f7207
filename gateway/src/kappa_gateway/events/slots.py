"""How many events of which function run at once: numbers only, no I/O.

Two rules bound a function. It may take another slot only while it holds no more than what is free for all, so that one function alone
uses half of the slots, k of them a part of k+1 each, and the first event of a newcomer always finds room. And it has a window that
opens with every event that went through and closes when it is throttled, so that a function with little concurrency is not run against
its limit again and again. Of functions that run nothing now, the windows of the latest few hundred are remembered.
"""

from __future__ import annotations

from typing import Final

FIRST_WINDOW: Final = 4
"""Events of a function that begin at once before any has ended."""
REMEMBERED: Final = 500
"""Windows that are kept of functions that run nothing."""


class _Held:
    __slots__ = ("count", "window")

    def __init__(self) -> None:
        self.count = 0
        self.window = FIRST_WINDOW


class Slots:
    """The slots of one worker."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: dict[str, _Held] = {}
        self._idle: dict[str, None] = {}
        """Functions that hold nothing and are remembered, the longest idle first."""
        self._taken = 0

    @property
    def free(self) -> int:
        return self._capacity - self._taken

    @property
    def share(self) -> int:
        """How many a function may take that holds none."""
        return min(FIRST_WINDOW, max(1, self.free // 2)) if self.free > 0 else 0

    def room(self, function: str) -> int:
        """How many more a function may take."""
        held = self._held.get(function)
        return self.share if held is None else self._room(held)

    def rooms(self) -> dict[str, int]:
        """The same for each function that holds some, or is remembered."""
        return {function: self._room(held) for function, held in self._held.items()}

    def _room(self, held: _Held) -> int:
        return max(0, min(held.window - held.count, (self.free - held.count + 1) // 2))

    def take(self, function: str) -> None:
        """One event of the function begins."""
        held = self._held.setdefault(function, _Held())
        self._idle.pop(function, None)
        held.count += 1
        self._taken += 1

    def release(self, function: str) -> None:
        """One of them ended."""
        held = self._held[function]
        held.count -= 1
        self._taken -= 1
        if held.count:
            return
        self._idle[function] = None
        if len(self._idle) > REMEMBERED:
            longest_idle = next(iter(self._idle))
            del self._idle[longest_idle], self._held[longest_idle]

    def went_through(self, function: str, *, reserved: int | None) -> None:
        """The function took an event: more may run at once, up to its reserved concurrency."""
        held = self._held[function]
        held.window = min(held.window + 1, self._capacity if reserved is None else max(1, reserved))

    def throttled(self, function: str) -> None:
        """The function could not take an event."""
        held = self._held[function]
        held.window = max(1, min(held.window, held.count) // 2)
