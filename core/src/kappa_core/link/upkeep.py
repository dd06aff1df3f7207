"""The half of the scaler that needs nobody to wait: what ends with time, with a lowered limit or for what is provisioned, and what is kept.

:class:`~kappa_core.link.scale.Scaler` is the whole: it hears of demand, decides who is served and who is turned away, and calls this
for everything that is done with one environment. Which environments end is chosen in :mod:`kappa_core.link.room`. Nothing here is
carried out: effects are returned, and nothing at all is decided unless this gateway holds the scaler.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Literal

from kappa_core.link import policy as patience
from kappa_core.link import room
from kappa_core.link.capacity import Books, Environment, Function, Phase, Revision
from kappa_core.link.collection import Collection
from kappa_core.link.effects import Effect, ProvisionedChanged, RetireEnvironment, StartEnvironments, StartsFail
from kappa_core.rules.provisioned import Progress
from kappa_core.spec import provisioned_id

Timer = Literal["rebuild", "start", "idle", "retire", "review", "collect", "excess", "hold"]


class Upkeep:
    """See the module."""

    __slots__ = ("_books", "_collections", "_epoch", "_new_id", "_numbers", "_state", "_timers")

    def __init__(self, books: Books, *, new_id: Callable[[], str]) -> None:
        self._books = books
        self._new_id = new_id
        self._state: Literal["standby", "rebuilding", "acting"] = "standby"
        self._epoch = 0
        self._collections: dict[str, Collection] = {}
        """Under way, by scope: a function key or everything."""
        self._numbers = itertools.count(1)
        self._timers: list[tuple[float, int, Timer, str]] = []

    @property
    def acting(self) -> bool:
        return self._state == "acting"

    # -- what is known, for conditions and metrics -------------------------------------------------------------------
    def environments(self, revision: str) -> dict[str, Phase]:
        """Environment id → phase."""
        known = self._books.revisions.get(revision)
        return {} if known is None else {name: environment.phase for name, environment in known.environments.items()}

    def provisioned(self, revision: str) -> Progress:
        """How far the provisioned concurrency of a revision has come."""
        known = self._books.revisions.get(revision)
        if known is None:
            return Progress()
        kept = known.kept()
        return Progress(sum(environment.phase == "ready" for environment in kept), len(kept), known.provision.cause, revision)

    # -- limits ------------------------------------------------------------------------------------------------------
    def _limits_changed(self) -> None:
        """A proof holds for the limits that it was begun under."""
        for collection in self._collections.values():
            collection.limits_changed = True

    def _shed(self, function: Function, now: float) -> list[Effect]:
        """A limit was lowered below what exists: retire what is idle; with nothing permitted, everything after what it runs."""
        excess = function.excess()
        if self._state != "acting" or excess <= 0:
            return []
        neighbours = self._books.neighbours(function)
        if function.share() <= 0:
            neighbours += self._books.neighbours(function, provisioned=True)
        effects: list[Effect] = []
        if function.limit() <= 0:
            for environment in neighbours:
                if not environment.finish:
                    effects += self._finish(environment, now)
        for environment in room.for_the_limit(self._books, function):
            effects.append(self._retire(environment, "the concurrency limit was lowered", 0, now))
        self._remind(now + patience.REVIEW_SECONDS, "excess", function.key)
        return effects

    # -- provisioned concurrency -------------------------------------------------------------------------------------
    def _hold(self, revision: Revision, now: float) -> list[Effect]:
        """Have as many provisioned environments as there are to be: end what is too much, start what is missing as there is room."""
        function, provision = revision.function, revision.provision
        if self._state != "acting" or function is None or function.removed or revision.superseded:
            return []
        effects = [effect for each in room.surplus(revision) for effect in self._finish(each, now)]
        kept = revision.kept()
        missing = provision.target - len(kept)
        if missing <= 0:
            return effects
        self._hold_again(revision, now + patience.REVIEW_SECONDS)
        if now < provision.retry_at:
            return effects
        if provision.failures:
            missing = min(missing, 1 - sum(environment.phase == "starting" for environment in kept))
        number = min(missing, function.room(), function.refill(now))
        if number > 0:
            function.tokens -= number
            ids = [provisioned_id(self._new_id()) for _ in range(number)]
            for environment_id in ids:
                self._add(environment_id, revision, "starting", now)
            effects += [StartEnvironments(self._epoch, revision.name, ids), ProvisionedChanged(revision.name)]
        for environment in room.for_provisioned(self._books, function, missing - max(0, number)):
            effects += self._finish(environment, now)
        return effects

    def _hold_again(self, revision: Revision, at: float) -> None:
        if revision.provision.hold_at is None:
            revision.provision.hold_at = at
            self._remind(at, "hold", revision.name)

    def _provisioned_changed(self, environment: Environment, now: float) -> list[Effect]:
        """One has come or gone."""
        self._limits_changed()
        revision = environment.revision
        return [ProvisionedChanged(revision.name), *self._hold(revision, now)]

    # -- environments ------------------------------------------------------------------------------------------------
    def _add(self, environment_id: str, revision: Revision, phase: Phase, now: float) -> Environment:
        environment = self._books.add(environment_id, revision, phase)
        self._watch(environment, now)
        return environment

    def _watch(self, environment: Environment, now: float) -> None:
        if environment.phase == "starting":
            revision = environment.revision
            environment.due = now + (revision.provision.start_seconds if environment.provisioned else revision.start_seconds)
            self._remind(environment.due, "start", environment.environment_id)
        elif environment.phase == "ready":
            environment.due = now + environment.revision.idle_seconds
            self._remind(environment.due, "idle", environment.environment_id)

    def _is_ready(self, environment: Environment | None, now: float) -> list[Effect]:
        if environment is None or environment.phase != "starting":
            return []
        environment.phase, environment.ready_at = "ready", now
        revision = environment.revision
        if not environment.provisioned:
            revision.pace.started(now - (environment.due - revision.start_seconds), now)
        environment.due = now + revision.idle_seconds
        self._remind(environment.due, "idle", environment.environment_id)
        if environment.provisioned:
            revision.provision.succeeded()
            return self._provisioned_changed(environment, now)
        if not revision.failures:
            return []
        revision.failures, revision.retry_at = 0, 0.0
        return [StartsFail(revision.name, "")]

    def _retire(self, environment: Environment, reason: str, idle_ms: int, now: float) -> Effect:
        environment.asked_at = now
        self._remind(now + patience.RETIRE_SECONDS, "retire", environment.environment_id)
        when_busy: Literal["refuse", "finish"] = "finish" if environment.finish else "refuse"
        return RetireEnvironment(environment.environment_id, reason, when_busy, idle_ms)

    def _finish(self, environment: Environment, now: float) -> list[Effect]:
        """Retire it whatever it does, until it is draining or gone."""
        environment.finish = True
        if self._state != "acting" or environment.phase == "draining":
            return []
        return [self._retire(environment, "superseded", 0, now)]

    def _reap(self, environment: Environment, now: float) -> list[Effect]:
        """Retire an environment that has been idle for its window; the supervisor, which knows, refuses if it has not."""
        if environment.phase != "ready" or environment.retiring() or environment.due > now or environment.provisioned:
            return []
        idle_ms = int(environment.revision.idle_seconds * 1000)
        return [self._retire(environment, "idle", idle_ms, now)]

    # -- time --------------------------------------------------------------------------------------------------------
    def next_deadline(self) -> float | None:
        """When ``on_tick`` may have something to do, None for never."""
        return self._timers[0][0] if self._timers else None

    def _remind(self, at: float, kind: Timer, key: str) -> None:
        heapq.heappush(self._timers, (at, next(self._numbers), kind, key))
