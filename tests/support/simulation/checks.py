"""What must hold in every simulated history: the guarantees of the link, checked against the truth that only the simulation sees.

Every check is made when something happens (a run begins, an answer is given, an environment is ordered) and raises Violation with
the sentence that was broken. The checker sees what runs at the supervisors and what gateways hold in flight; the machines do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kappa_core.spec import initialization_type
from simulation.world import Violation, World


@dataclass(slots=True)
class Request:
    """One invocation of a client and what became of it."""

    request_id: str
    function: str
    revision: str
    gateway: str
    arrived: float
    duration: float
    calm: bool
    """Arrived when nothing was broken nor about to break: it may be throttled, but must not fail."""
    ending: str = "park"
    """What the run comes to: ``park``, ``restart`` (a timeout), ``end``, or ``crash``."""
    outcome: str = ""
    ended: float = 0.0
    dispatched: bool = False


@dataclass(slots=True)
class Share:
    """A reserved share or the unreserved rest of the account, and the most that may exist in it now."""

    limit: int
    existing: int = 0
    ceiling: int = 0
    in_flight: dict[str, int] = field(default_factory=dict)
    """Environment → requests that are in flight on it, at a gateway or in the environment itself."""

    def exceeded(self) -> bool:
        return self.existing > max(self.limit, self.ceiling)


class Checks:
    __slots__ = (
        "_ran",
        "_running",
        "_share_of",
        "_world",
        "account",
        "aside",
        "demand",
        "full_until",
        "peak",
        "provisioned",
        "requests",
        "shares",
        "thrifty",
        "total",
        "waiting",
    )

    def __init__(self, world: World, account: int, reserved: dict[str, int | None], aside: dict[str, int]) -> None:
        self._world = world
        self.account = account
        self.total = Share(account)
        self.shares: dict[str, Share] = {}
        self.aside = dict(aside)
        """Function → how many of its share are set aside for provisioned environments."""
        self.demand: dict[str, Share] = {}
        """What is left of each share for environments on demand."""
        self.provisioned: dict[str, dict[str, int]] = {f"{function}.r1": {} for function in reserved}
        """Revision → provisioned environments that were ready → requests in flight on them."""
        self.full_until: dict[str, float] = {}
        """Revision → when last all that its waiters may have was in flight, as far as that is over."""
        self._share_of: dict[str, str] = {}
        self._running: dict[str, str] = {}
        self._ran: set[str] = set()
        self.requests: dict[str, Request] = {}
        self.thrifty = False
        """Nothing keeps an idle environment from a waiter: no more may exist than there were invocations at once."""
        self.peak: dict[str, int] = {}
        """Function → most invocations at once so far."""
        self.waiting: dict[tuple[str, str], dict[str, Request]] = {}
        """Per gateway and function, in order of arrival."""
        for function, amount in reserved.items():
            self._share_of[function] = function if amount is not None else ""
            if amount is not None:
                self.shares[function] = Share(amount)
        self.shares[""] = Share(account - sum(amount or 0 for amount in reserved.values()))
        for name, share in self.shares.items():
            self.demand[name] = Share(share.limit - self._aside(name))
        for share in (*self.shares.values(), *self.demand.values(), self.total):
            share.ceiling = share.limit

    def share(self, function: str) -> Share:
        return self.shares[self._share_of[function]]

    def _aside(self, name: str) -> int:
        return sum(number for function, number in self.aside.items() if self._share_of[function] == name)

    # -- environments ------------------------------------------------------------------------------------------------
    def ordered(self, function: str, number: int, existing: int, *, provisioned: bool) -> None:
        """``existing`` of the function, these included."""
        if self.thrifty and existing > self.peak[function]:
            raise Violation(f"{existing} environments of {function} for at most {self.peak[function]} invocations at once")
        for share in self._drawn_on(function, provisioned=provisioned):
            share.existing += number
            if share.exceeded():
                raise Violation(f"{share.existing} environments of {function} where {share.limit} are permitted")

    def ended(self, function: str, environment: str, *, revision: str) -> None:
        provisioned = is_provisioned(environment)
        if provisioned:
            self.provisioned.get(revision, {}).pop(environment, None)
        for share in self._drawn_on(function, provisioned=provisioned):
            share.existing -= 1
            share.ceiling = max(share.limit, min(share.ceiling, share.existing))

    def _drawn_on(self, function: str, *, provisioned: bool) -> list[Share]:
        on_demand = [] if provisioned else [self.demand[self._share_of[function]]]
        return [self.share(function), self.total, *on_demand]

    def revised(self, revision: str) -> None:
        """There is a new revision; waiters of the one before may be denied on its behalf."""
        self.provisioned[revision] = {}

    def provisioned_ready(self, environment: str, revision: str) -> None:
        self._note_full()
        self.provisioned[revision].setdefault(environment, 0)

    def limit_changed(self, function: str, reserved: int) -> None:
        """Only of functions that have reserved concurrency, which keep it."""
        self._note_full()
        by = reserved - self.shares[function].limit
        for shares in (self.shares, self.demand):
            shares[""].limit -= by
            shares[function].limit += by
        self._ceilings(self._share_of[function], "")

    def provisioned_changed(self, function: str, number: int) -> None:
        self._note_full()
        name = self._share_of[function]
        self.demand[name].limit -= number - self.aside.get(function, 0)
        self.aside[function] = number
        self._ceilings(name)

    def _ceilings(self, *names: str) -> None:
        for changed in (shares[name] for name in names for shares in (self.shares, self.demand)):
            changed.ceiling = max(changed.limit, changed.existing)

    # -- runs --------------------------------------------------------------------------------------------------------
    def run_begins(self, environment: str, request_id: str) -> None:
        request = self.requests[request_id]
        if environment in self._running:
            raise Violation(f"{environment} runs {self._running[environment]} and was given {request_id}")
        if request_id in self._ran:
            raise Violation(f"{request_id} ran twice")
        if request.outcome in {"429", "503"}:
            raise Violation(f"{request_id} ran after it was answered {request.outcome}")
        self._running[environment] = request_id
        self._ran.add(request_id)
        self._hold(environment, request.function)
        for share, name in ((self.share(request.function), request.function), (self.total, "the account")):
            running = sum(
                1 for run in self._running.values() if share is self.total or self.share(self.requests[run].function) is share
            )
            if running > max(share.limit, share.ceiling):
                raise Violation(f"{running} run at once in the share of {name} that permits {share.limit}")

    def run_ends(self, environment: str) -> None:
        request_id = self._running.pop(environment, None)
        if request_id is not None:
            self._release(environment, self.requests[request_id].function)

    # -- gateways ----------------------------------------------------------------------------------------------------
    def arrives(self, request: Request) -> None:
        self.requests[request.request_id] = request
        at_once = sum(not each.outcome and each.function == request.function for each in self.requests.values())
        self.peak[request.function] = max(self.peak.get(request.function, 0), at_once)
        self.waiting.setdefault((request.gateway, request.function), {})[request.request_id] = request

    def dispatched(self, request_id: str, environment: str) -> None:
        request = self.requests[request_id]
        queue = self.waiting[request.gateway, request.function]
        queue.pop(request_id, None)
        for other in queue.values():
            if other.arrived < request.arrived:
                raise Violation(f"{request_id} overtook {other.request_id}")
        request.dispatched = True
        self._hold(environment, request.function)

    def returned(self, request_id: str, environment: str) -> None:
        """Refused, or not accepted before its link broke: it waits again."""
        request = self.requests[request_id]
        request.dispatched = False
        self.waiting[request.gateway, request.function][request_id] = request
        self._release(environment, request.function)

    def answered(self, request_id: str, outcome: str, environment: str | None) -> None:
        request = self.requests[request_id]
        if request.outcome:
            raise Violation(f"{request_id} was answered {outcome} after {request.outcome}")
        self.waiting[request.gateway, request.function].pop(request_id, None)
        request.outcome, request.ended = outcome, self._world.now
        if environment is not None:
            self._release(environment, request.function)
        if outcome == "ok" and request_id not in self._ran:
            raise Violation(f"{request_id} has a result and never ran")
        if outcome == "429":
            self._check_throttle(request)
        if request.calm and outcome not in {"ok", "429", "crash"}:
            raise Violation(f"{request_id} ended with {outcome} though nothing was broken")

    def _check_throttle(self, request: Request) -> None:
        mine = [name for name in self.provisioned if name.partition(".")[0] == request.function]
        since = mine[mine.index(request.revision) :]
        if not any(self._is_full(name) or self.full_until.get(name, -1.0) >= request.arrived for name in since):
            demand = self.demand[self._share_of[request.function]]
            raise Violation(
                f"{request.request_id} was throttled, but since it arrived never were all {demand.limit} permitted environments busy"
                f" (now {sorted(demand.in_flight)}), and what is provisioned: {[self.provisioned[name] for name in since]}"
            )

    def _is_full(self, revision: str) -> bool:
        """Whether all that a waiter of this revision may have is in flight."""
        demand = self.demand[self._share_of[revision.partition(".")[0]]]
        return len(demand.in_flight) >= demand.limit and all(self.provisioned[revision].values())

    def _holders(self, environment: str, function: str) -> dict[str, int]:
        if not is_provisioned(environment):
            return self.demand[self._share_of[function]].in_flight
        return next((holders for holders in self.provisioned.values() if environment in holders), {})

    def _hold(self, environment: str, function: str) -> None:
        holders = self._holders(environment, function)
        holders[environment] = holders.get(environment, 0) + 1

    def _release(self, environment: str, function: str) -> None:
        holders = self._holders(environment, function)
        if not holders.get(environment):
            return
        self._note_full()
        holders[environment] -= 1
        if not holders[environment] and not is_provisioned(environment):
            del holders[environment]

    def _note_full(self) -> None:
        for revision in self.provisioned:
            if self._is_full(revision):
                self.full_until[revision] = self._world.now


def is_provisioned(environment: str) -> bool:
    return initialization_type(environment) == "provisioned-concurrency"
