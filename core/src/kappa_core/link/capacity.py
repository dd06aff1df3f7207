"""The scaler's books: which environments there are, of which revision, function and account, and how much room the limits leave.

The scaler (:mod:`kappa_core.link.scale`) decides with it and is the only one to change it. Every environment is counted from the
moment it is ordered until it is known to be gone, whatever phase it is in, so room is never given away twice.

A function with reserved concurrency may have that many environments, and nobody else may use its share; all others share what the
account has left. (Provisioned concurrency will be lent before both, from the function's own share.)
"""

from __future__ import annotations

from typing import Literal

from kappa_core.limits import ENVIRONMENTS_PER_10_SECONDS
from kappa_core.link.frames import Demand

Phase = Literal["starting", "ready", "draining"]
"""``ready`` is idle or busy: the supervisor alone knows which."""


class Pool:
    """The concurrency of one account in one region."""

    __slots__ = ("count", "functions", "limit", "name", "reserved", "unreserved_count")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.reserved = 0
        """Sum of what functions have reserved."""
        self.count = 0
        self.unreserved_count = 0
        """Environments of functions without reserved concurrency."""
        self.functions: dict[str, Function] = {}


class Function:
    __slots__ = ("burst", "count", "key", "pool", "reserved", "revisions", "tokens", "tokens_at")

    def __init__(self, key: str, pool: Pool, *, burst: int = ENVIRONMENTS_PER_10_SECONDS) -> None:
        self.key = key
        self.pool = pool
        self.reserved: int | None = None
        self.revisions: dict[str, Revision] = {}
        self.count = 0
        """Environments in any phase."""
        self.burst = burst
        self.tokens = float(burst)
        self.tokens_at = 0.0
        pool.functions[key] = self

    def reserve(self, reserved: int | None) -> None:
        pool = self.pool
        pool.reserved += (reserved or 0) - (self.reserved or 0)
        if self.reserved is None and reserved is not None:
            pool.unreserved_count -= self.count
        elif self.reserved is not None and reserved is None:
            pool.unreserved_count += self.count
        self.reserved = reserved

    def limit(self) -> int:
        """How many environments the function's share permits: its own reserved ones, or all that the account has unreserved."""
        return self.pool.limit - self.pool.reserved if self.reserved is None else self.reserved

    def free(self) -> int:
        """How many more may be started. Negative after a limit was lowered."""
        used = self.pool.unreserved_count if self.reserved is None else self.count
        return min(self.limit() - used, self.pool.limit - self.pool.count)

    def refill(self, now: float) -> int:
        """The scaling rate: a bucket of ``burst`` environments, filled within ten seconds. Returns what is in it."""
        if now > self.tokens_at:
            self.tokens = min(float(self.burst), self.tokens + (now - self.tokens_at) * self.burst / 10)
            self.tokens_at = now
        return int(self.tokens)

    def is_neighbour(self, other: Function) -> bool:
        """Whether both draw on the same share, so that an idle environment of one may make room for the other."""
        return self is other or (self.reserved is None and other.reserved is None and self.pool is other.pool)


class Revision:
    __slots__ = (
        "attempt",
        "demands",
        "environments",
        "failures",
        "function",
        "idle_seconds",
        "name",
        "retry_at",
        "review_at",
        "start_seconds",
        "superseded",
    )

    def __init__(self, name: str, *, idle_seconds: float, start_seconds: float) -> None:
        self.name = name
        self.function: Function | None = None
        """None until the shell has said whose it is; nothing is decided before."""
        self.superseded = False
        self.idle_seconds = idle_seconds
        self.start_seconds = start_seconds
        self.demands: dict[str, tuple[Demand, float]] = {}
        """By gateway, with the time of arrival; only those with waiters."""
        self.environments: dict[str, Environment] = {}
        self.attempt = 0
        """Counts the starts that are told apart as failures: what was ordered together fails once."""
        self.failures = 0
        self.retry_at = 0.0
        self.review_at: float | None = None

    def waiting(self) -> int:
        return sum(demand.waiting for demand, _ in self.demands.values())

    def oldest_seconds(self, now: float) -> float:
        """Age of the oldest waiter."""
        return max((now - at + demand.oldest_ms / 1000 for demand, at in self.demands.values()), default=0.0)

    def count(self, phase: Phase) -> int:
        return sum(environment.phase == phase for environment in self.environments.values())


class Environment:
    __slots__ = ("asked_at", "attempt", "due", "environment_id", "finish", "given_up", "phase", "revision")

    def __init__(self, environment_id: str, revision: Revision, phase: Phase) -> None:
        self.environment_id = environment_id
        self.revision = revision
        self.phase: Phase = phase
        self.attempt = revision.attempt
        self.asked_at: float | None = None
        """When a RETIRE was sent that has no answer yet."""
        self.finish = False
        """To be retired whether busy or not, and to be asked until it is."""
        self.given_up = False
        """Starting, and the provider was told to end it: it serves nobody, and counts until it is gone."""
        self.due = 0.0
        """Starting: the start deadline. Ready: when it may have been idle for its window."""
        revision.environments[environment_id] = self
        enter(revision, 1)

    def leave(self) -> None:
        """It is gone."""
        del self.revision.environments[self.environment_id]
        enter(self.revision, -1)

    def retiring(self) -> bool:
        return self.asked_at is not None or self.finish or self.phase == "draining"


def function_of(revision: str) -> str:
    """The function key that a revision names: what is before its first dot (see :class:`kappa_core.spec.VersionSpec`)."""
    return revision.partition(".")[0]


def adopt(revision: Revision, function: Function) -> None:
    """The revision is one of this function's."""
    if revision.function is not None:
        return
    revision.function = function
    function.revisions[revision.name] = revision
    enter(revision, len(revision.environments))


def enter(revision: Revision, by: int) -> None:
    """Count environments into the function's and the account's books."""
    function = revision.function
    if function is None:
        return
    function.count += by
    function.pool.count += by
    if function.reserved is None:
        function.pool.unreserved_count += by
