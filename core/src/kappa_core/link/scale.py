"""The scaler: the only one that decides how many environments there are, up and down, and the only source of a 429 for concurrency.

It runs in every gateway and acts in one of them, the holder of the Lease (the only gateway, in embedded mode). Gateways report who
waits (DEMAND); it starts environments while starting + idle + busy + draining fits the function's reserved concurrency, or the
account's unreserved share, and makes room by retiring idle environments of other revisions and functions. So what is in flight can
never exceed a limit, and a warm invocation needs no word from it. Provisioned environments come first: they are started without any
demand, are never reaped, and are replaced when they end.

What is busy changes too fast to be reported. Where it matters, the scaler asks every gateway at once (COLLECT, see
:mod:`kappa_core.link.collection`): whether an idle environment is about to serve a waiter, which idle ones may make room, and whether
a waiter is to be turned away. A waiter is denied only when all permitted environments were provably in flight at one instant after
its DEMAND was made. It refuses to guess: without that proof a waiter waits.

The shell carries out effects, answers a SendCollect to its own gateway at once with
:meth:`kappa_core.link.dispatch.Dispatcher.collect`, and calls :meth:`Scaler.on_tick` at :meth:`Scaler.next_deadline`. An environment
counts until :meth:`Scaler.on_environment_gone`, which the shell calls on GONE or when the provider knows that its process or pod has
ended; a lost link is no proof of that. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from kappa_core.limits import ENVIRONMENTS_PER_10_SECONDS
from kappa_core.link import policy as patience
from kappa_core.link import room
from kappa_core.link.capacity import Books, Environment, Function, Known, Revision, adopt, uid_of
from kappa_core.link.collection import Collection, View, proves
from kappa_core.link.dispatch import CAPACITY
from kappa_core.link.effects import (
    Effect,
    ProvisionedChanged,
    SendCollect,
    SendDeny,
    StartEnvironments,
    StartsFail,
    StopEnvironments,
)
from kappa_core.link.frames import Collect, Collected, Demand, Deny
from kappa_core.link.policy import Policy, Situation, queue_or_scale
from kappa_core.link.upkeep import Timer, Upkeep

_DELETED: Final = "the function was deleted"
_SOON: Final = 0.01
_EVERYTHING: Final = ""
"""The scope of a collection over all functions."""


class Scaler(Upkeep):
    """See the module. Until :meth:`take_over` it only takes notes."""

    __slots__ = (
        "_again",
        "_asked",
        "_awaited",
        "_gateways",
        "_needy",
        "_policy",
    )

    def __init__(
        self,
        *,
        new_id: Callable[[], str],
        policy: Policy = queue_or_scale,
        function_of: Callable[[str], str] = uid_of,
        idle_seconds: float = 600.0,
        start_seconds: float = 60.0,
        burst: int = ENVIRONMENTS_PER_10_SECONDS,
    ) -> None:
        """``new_id`` makes environment ids that are never used twice; ``burst`` is environments per 10 s and function.
        ``function_of`` names the function of a revision that environments speak of before ``on_revision`` did."""
        books = Books(function_of=function_of, burst=burst, idle_seconds=idle_seconds, start_seconds=start_seconds)
        super().__init__(books, new_id=new_id)
        self._policy = policy
        self._awaited: set[str] = set()
        self._gateways: dict[str, None] = {}
        self._needy: dict[str, None] = {}
        """Revisions with waiters."""
        self._again: dict[str, dict[str, None]] = {}
        """By scope, revisions that ask while a collection is under way."""
        self._asked: dict[str, float] = {}
        """By scope, when the last collection was begun that somebody asked for."""

    # -- holding the Lease -----------------------------------------------------------------------------------------
    def take_over(self, epoch: int, known: Iterable[Known], gateways: Iterable[str], now: float) -> list[Effect]:
        """This gateway holds the Lease under this epoch, the provider is fenced with it, and ``known`` is all that exists or was
        ordered before. Nothing is started or denied until the expected ``gateways`` are up, or for patience.REBUILD_SECONDS."""
        for environment in list(self._books.environments.values()):
            self._books.forget(environment)
        self._epoch, self._state = epoch, "rebuilding"
        self._collections, self._again, self._asked, self._timers = {}, {}, {}, []
        for found in known:
            self._add(found.environment_id, self._books.revision(found.revision), found.phase, now)
        for revision in self._books.revisions.values():
            revision.review_at = revision.provision.hold_at = None
        self._awaited = set(gateways) - set(self._gateways)
        self._remind(now + patience.REBUILD_SECONDS, "rebuild", "")
        return self._rebuilt(now) if not self._awaited else []

    def stand_down(self) -> None:
        """Another gateway holds the Lease, or this one can no longer be sure that it does."""
        self._state = "standby"
        self._collections, self._again, self._asked, self._timers = {}, {}, {}, []
        self._gateways, self._needy = {}, {}
        for revision in self._books.revisions.values():
            revision.demands = {}

    # -- what there is and what is permitted -------------------------------------------------------------------------
    def on_pool(self, pool: str, limit: int, now: float) -> list[Effect]:
        """The concurrency of an account in a region."""
        if (known := self._books.pool(pool)).limit == limit:
            return []
        known.limit = limit
        return self._review_all(now)

    def on_function(self, function_key: str, pool: str, reserved: int | None, now: float) -> list[Effect]:
        """A function and its reserved concurrency, None for none. An excess is retired, what is idle first."""
        function = self._books.functions.get(function_key)
        if function is None:
            function = self._books.new_function(function_key, pool)
        if function.reserved == reserved:
            return self._review_needy(now)
        function.reserve(reserved)
        return self._review_all(now)

    def on_provisioned(self, function_key: str, targets: Mapping[str, tuple[int, float]], now: float) -> list[Effect]:
        """How many environments to keep ready for each revision of a function, and the start deadline of one in seconds; none for the
        revisions that are not named. The function must be known."""
        function = self._books.functions[function_key]
        for name in targets:
            adopt(self._books.revision(name), function)
        effects: list[Effect] = []
        for revision in list(function.revisions.values()):
            number, start_seconds = targets.get(revision.name, (0, 0.0))
            revision.provision.start_seconds = start_seconds
            if number != revision.provision.target:
                function.provision(revision, number)
                effects.append(ProvisionedChanged(revision.name))
                self._books.drop_unused(revision)
        return effects + self._review_all(now) if effects else []

    def on_function_removed(self, function_key: str, now: float) -> list[Effect]:
        """The function was deleted: its environments drain, its waiters are told."""
        function = self._books.functions.get(function_key)
        if function is None:
            return []
        function.removed = True
        self._asked.pop(function_key, None)
        effects = self.on_provisioned(function_key, {}, now)
        for revision in list(function.revisions.values()):
            effects += self._deny(revision, CAPACITY + _DELETED)
            effects += self.on_revision_superseded(revision.name, now)
        function.reserve(None)
        self._books.drop_removed(function)
        return effects + self._review_all(now)

    def on_revision(
        self,
        revision: str,
        function_key: str,
        now: float,
        *,
        idle_seconds: float | None = None,
        start_seconds: float | None = None,
    ) -> list[Effect]:
        """A revision that may be invoked. The function must be known. Says again what was superseded: it is live once more."""
        known = self._books.revision(revision)
        known.superseded = False
        if idle_seconds is not None:
            known.idle_seconds = idle_seconds
        if start_seconds is not None:
            known.start_seconds = start_seconds
        adopt(known, self._books.functions[function_key])
        return self._review(known, now)

    def on_revision_superseded(self, revision: str, now: float) -> list[Effect]:
        """Another revision took its place, or it was deleted: every environment drains after what it runs."""
        known = self._books.revisions.get(revision)
        if known is None:
            return []
        known.superseded = True
        effects = [effect for each in list(known.environments.values()) for effect in self._finish(each, now)]
        self._books.drop_unused(known)
        return effects

    # -- gateways ----------------------------------------------------------------------------------------------------
    def on_gateway_up(self, gateway: str, now: float) -> list[Effect]:
        """A gateway (this one too) is connected and will report its demand."""
        self._gateways[gateway] = None
        self._awaited.discard(gateway)
        if self._state == "rebuilding" and not self._awaited:
            return self._rebuilt(now)
        return []

    def on_gateway_down(self, gateway: str, now: float) -> list[Effect]:
        """Its connection is lost: it may be gone, or only out of reach. Its waiters no longer count here."""
        self._gateways.pop(gateway, None)
        for revision in self._books.revisions.values():
            if revision.demands.pop(gateway, None) is not None and not revision.demands:
                self._needy.pop(revision.name, None)
                revision.pace.waits((), now)
        effects: list[Effect] = []
        for scope, collection in list(self._collections.items()):
            collection.pending.pop(gateway, None)
            effects += self._completed(scope, collection, now)
        return effects

    def on_demand(self, gateway: str, demand: Demand, now: float) -> list[Effect]:
        """DEMAND."""
        revision = self._books.revision(demand.revision)
        if gateway not in self._gateways:
            return []
        if not demand.waiting:
            revision.demands.pop(gateway, None)
        else:
            revision.demands[gateway] = (demand, now)
        revision.pace.waits((each for each, _ in revision.demands.values()), now)
        if not revision.demands:
            self._needy.pop(revision.name, None)
            self._books.drop_unused(revision)
            return []
        self._needy[revision.name] = None
        return self._review(revision, now)

    def on_collected(self, gateway: str, collected: Collected, now: float) -> list[Effect]:
        """COLLECTED."""
        effects: list[Effect] = []
        for environment_id, _ in (*collected.busy, *collected.idle):
            effects += self._is_ready(self._books.environments.get(environment_id), now)
        for scope, collection in list(self._collections.items()):
            if collection.add(gateway, collected):
                effects += self._completed(scope, collection, now)
        return effects

    # -- environments ------------------------------------------------------------------------------------------------
    def on_environment(self, environment_id: str, revision: str, state: str, now: float) -> list[Effect]:
        """What HELLO, ENVIRONMENT, PARKED or DRAINING says of one: ``init``, ``draining``, or anything else for ready."""
        effects: list[Effect] = []
        environment = self._books.environments.get(environment_id)
        if environment is None:
            if environment_id in self._books.gone:
                return []  # a late word of it
            environment = self._add(environment_id, self._books.revision(revision), "starting", now)
            if self._state == "acting":
                environment.given_up = True
                effects.append(StopEnvironments(revision, [environment_id], "nobody ordered it"))
        if state == "draining":
            environment.phase, environment.asked_at = "draining", None
            if environment.provisioned:
                effects += self._provisioned_changed(environment, now)
        elif state != "init":
            effects += self._is_ready(environment, now)
        if environment.phase != "draining" and (environment.revision.superseded or environment.given_up):
            effects += self._finish(environment, now)
        return effects + self._review_needy(now)

    def on_environment_gone(self, environment_id: str, reason: str, now: float, *, was_ready: bool = False) -> list[Effect]:
        """It has ended; that is certain. One that was never ready is a failed start; the provider, whose word may overtake the
        link's, says with ``was_ready`` that it is none."""
        environment = self._books.environments.get(environment_id)
        if environment is None:
            return []
        self._books.remove(environment)
        effects: list[Effect] = []
        if environment.phase == "starting" and not (was_ready or environment.finish or environment.given_up):
            effects += self._failed(environment, reason, now)
        if environment.provisioned:
            effects += self._provisioned_changed(environment, now)
        self._books.drop_unused(environment.revision)
        return effects + self._review_needy(now)

    def on_start_failed(self, environment_ids: Iterable[str], cause: str, now: float) -> list[Effect]:
        """The provider refused to start these; they do not exist."""
        return [effect for name in environment_ids for effect in self.on_environment_gone(name, cause, now)]

    def on_retire_refused(self, environment_id: str, reason: str, idle_ms: int, now: float) -> list[Effect]:
        """REFUSED without a request: the environment is ``busy``, or ``fresh`` (idle for ``idle_ms`` only), and stays."""
        environment = self._books.environments.get(environment_id)
        if environment is None or environment.finish:
            return []
        environment.asked_at = None
        if environment.phase == "ready":
            window = environment.revision.idle_seconds
            rest = window - idle_ms / 1000 if reason == "fresh" else window
            environment.due = now + max(rest, 0.001)
            self._remind(environment.due, "idle", environment_id)
        return self._review_needy(now)

    # -- time --------------------------------------------------------------------------------------------------------
    def on_tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while self._timers and self._timers[0][0] <= now:
            at, _, kind, key = heapq.heappop(self._timers)
            effects += self._on_timer(at, kind, key, now)
        return effects

    # -- decisions ---------------------------------------------------------------------------------------------------
    def _review_all(self, now: float) -> list[Effect]:
        """A limit has changed."""
        self._limits_changed()
        functions = list(self._books.functions.values())
        effects = [effect for each in functions for effect in self._shed(each, now)]
        held = [effect for each in functions for one in list(each.revisions.values()) for effect in self._hold(one, now)]
        return effects + held + self._review_needy(now)

    def _review_needy(self, now: float) -> list[Effect]:
        """Look at everyone who waits, the oldest first: it has the first claim on what became free."""
        needy = [self._books.revisions[name] for name in self._needy]
        effects: list[Effect] = []
        for revision in sorted(needy, key=lambda revision: revision.oldest_seconds(now), reverse=True):
            effects += self._review(revision, now)
        return effects

    def _review(self, revision: Revision, now: float) -> list[Effect]:
        """Start what evidently has to be started; ask the gateways where that depends on what is busy."""
        function = revision.function
        if self._state != "acting" or function is None or not revision.demands:
            return []
        if function.removed:
            return self._deny(revision, CAPACITY + _DELETED)
        if revision.superseded:
            return []  # its waiters are on their way to the successor's FIFO
        if function.limit() <= 0 and not revision.provisioned():
            return self._deny(revision, function.throttle_reason())
        self._review_again(revision, now + patience.REVIEW_SECONDS)
        need = revision.waiting() - revision.serving()
        if need <= 0:
            return []
        effects: list[Effect] = []
        if revision.count("ready") == 0 and function.free() > 0:
            effects += self._start(revision, need, now)
            need = revision.waiting() - revision.serving()
            if need <= 0 or function.free() > 0:
                return effects
        return effects + self._ask(revision, function, now)

    def _decide(self, revision: Revision, collection: Collection, view: View, now: float) -> tuple[list[Effect], bool]:
        """With everyone's answer: start, make room, or turn away. The second value asks for a second round."""
        function = revision.function
        if function is None or revision.superseded or not revision.demands:
            return [], False
        told = {gateway: demand.waiting for gateway, (demand, _) in revision.demands.items()}
        need = collection.waiting(revision.name, told) - revision.serving()
        arrived = now - revision.oldest_seconds(now)
        for name, environment in revision.environments.items():
            # An idle one is about to serve a waiter, if it and the waiter have not been there for long already.
            until = max(arrived, environment.ready_at) + patience.GRACE_SECONDS
            if environment.phase == "ready" and name not in view.busy and not environment.retiring() and now < until:
                need -= 1
                self._review_again(revision, max(until, now + _SOON))
        if need <= 0:
            return [], False
        before = len(revision.environments)
        effects = self._start(revision, need, now) if function.free() > 0 else []
        short = need - (len(revision.environments) - before)
        if short <= 0 or function.free() > 0 or collection.limits_changed:
            return effects, False  # a proof holds for the limits that it was begun under; the next review asks again
        mine = [environment.environment_id for environment in revision.provisioned()]
        neighbours = self._books.neighbours(function)
        # All that are its own, whatever state they are in, and all that may be there on demand.
        shares = [(len(mine), mine), (function.limit(), [environment.environment_id for environment in neighbours])]
        if proves(shares, view=view, first=collection.first):
            for (name, gateway), demand in collection.covers.items():
                if name == revision.name:
                    effects.append(_denial(gateway, demand, function.throttle_reason()))
            return effects, False
        if all(sum(name in view.busy for name in permitted) >= number for number, permitted in shares):
            return effects, collection.first is None
        stuck = revision.oldest_seconds(now) >= patience.STUCK_SECONDS
        for environment in room.for_waiters(neighbours, revision, view=view, short=short, stuck=stuck):
            # One of its own is let go only if it has been idle for as long as the waiter has not been reached by it.
            idle_ms = int(patience.STUCK_SECONDS * 500) if environment.revision is revision else 0
            effects.append(self._retire(environment, "room is needed", idle_ms, now))
        return effects, False

    def _start(self, revision: Revision, need: int, now: float) -> list[Effect]:
        function = revision.function
        assert function is not None, "only what is adopted is started"
        if now < revision.retry_at:
            self._review_again(revision, revision.retry_at)
            return []
        starting = revision.count("starting")
        situation = Situation(
            need,
            revision.waiting(),
            revision.oldest_seconds(now),
            revision.serving(),
            revision.count("ready"),
            revision.pace.run_seconds,
            revision.pace.start_seconds,
            revision.pace.standing_seconds(now),
            revision.head_start(now),
            revision.pace.rest_seconds,
        )
        chosen = self._policy(situation)
        if chosen < need:
            self._review_again(revision, now + max(patience.patient_seconds(situation), _SOON))
        number = min(chosen, function.free(), function.refill(now))
        if revision.failures:
            number = min(number, 1 - starting)  # one at a time until one succeeds
        if number <= 0:
            return []
        function.tokens -= number
        ids = [self._new_id() for _ in range(number)]
        for environment_id in ids:
            self._add(environment_id, revision, "starting", now)
        return [StartEnvironments(self._epoch, revision.name, ids)]

    # -- collections -------------------------------------------------------------------------------------------------
    def _ask(self, revision: Revision, function: Function, now: float) -> list[Effect]:
        """Collect what is in flight: of the function, or of everyone who draws on the account's share if that is used up."""
        scope = _EVERYTHING if function.reserved is None and function.free() <= 0 else function.key
        if scope in self._collections:
            self._again.setdefault(scope, {})[revision.name] = None
            return []
        return self._begin(scope, [revision.name], now)

    def _begin(self, scope: str, askers: list[str], now: float) -> list[Effect]:
        """Ask on behalf of these, unless that was just done: then they are looked at again as soon as it may be."""
        if now < (due := self._asked.get(scope, -math.inf) + patience.ASK_SECONDS) - patience.TURN_SECONDS:
            for name in askers:
                self._review_again(self._books.revisions[name], due)
            return []
        self._asked[scope] = now
        covers = {
            (name, gateway): demand for name in askers for gateway, (demand, _) in self._books.revisions[name].demands.items()
        }
        return self._send(scope, Collection(next(self._numbers), self._gateways, asked_at=now, askers=askers, covers=covers), now)

    def _send(self, scope: str, collection: Collection, now: float) -> list[Effect]:
        self._collections[scope] = collection
        self._remind(now + patience.COLLECT_SECONDS, "collect", scope)
        return [SendCollect(gateway, Collect(scope, collection.number)) for gateway in collection.pending]

    def _completed(self, scope: str, collection: Collection, now: float) -> list[Effect]:
        if collection.pending or self._collections.get(scope) is not collection:
            return []
        del self._collections[scope]
        view = collection.view()
        effects: list[Effect] = []
        second = False
        for name in collection.askers:
            if (revision := self._books.revisions.get(name)) is not None:
                decided, undecided = self._decide(revision, collection, view, now)
                effects += decided
                second = second or undecided
        if second:
            effects += self._send(scope, collection.second(next(self._numbers), self._gateways, view=view, asked_at=now), now)
        elif (again := self._again.pop(scope, None)) is not None and self._state == "acting":
            needy = [name for name in again if name in self._needy]
            effects += self._begin(scope, needy, now) if needy else []
        return effects

    def _failed(self, environment: Environment, cause: str, now: float) -> list[Effect]:
        """A start failed. Try again, ever more slowly; if there is nothing else to serve them, tell the waiters why."""
        revision = environment.revision
        if environment.provisioned:
            revision.provision.failed(cause, now)
            return []
        revision.failed(environment.attempt, now)
        effects: list[Effect] = [StartsFail(revision.name, cause)]
        if revision.failures >= patience.FAILURES_BEFORE_DENIAL and not revision.count("ready"):
            effects += self._deny(revision, CAPACITY + cause)
        return effects

    def _deny(self, revision: Revision, reason: str) -> list[Effect]:
        """Turn away everyone who is known to wait."""
        if self._state != "acting":
            return []
        return [_denial(gateway, demand, reason) for gateway, (demand, _) in revision.demands.items()]

    # -- timers --------------------------------------------------------------------------------------------
    def _rebuilt(self, now: float) -> list[Effect]:
        self._state, self._awaited = "acting", set()
        effects: list[Effect] = []
        for environment in list(self._books.environments.values()):
            self._watch(environment, now)
            if environment.finish or environment.revision.superseded:
                effects += self._finish(environment, now)
        changed = [ProvisionedChanged(name) for name, one in self._books.revisions.items() if one.provision.target]
        return [*effects, *changed, *self._review_all(now)]

    def _review_again(self, revision: Revision, at: float) -> None:
        if revision.review_at is None or at < revision.review_at:
            revision.review_at = at
            self._remind(at, "review", revision.name)

    def _on_timer(self, at: float, kind: Timer, key: str, now: float) -> list[Effect]:
        match kind:
            case "rebuild":
                return self._rebuilt(now) if self._state == "rebuilding" else []
            case "collect":
                collection = self._collections.get(key)
                if collection is None or collection.asked_at + patience.COLLECT_SECONDS > now:
                    return []
                collection.pending.clear()
                return self._completed(key, collection, now)
            case "excess":
                function = self._books.functions.get(key)
                return [] if function is None else self._shed(function, now)
            case "review":
                revision = self._books.revisions.get(key)
                if revision is None or revision.review_at != at:
                    return []
                revision.review_at = None
                return self._review(revision, now)
            case "hold":
                revision = self._books.revisions.get(key)
                if revision is None or revision.provision.hold_at != at:
                    return []
                revision.provision.hold_at = None
                return self._hold(revision, now)
            case _:
                environment = self._books.environments.get(key)
                return [] if environment is None else self._on_environment_timer(environment, kind, now)

    def _on_environment_timer(self, environment: Environment, kind: Timer, now: float) -> list[Effect]:
        if kind == "retire":
            if environment.asked_at is None or environment.asked_at + patience.RETIRE_SECONDS > now:
                return []
            environment.asked_at = None
            if environment.finish:
                return self._finish(environment, now)
            environment.due = now
            return self._reap(environment, now)
        if environment.due > now or self._state != "acting":
            return []
        if kind == "idle":
            return self._reap(environment, now)
        if environment.phase != "starting" or environment.given_up:
            return []
        environment.given_up = True
        late = environment.revision.provision if environment.provisioned else environment.revision
        cause = f"an environment did not start within {late.start_seconds:g} s"
        stop = StopEnvironments(environment.revision.name, [environment.environment_id], cause)
        failed = self._failed(environment, cause, now)
        changed = self._provisioned_changed(environment, now) if environment.provisioned else []
        return [stop, *failed, *changed, *self._review(environment.revision, now)]


def _denial(gateway: str, demand: Demand, reason: str) -> Effect:
    return SendDeny(gateway, Deny(demand.revision, demand.sequence, demand.waiting, reason))
