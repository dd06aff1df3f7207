"""Collections: what all gateways say is in flight and idle, and the proof that so many environments were busy at one instant.

The scaler (:mod:`kappa_core.link.scale`) begins one, adds the answers, and reads it when it is complete. An answer is exact for its
gateway at the instant when it was made, but the answers are made at different instants. Two rounds settle that: an environment that
both name as in flight at the same gateway under the same epoch was in flight without a break from its first answer to its second, and as
the second round begins when the first is complete, all such environments were in flight together at that moment. (The double collect
of an atomic snapshot: Afek et al., "Atomic Snapshots of Shared Memory", 1993.) One gateway's answer alone is of one instant already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from kappa_core.link.frames import Collected, Demand


class View(msgspec.Struct, frozen=True):
    """A complete round. An environment is in ``busy``, in ``idle``, or unknown: on its way, or its gateway did not answer."""

    busy: Mapping[str, tuple[str, int]]
    """Environment id → the gateway where it is in flight, and the epoch."""
    idle: Mapping[str, int]
    """Environment id → epoch under which it is parked."""


class Collection:
    """One question to all gateways about one scope, in one or two rounds."""

    __slots__ = ("answers", "asked_at", "askers", "covers", "first", "limits_changed", "number", "pending")

    def __init__(
        self,
        number: int,
        gateways: Iterable[str],
        *,
        asked_at: float,
        askers: Iterable[str],
        covers: dict[tuple[str, str], Demand],
    ) -> None:
        self.number = number
        self.pending = dict.fromkeys(gateways)
        self.answers: dict[str, Collected] = {}
        self.asked_at = asked_at
        self.askers = tuple(askers)
        """Revisions."""
        self.covers = covers
        """By revision and gateway, the demands that were known before the first round began: the only ones it can deny."""
        self.first: View | None = None
        self.limits_changed = False
        """Since it was begun."""

    def second(self, number: int, gateways: Iterable[str], *, view: View, asked_at: float) -> Collection:
        """The second round, begun when the first (``view``) is complete."""
        collection = Collection(number, gateways, asked_at=asked_at, askers=self.askers, covers=self.covers)
        collection.first = view
        return collection

    def add(self, gateway: str, collected: Collected) -> bool:
        """Take an answer; whether it was one of this round's."""
        if collected.number != self.number or gateway not in self.pending:
            return False
        del self.pending[gateway]
        self.answers[gateway] = collected
        return True

    def waiting(self, revision: str, told: Mapping[str, int]) -> int:
        """How many wait: as the gateways have just answered, and as they last told (by gateway) where they did not."""
        silent = sum(waiting for gateway, waiting in told.items() if gateway not in self.answers)
        return silent + sum(collected.waiting.get(revision, 0) for collected in self.answers.values())

    def view(self) -> View:
        """Merge the answers. The highest epoch wins: what is dispatched to under an old one will be refused."""
        busy: dict[str, tuple[str, int]] = {}
        idle: dict[str, int] = {}
        for gateway, collected in self.answers.items():
            for environment_id, epoch in collected.busy:
                if environment_id not in busy or busy[environment_id][1] < epoch:
                    busy[environment_id] = (gateway, epoch)
            for environment_id, epoch in collected.idle:
                if idle.get(environment_id, -1) < epoch:
                    idle[environment_id] = epoch
        for environment_id, epoch in list(idle.items()):
            if environment_id in busy:
                if busy[environment_id][1] < epoch:
                    del busy[environment_id]
                else:
                    del idle[environment_id]
        return View(busy, idle)


def proves(shares: Sequence[tuple[int, Iterable[str]]], *, view: View, first: View | None) -> bool:
    """Whether at one instant of every share at least so many of its environments were in flight."""
    busy = [(number, [name for name in permitted if name in view.busy]) for number, permitted in shares]
    for gateway in {view.busy[name][0] for _, names in busy for name in names}:
        if all(sum(view.busy[name][0] == gateway for name in names) >= number for number, names in busy):
            return True
    if first is None:
        return all(number <= 0 for number, _ in busy)
    return all(sum(first.busy.get(name) == view.busy[name] for name in names) >= number for number, names in busy)
