"""The scaler: the only one that decides how many environments there are, up and down, and the only source of a 429 for concurrency.

It runs in every gateway and acts in one of them, the holder of the Lease (the only gateway, in embedded mode). Gateways report who
waits (DEMAND); it starts environments while starting + idle + busy + draining fits the function's reserved concurrency, or the
account's unreserved share, and makes room by retiring idle environments of other revisions and functions. So what is in flight can
never exceed a limit, and a warm invocation needs no word from it.

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
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from kappa_core.limits import ENVIRONMENTS_PER_10_SECONDS
from kappa_core.link.capacity import Environment, Function, Phase, Pool, Revision, adopt, function_of
from kappa_core.link.collection import Collection, View, proves
from kappa_core.link.dispatch import CAPACITY
from kappa_core.link.effects import (
    Effect,
    RetireEnvironment,
    SendCollect,
    SendDeny,
    StartEnvironments,
    StartsFail,
    StopEnvironments,
)
from kappa_core.link.frames import Collect, Collected, Demand, Deny

ACCOUNT_REASON: Final = "ConcurrentInvocationLimitExceeded"
RESERVED_REASON: Final = "ReservedFunctionConcurrentInvocationLimitExceeded"

GRACE_SECONDS: Final = 0.1
"""How long a waiter is left to an idle environment that is parked elsewhere; a move takes two messages."""
REVIEW_SECONDS: Final = 0.25
"""How often unmet demand is looked at again when nothing happens."""
STUCK_SECONDS: Final = 2.0
"""A waiter this old is evidently not reached by the idle environments there are: they may make room for one that reaches it."""
RETIRE_SECONDS: Final = 2.0
"""When a RETIRE without an answer is sent again, or given up."""
COLLECT_SECONDS: Final = 1.0
"""When a collection is complete without those who have not answered."""
REBUILD_SECONDS: Final = 3.0
"""How long a new holder waits for the gateways it expects."""
GONE_KEPT: Final = 10_000
"""Environments that are remembered to be gone: a word of them may still be under way."""
FAILURES_BEFORE_DENIAL: Final = 3
BACKOFF_SECONDS: Final = 0.5
BACKOFF_MOST_SECONDS: Final = 15.0

_Timer = Literal["rebuild", "start", "idle", "retire", "review", "collect", "excess"]
_SOON: Final = 0.01
_EVERYTHING: Final = ""
"""The scope of a collection over all functions."""


class Known(msgspec.Struct, frozen=True):
    """An environment that exists or has been ordered, as a new holder of the scaler finds it."""

    environment_id: str
    revision: str
    phase: Phase


class Situation(msgspec.Struct, frozen=True):
    """What a policy decides on."""

    need: int
    """Environments that would have to be started for everyone who waits to have one."""
    waiting: int
    oldest_seconds: float
    starting: int
    ready: int
    """Of this revision, idle or busy."""


Policy = Callable[[Situation], int]
"""How many of ``need`` to start now. Fewer: the rest is asked for again within REVIEW_SECONDS. The hook for *queue or scale*."""


def start_at_once(situation: Situation) -> int:
    """The default policy: nobody queues while there is room."""
    return situation.need


class Scaler:
    """See the module. Until :meth:`take_over` it only takes notes."""

    __slots__ = (
        "_again",
        "_awaited",
        "_burst",
        "_collections",
        "_environments",
        "_epoch",
        "_function_of",
        "_functions",
        "_gateways",
        "_gone",
        "_idle_seconds",
        "_needy",
        "_new_id",
        "_number",
        "_policy",
        "_pools",
        "_revisions",
        "_start_seconds",
        "_state",
        "_timers",
    )

    def __init__(
        self,
        *,
        new_id: Callable[[], str],
        policy: Policy = start_at_once,
        function_of: Callable[[str], str] = function_of,
        idle_seconds: float = 600.0,
        start_seconds: float = 60.0,
        burst: int = ENVIRONMENTS_PER_10_SECONDS,
    ) -> None:
        """``new_id`` makes environment ids that are never used twice; ``burst`` is environments per 10 s and function.
        ``function_of`` names the function of a revision that environments speak of before ``on_revision`` did."""
        self._new_id = new_id
        self._function_of = function_of
        self._policy = policy
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds
        self._burst = burst
        self._state: Literal["standby", "rebuilding", "acting"] = "standby"
        self._epoch = 0
        self._awaited: set[str] = set()
        self._pools: dict[str, Pool] = {}
        self._functions: dict[str, Function] = {}
        self._revisions: dict[str, Revision] = {}
        self._environments: dict[str, Environment] = {}
        self._gateways: dict[str, None] = {}
        self._gone: dict[str, None] = {}
        self._needy: dict[str, None] = {}
        """Revisions with waiters."""
        self._collections: dict[str, Collection] = {}
        """Under way, by scope: a function key or everything."""
        self._again: dict[str, dict[str, None]] = {}
        """By scope, revisions that ask while a collection is under way."""
        self._number = 0
        self._timers: list[tuple[float, int, _Timer, str]] = []

    # -- holding the Lease -----------------------------------------------------------------------------------------
    def take_over(self, epoch: int, known: Iterable[Known], gateways: Iterable[str], now: float) -> list[Effect]:
        """This gateway holds the Lease under this epoch, the provider is fenced with it, and ``known`` is all that exists or was
        ordered before. Nothing is started or denied until the expected ``gateways`` are up, or for REBUILD_SECONDS."""
        for environment in list(self._environments.values()):
            self._remove(environment)
        self._epoch, self._state = epoch, "rebuilding"
        self._collections, self._again, self._timers = {}, {}, []
        for found in known:
            self._add(Environment(found.environment_id, self._revision(found.revision), found.phase), now)
        for revision in self._revisions.values():
            revision.review_at = None
        self._awaited = set(gateways) - set(self._gateways)
        self._remind(now + REBUILD_SECONDS, "rebuild", "")
        return self._rebuilt(now) if not self._awaited else []

    def stand_down(self) -> None:
        """Another gateway holds the Lease, or this one can no longer be sure that it does."""
        self._state = "standby"
        self._collections, self._again, self._timers = {}, {}, []
        self._gateways, self._needy = {}, {}
        for revision in self._revisions.values():
            revision.demands = {}

    @property
    def acting(self) -> bool:
        return self._state == "acting"

    # -- what there is and what is permitted -------------------------------------------------------------------------
    def on_pool(self, pool: str, limit: int, now: float) -> list[Effect]:
        """The concurrency of an account in a region."""
        self._pool(pool).limit = limit
        return self._review_all(now)

    def on_function(self, function_key: str, pool: str, reserved: int | None, now: float) -> list[Effect]:
        """A function and its reserved concurrency, None for none. An excess is retired, what is idle first."""
        function = self._functions.get(function_key)
        if function is None:
            function = self._functions[function_key] = Function(function_key, self._pool(pool), burst=self._burst)
            for revision in self._revisions.values():
                if self._function_of(revision.name) == function_key:
                    adopt(revision, function)
        function.reserve(reserved)
        return self._shed(function, now) + self._review_all(now)

    def on_function_removed(self, function_key: str, now: float) -> list[Effect]:
        """The function was deleted: its environments drain, its waiters are told."""
        function = self._functions.get(function_key)
        if function is None:
            return []
        effects: list[Effect] = []
        for name in list(function.revisions):
            effects += self.on_revision_superseded(name, now)
            effects += self._deny(self._revisions[name], CAPACITY + "the function was deleted")
        function.reserve(None)
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
        known = self._revision(revision)
        known.superseded = False
        if idle_seconds is not None:
            known.idle_seconds = idle_seconds
        if start_seconds is not None:
            known.start_seconds = start_seconds
        adopt(known, self._functions[function_key])
        return self._review(known, now)

    def on_revision_superseded(self, revision: str, now: float) -> list[Effect]:
        """Another revision took its place, or it was deleted: every environment drains after what it runs."""
        known = self._revisions.get(revision)
        if known is None:
            return []
        known.superseded = True
        effects: list[Effect] = []
        for environment in list(known.environments.values()):
            effects += self._finish(environment, now)
        self._drop_unused(known)
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
        for revision in self._revisions.values():
            if revision.demands.pop(gateway, None) is not None and not revision.demands:
                self._needy.pop(revision.name, None)
        effects: list[Effect] = []
        for scope, collection in list(self._collections.items()):
            collection.pending.pop(gateway, None)
            effects += self._completed(scope, collection, now)
        return effects

    def on_demand(self, gateway: str, demand: Demand, now: float) -> list[Effect]:
        """DEMAND."""
        revision = self._revision(demand.revision)
        if gateway not in self._gateways:
            return []
        if not demand.waiting:
            revision.demands.pop(gateway, None)
        else:
            revision.demands[gateway] = (demand, now)
        if not revision.demands:
            self._needy.pop(revision.name, None)
            self._drop_unused(revision)
            return []
        self._needy[revision.name] = None
        return self._review(revision, now)

    def on_collected(self, gateway: str, collected: Collected, now: float) -> list[Effect]:
        """COLLECTED."""
        effects: list[Effect] = []
        for environment_id, _ in (*collected.busy, *collected.idle):
            effects += self._is_ready(self._environments.get(environment_id), now)
        for scope, collection in list(self._collections.items()):
            if collection.add(gateway, collected):
                effects += self._completed(scope, collection, now)
        return effects

    # -- environments ------------------------------------------------------------------------------------------------
    def on_environment(self, environment_id: str, revision: str, state: str, now: float) -> list[Effect]:
        """What HELLO, ENVIRONMENT, PARKED or DRAINING says of one: ``init``, ``draining``, or anything else for ready."""
        environment = self._environments.get(environment_id)
        if environment is None:
            return self._stranger(environment_id, revision, now)
        effects: list[Effect] = []
        if state == "draining":
            environment.phase, environment.asked_at = "draining", None
        elif state != "init":
            effects += self._is_ready(environment, now)
        if environment.phase != "draining" and (environment.revision.superseded or environment.given_up):
            effects += self._finish(environment, now)
        return effects + self._review_needy(now)

    def on_environment_gone(self, environment_id: str, reason: str, now: float) -> list[Effect]:
        """It has ended; that is certain. One that was never ready is a failed start."""
        environment = self._environments.get(environment_id)
        if environment is None:
            return []
        self._remove(environment)
        self._gone[environment_id] = None
        if len(self._gone) > GONE_KEPT:
            del self._gone[next(iter(self._gone))]
        effects: list[Effect] = []
        if environment.phase == "starting" and not environment.finish and not environment.given_up:
            effects += self._failed(environment.revision, environment.attempt, reason, now)
        self._drop_unused(environment.revision)
        return effects + self._review_needy(now)

    def on_start_failed(self, environment_ids: Iterable[str], cause: str, now: float) -> list[Effect]:
        """The provider refused to start these; they do not exist."""
        effects: list[Effect] = []
        for environment_id in environment_ids:
            effects += self.on_environment_gone(environment_id, cause, now)
        return effects

    def on_retire_refused(self, environment_id: str, reason: str, idle_ms: int, now: float) -> list[Effect]:
        """REFUSED without a request: the environment is ``busy``, or ``fresh`` (idle for ``idle_ms`` only), and stays."""
        environment = self._environments.get(environment_id)
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

    def next_deadline(self) -> float | None:
        """When ``on_tick`` may have something to do, None for never."""
        return self._timers[0][0] if self._timers else None

    # -- what is known, for conditions and metrics -------------------------------------------------------------------
    def environments(self, revision: str) -> dict[str, Phase]:
        """Environment id → phase."""
        known = self._revisions.get(revision)
        return {} if known is None else {name: environment.phase for name, environment in known.environments.items()}

    # -- decisions ---------------------------------------------------------------------------------------------------
    def _review_all(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for function in list(self._functions.values()):
            if function.free() < 0:
                effects += self._shed(function, now)
        return effects + self._review_needy(now)

    def _review_needy(self, now: float) -> list[Effect]:
        """Look at everyone who waits, the oldest first: it has the first claim on what became free."""
        needy = [self._revisions[name] for name in self._needy]
        effects: list[Effect] = []
        for revision in sorted(needy, key=lambda revision: revision.oldest_seconds(now), reverse=True):
            effects += self._review(revision, now)
        return effects

    def _review(self, revision: Revision, now: float) -> list[Effect]:
        """Start what evidently has to be started; ask the gateways where that depends on what is busy."""
        function = revision.function
        if self._state != "acting" or function is None or revision.superseded or not revision.demands:
            return []
        if function.limit() <= 0:
            return self._deny(revision, _throttle(function))
        self._review_again(revision, now + REVIEW_SECONDS)
        need = revision.waiting() - self._serving(revision)
        if need <= 0:
            return []
        effects: list[Effect] = []
        if revision.count("ready") == 0 and function.free() > 0:
            effects += self._start(revision, need, now)
            need = revision.waiting() - self._serving(revision)
            if need <= 0 or function.free() > 0:
                return effects
        return effects + self._ask(revision, function, now)

    def _decide(self, revision: Revision, collection: Collection, view: View, now: float) -> tuple[list[Effect], bool]:
        """With everyone's answer: start, make room, or turn away. The second value asks for a second round."""
        function = revision.function
        if function is None or revision.superseded or not revision.demands:
            return [], False
        age = revision.oldest_seconds(now)
        need = revision.waiting() - self._serving(revision)
        if age < GRACE_SECONDS:
            available = sum(
                environment.phase == "ready" and not environment.retiring() and name not in view.busy
                for name, environment in revision.environments.items()
            )
            need -= available
            if available:
                self._review_again(revision, now + max(GRACE_SECONDS - age, _SOON))
        if need <= 0:
            return [], False
        before = len(revision.environments)
        effects = self._start(revision, need, now) if function.free() > 0 else []
        short = need - (len(revision.environments) - before)
        if short <= 0 or function.free() > 0:
            return effects, False
        permitted = [
            name
            for name, environment in self._environments.items()
            if (other := environment.revision.function) is not None and other.is_neighbour(function)
        ]
        if proves(function.limit(), permitted, view=view, first=collection.first):
            for (name, gateway), demand in collection.covers.items():
                if name == revision.name:
                    effects.append(self._denial(gateway, demand, _throttle(function)))
            return effects, False
        if sum(name in view.busy for name in permitted) >= function.limit():
            return effects, collection.first is None
        return effects + self._make_room(revision, function, view, short, now), False

    def _make_room(self, revision: Revision, function: Function, view: View, short: int, now: float) -> list[Effect]:
        """Retire idle environments that draw on the same share and that nobody waits for."""
        neighbours = [
            environment
            for environment in self._environments.values()
            if (other := environment.revision.function) is not None and other.is_neighbour(function)
        ]
        coming = sum(environment.retiring() for environment in neighbours)
        stuck = revision.oldest_seconds(now) >= STUCK_SECONDS
        candidates = [
            environment
            for environment in neighbours
            if environment.environment_id in view.idle
            and environment.phase == "ready"
            and not environment.retiring()
            and (
                stuck if environment.revision is revision else not environment.revision.demands or environment.revision.superseded
            )
        ]
        candidates.sort(key=lambda environment: environment.due)
        effects: list[Effect] = []
        for environment in candidates[: max(0, short - coming)]:
            # One of its own is let go only if it has been idle for as long as the waiter has not been reached by it.
            idle_ms = int(STUCK_SECONDS * 500) if environment.revision is revision else 0
            effects.append(self._retire(environment, "room is needed", idle_ms, now))
        return effects

    def _start(self, revision: Revision, need: int, now: float) -> list[Effect]:
        function = revision.function
        assert function is not None, "only what is adopted is started"
        if now < revision.retry_at:
            self._review_again(revision, revision.retry_at)
            return []
        starting = revision.count("starting")
        situation = Situation(need, revision.waiting(), revision.oldest_seconds(now), starting, revision.count("ready"))
        number = min(need, self._policy(situation), function.free(), function.refill(now))
        if revision.failures:
            number = min(number, 1 - starting)  # one at a time until one succeeds
        if number <= 0:
            return []
        function.tokens -= number
        ids = [self._new_id() for _ in range(number)]
        for environment_id in ids:
            self._add(Environment(environment_id, revision, "starting"), now)
        return [StartEnvironments(self._epoch, revision.name, ids)]

    def _serving(self, revision: Revision) -> int:
        """Environments that will soon be there for the waiters of a revision."""
        return sum(
            environment.phase == "starting" and not environment.given_up and not environment.finish
            for environment in revision.environments.values()
        )

    def _shed(self, function: Function, now: float) -> list[Effect]:
        """A limit was lowered below what exists: retire what is idle; with nothing permitted, everything after what it runs."""
        excess = -function.free()
        if self._state != "acting" or excess <= 0:
            return []
        ready = [
            environment
            for revision in function.revisions.values()
            for environment in revision.environments.values()
            if not environment.finish and environment.phase != "draining"
        ]
        effects: list[Effect] = []
        if function.limit() <= 0:
            for environment in ready:
                effects += self._finish(environment, now)
            return effects
        ready.sort(key=lambda environment: environment.due)
        unasked = [environment for environment in ready if environment.asked_at is None and environment.phase == "ready"]
        for environment in unasked[: max(0, excess - (len(ready) - len(unasked)))]:
            effects.append(self._retire(environment, "the concurrency limit was lowered", 0, now))
        self._remind(now + REVIEW_SECONDS, "excess", function.key)
        return effects

    # -- collections -------------------------------------------------------------------------------------------------
    def _ask(self, revision: Revision, function: Function, now: float) -> list[Effect]:
        """Collect what is in flight: of the function, or of everyone who draws on the account's share if that is used up."""
        scope = _EVERYTHING if function.reserved is None and function.free() <= 0 else function.key
        if scope in self._collections:
            self._again.setdefault(scope, {})[revision.name] = None
            return []
        return self._begin(scope, [revision.name], now)

    def _begin(self, scope: str, askers: Iterable[str], now: float) -> list[Effect]:
        askers = list(askers)
        covers = {(name, gateway): demand for name in askers for gateway, (demand, _) in self._revisions[name].demands.items()}
        return self._send(scope, Collection(self._next(), self._gateways, asked_at=now, askers=askers, covers=covers), now)

    def _send(self, scope: str, collection: Collection, now: float) -> list[Effect]:
        self._collections[scope] = collection
        self._remind(now + COLLECT_SECONDS, "collect", scope)
        return [SendCollect(gateway, Collect(scope, collection.number)) for gateway in collection.pending]

    def _completed(self, scope: str, collection: Collection, now: float) -> list[Effect]:
        if collection.pending or self._collections.get(scope) is not collection:
            return []
        del self._collections[scope]
        view = collection.view()
        effects: list[Effect] = []
        second = False
        for name in collection.askers:
            if (revision := self._revisions.get(name)) is not None:
                decided, undecided = self._decide(revision, collection, view, now)
                effects += decided
                second = second or undecided
        if second:
            effects += self._send(scope, collection.second(self._next(), self._gateways, view=view, asked_at=now), now)
        elif (again := self._again.pop(scope, None)) is not None and self._state == "acting":
            needy = [name for name in again if name in self._needy]
            effects += self._begin(scope, needy, now) if needy else []
        return effects

    def _next(self) -> int:
        self._number += 1
        return self._number

    # -- environments ------------------------------------------------------------------------------------------------
    def _add(self, environment: Environment, now: float) -> None:
        self._environments[environment.environment_id] = environment
        self._watch(environment, now)

    def _watch(self, environment: Environment, now: float) -> None:
        if environment.phase == "starting":
            environment.due = now + environment.revision.start_seconds
            self._remind(environment.due, "start", environment.environment_id)
        elif environment.phase == "ready":
            environment.due = now + environment.revision.idle_seconds
            self._remind(environment.due, "idle", environment.environment_id)

    def _stranger(self, environment_id: str, revision: str, now: float) -> list[Effect]:
        """Nobody is known to have ordered this one, or it is gone and this is a late word of it. The provider knows."""
        if environment_id in self._gone:
            return []
        environment = Environment(environment_id, self._revision(revision), "starting")
        self._add(environment, now)
        if self._state != "acting":
            return []
        environment.given_up = True
        return [StopEnvironments(revision, [environment_id], "nobody ordered it")]

    def _remove(self, environment: Environment) -> None:
        del self._environments[environment.environment_id]
        environment.leave()

    def _is_ready(self, environment: Environment | None, now: float) -> list[Effect]:
        if environment is None or environment.phase != "starting":
            return []
        environment.phase = "ready"
        revision = environment.revision
        environment.due = now + revision.idle_seconds
        self._remind(environment.due, "idle", environment.environment_id)
        if not revision.failures:
            return []
        revision.failures, revision.retry_at = 0, 0.0
        return [StartsFail(revision.name, "")]

    def _failed(self, revision: Revision, attempt: int, cause: str, now: float) -> list[Effect]:
        """A start failed. Try again, ever more slowly; if there is nothing else to serve them, tell the waiters why."""
        if attempt == revision.attempt:
            revision.attempt += 1
            revision.failures += 1
            pause = BACKOFF_SECONDS * 2 ** (revision.failures - 2) if revision.failures > 1 else 0.0
            revision.retry_at = now + min(pause, BACKOFF_MOST_SECONDS)
        effects: list[Effect] = [StartsFail(revision.name, cause)]
        if revision.failures >= FAILURES_BEFORE_DENIAL and not revision.count("ready"):
            effects += self._deny(revision, CAPACITY + cause)
        return effects

    def _retire(self, environment: Environment, reason: str, idle_ms: int, now: float) -> Effect:
        environment.asked_at = now
        self._remind(now + RETIRE_SECONDS, "retire", environment.environment_id)
        when_busy: Literal["refuse", "finish"] = "finish" if environment.finish else "refuse"
        return RetireEnvironment(environment.environment_id, reason, when_busy, idle_ms)

    def _finish(self, environment: Environment, now: float) -> list[Effect]:
        """Retire it whatever it does, until it is draining or gone."""
        environment.finish = True
        if self._state != "acting" or environment.phase == "draining":
            return []
        return [self._retire(environment, "superseded", 0, now)]

    def _deny(self, revision: Revision, reason: str) -> list[Effect]:
        """Turn away everyone who is known to wait."""
        if self._state != "acting":
            return []
        return [self._denial(gateway, demand, reason) for gateway, (demand, _) in revision.demands.items()]

    def _denial(self, gateway: str, demand: Demand, reason: str) -> Effect:
        return SendDeny(gateway, Deny(demand.revision, demand.sequence, demand.waiting, reason))

    # -- books and timers --------------------------------------------------------------------------------------------
    def _pool(self, name: str) -> Pool:
        if name not in self._pools:
            self._pools[name] = Pool(name, 0)
        return self._pools[name]

    def _revision(self, name: str) -> Revision:
        revision = self._revisions.get(name)
        if revision is None:
            revision = Revision(name, idle_seconds=self._idle_seconds, start_seconds=self._start_seconds)
            self._revisions[name] = revision
            if (function := self._functions.get(self._function_of(name))) is not None:
                adopt(revision, function)
        return revision

    def _drop_unused(self, revision: Revision) -> None:
        unused = not revision.environments and not revision.demands
        if unused and (revision.superseded or revision.function is None):
            del self._revisions[revision.name]
            if revision.function is not None:
                del revision.function.revisions[revision.name]

    def _rebuilt(self, now: float) -> list[Effect]:
        self._state, self._awaited = "acting", set()
        effects: list[Effect] = []
        for environment in list(self._environments.values()):
            self._watch(environment, now)
            if environment.finish or environment.revision.superseded:
                effects += self._finish(environment, now)
        return effects + self._review_all(now)

    def _review_again(self, revision: Revision, at: float) -> None:
        if revision.review_at is None or at < revision.review_at:
            revision.review_at = at
            self._remind(at, "review", revision.name)

    def _remind(self, at: float, kind: _Timer, key: str) -> None:
        self._number += 1
        heapq.heappush(self._timers, (at, self._number, kind, key))

    def _on_timer(self, at: float, kind: _Timer, key: str, now: float) -> list[Effect]:
        match kind:
            case "rebuild":
                return self._rebuilt(now) if self._state == "rebuilding" else []
            case "collect":
                collection = self._collections.get(key)
                if collection is None or collection.asked_at + COLLECT_SECONDS > now:
                    return []
                collection.pending.clear()
                return self._completed(key, collection, now)
            case "excess":
                function = self._functions.get(key)
                return [] if function is None else self._shed(function, now)
            case "review":
                revision = self._revisions.get(key)
                if revision is None or revision.review_at != at:
                    return []
                revision.review_at = None
                return self._review(revision, now)
            case _:
                environment = self._environments.get(key)
                return [] if environment is None else self._on_environment_timer(environment, kind, now)

    def _on_environment_timer(self, environment: Environment, kind: _Timer, now: float) -> list[Effect]:
        if kind == "retire":
            if environment.asked_at is None or environment.asked_at + RETIRE_SECONDS > now:
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
        cause = f"an environment did not start within {environment.revision.start_seconds:g} s"
        stop = StopEnvironments(environment.revision.name, [environment.environment_id], cause)
        failed = self._failed(environment.revision, environment.attempt, cause, now)
        return [stop, *failed, *self._review(environment.revision, now)]

    def _reap(self, environment: Environment, now: float) -> list[Effect]:
        """Retire an environment that has been idle for its window; the supervisor, which knows, refuses if it has not."""
        if environment.phase != "ready" or environment.retiring() or environment.due > now:
            return []
        idle_ms = int(environment.revision.idle_seconds * 1000)
        return [self._retire(environment, "idle", idle_ms, now)]


def _throttle(function: Function) -> str:
    return ACCOUNT_REASON if function.reserved is None else RESERVED_REASON
