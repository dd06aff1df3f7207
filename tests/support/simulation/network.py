"""Connections of the simulated network: in order per direction, late, stalled, cut.

A connection delivers frames in order, each after a delay of its own; a stall holds everything back for a while. A cut loses what is
under way in both directions, and each end learns of it at a time of its own, as after a silent loss and missed heartbeats. A frame
is a tuple ``(FrameType, stream, epoch, body)``: the codec has tests of its own.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from kappa_core.link.frames import DEAD_SECONDS, FrameType
from simulation.world import World

Frame = tuple[FrameType, int, int, Any]


class End(Protocol):
    """Who holds one end of a connection."""

    def on_frame(self, connection: Connection, frame: Frame) -> None: ...

    def on_closed(self, connection: Connection) -> None: ...


class Connection:
    __slots__ = ("alive", "closed_for", "delay", "ends", "free_at", "link", "name", "stalled_until", "under_way", "world")

    def __init__(self, world: World, name: str, dialler: End, listener: End, *, delay: float, link: int = 0) -> None:
        self.world = world
        self.name = name
        self.ends: tuple[End, End] = (dialler, listener)
        self.delay = delay
        self.link = link
        self.alive = True
        self.stalled_until = 0.0
        self.free_at = [0.0, 0.0]
        self.under_way: tuple[deque[Frame], deque[Frame]] = (deque(), deque())
        self.closed_for: set[int] = set()
        """Ends that know that it is over."""

    def send(self, sender: int, frame: Frame) -> None:
        """From the dialler (0) or the listener (1)."""
        if not self.alive:
            return
        world = self.world
        delay = self.delay * (0.5 + world.random.random())
        at = max(world.now + delay, self.free_at[sender], self.stalled_until)
        self.free_at[sender] = at
        self.under_way[sender].append(frame)
        world.at(at, self._deliver, sender)

    def _deliver(self, sender: int) -> None:
        if not self.alive or (1 - sender) in self.closed_for:
            return
        if self.world.now < self.stalled_until:
            self.world.at(self.stalled_until, self._deliver, sender)
            return
        self.ends[1 - sender].on_frame(self, self.under_way[sender].popleft())

    def stall(self, seconds: float) -> None:
        self.stalled_until = self.world.now + seconds

    def cut(self, *, quickly: bool = False) -> None:
        """Lose everything under way. The ends notice at once or within the heartbeats' limit."""
        if not self.alive:
            return
        self.alive = False
        for end in (0, 1):
            self.world.after(0.001 if quickly else self.world.random.uniform(0.001, DEAD_SECONDS), self._notice, end)

    def close(self, end: int) -> None:
        """One end is done with it; the other notices soon. What is under way is lost."""
        self.closed_for.add(end)
        if self.alive:
            self.alive = False
            self.world.after(self.delay, self._notice, 1 - end)

    def _notice(self, end: int) -> None:
        if end not in self.closed_for:
            self.closed_for.add(end)
            self.ends[end].on_closed(self)
