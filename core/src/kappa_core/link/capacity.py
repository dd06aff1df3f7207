"""The scaler's books: which environments there are, of which revision, function and account, and how much room the limits leave.

The scaler (:mod:`kappa_core.link.scale`) decides with it and is the only one to change it. Every environment is counted from the
moment it is ordered until it is known to be gone, whatever phase it is in, so room is never given away twice.

A function with reserved concurrency may have that many environments, and nobody else may use its share; all others share what the
account has left. (Provisioned concurrency will be lent before both, from the function's own share.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from kappa_core.limits import ENVIRONMENTS_PER_10_SECONDS
from kappa_core.link.frames import Demand

Phase = Literal["starting", "ready", "draining"]
"""``ready`` is idle or busy: the supervisor alone knows which."""

ACCOUNT_REASON: Final = "ConcurrentInvocationLimitExceeded"
RESERVED_REASON: Final = "ReservedFunctionConcurrentInvocationLimitExceeded"
BACKOFF_SECONDS: Final = 0.5
"""Pause after the second failed start in a row; it doubles with each further one."""
BACKOFF_MOST_SECONDS: Final = 15.0
GONE_KEPT: Final = 10_000
"""Environments that are remembered to be gone: a word of them may still be under way."""


class Known(msgspec.Struct, frozen=True):
    """An environment that exists or has been ordered, as a new holder of the scaler finds it."""

    environment_id: str
    revision: str
    phase: Phase


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
    __slots__ = ("burst", "count", "key", "pool", "removed", "reserved", "revisions", "tokens", "tokens_at")

    def __init__(self, key: str, pool: Pool, *, burst: int = ENVIRONMENTS_PER_10_SECONDS) -> None:
        self.key = key
        self.pool = pool
        self.reserved: int | None = None
        self.removed = False
        """Deleted; counted until its last environment is gone."""
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

    def throttle_reason(self) -> str:
        """ThrottleReason of a waiter beyond the limit."""
        return ACCOUNT_REASON if self.reserved is None else RESERVED_REASON

    def free(self) -> int:
        """How many more may be started. Negative after a limit was lowered."""
        return min(self.limit() - self._used(), self.pool.limit - self.pool.count)

    def excess(self) -> int:
        """How many exist beyond the share's limit, after it was lowered."""
        return max(0, self._used() - self.limit())

    def _used(self) -> int:
        return self.pool.unreserved_count if self.reserved is None else self.count

    def refill(self, now: float) -> int:
        """The scaling rate: a bucket of ``burst`` environments, filled within ten seconds. Returns what is in it."""
        if now > self.tokens_at:
            self.tokens = min(float(self.burst), self.tokens + (now - self.tokens_at) * self.burst / 10)
            self.tokens_at = now
        return int(self.tokens)


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

    def serving(self) -> int:
        """Environments that are being started for the waiters."""
        return sum(
            environment.phase == "starting" and not environment.given_up and not environment.finish
            for environment in self.environments.values()
        )

    def failed(self, attempt: int, now: float) -> None:
        """A start failed: the next one waits, ever longer."""
        if attempt == self.attempt:
            self.attempt += 1
            self.failures += 1
            pause = BACKOFF_SECONDS * 2 ** (self.failures - 2) if self.failures > 1 else 0.0
            self.retry_at = now + min(pause, BACKOFF_MOST_SECONDS)

    def count(self, phase: Phase) -> int:
        return sum(environment.phase == phase for environment in self.environments.values())


class Environment:
    __slots__ = ("asked_at", "attempt", "due", "environment_id", "finish", "given_up", "phase", "ready_at", "revision")

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
        self.ready_at = 0.0
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


def uid_of(revision: str) -> str:
    """The function's uid that a revision names: what is before its first dot (see :class:`kappa_core.spec.VersionSpec`)."""
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


class Books:
    """Everything that is counted, by name."""

    __slots__ = (
        "_burst",
        "_function_of",
        "_idle_seconds",
        "_start_seconds",
        "environments",
        "functions",
        "gone",
        "pools",
        "revisions",
    )

    def __init__(self, *, function_of: Callable[[str], str], burst: int, idle_seconds: float, start_seconds: float) -> None:
        self._function_of = function_of
        self._burst = burst
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds
        self.pools: dict[str, Pool] = {}
        self.functions: dict[str, Function] = {}
        self.revisions: dict[str, Revision] = {}
        self.environments: dict[str, Environment] = {}
        self.gone: dict[str, None] = {}

    def pool(self, name: str) -> Pool:
        """A pool that nobody has told the limit of permits nothing."""
        if name not in self.pools:
            self.pools[name] = Pool(name, 0)
        return self.pools[name]

    def new_function(self, key: str, pool: str) -> Function:
        function = self.functions[key] = Function(key, self.pool(pool), burst=self._burst)
        for revision in self.revisions.values():
            if self._function_of(revision.name) == key:
                adopt(revision, function)
        return function

    def revision(self, name: str) -> Revision:
        revision = self.revisions.get(name)
        if revision is None:
            revision = Revision(name, idle_seconds=self._idle_seconds, start_seconds=self._start_seconds)
            self.revisions[name] = revision
            if (function := self.functions.get(self._function_of(name))) is not None:
                adopt(revision, function)
        return revision

    def drop_unused(self, revision: Revision) -> None:
        """Forget a revision that is over."""
        if revision.environments or revision.demands or not (revision.superseded or revision.function is None):
            return
        if self.revisions.pop(revision.name, None) is None or (function := revision.function) is None:
            return
        del function.revisions[revision.name]
        self.drop_removed(function)

    def drop_removed(self, function: Function) -> None:
        """Forget a deleted function once nothing of it is left."""
        if function.removed and not function.revisions:
            self.functions.pop(function.key, None)
            function.pool.functions.pop(function.key, None)

    def add(self, environment_id: str, revision: Revision, phase: Phase) -> Environment:
        environment = self.environments[environment_id] = Environment(environment_id, revision, phase)
        return environment

    def forget(self, environment: Environment) -> None:
        """Count it no more. It may still exist: whoever speaks of it again is believed."""
        del self.environments[environment.environment_id]
        environment.leave()

    def remove(self, environment: Environment) -> None:
        """It is gone for good: a late word of it is not believed."""
        self.forget(environment)
        self.gone[environment.environment_id] = None
        if len(self.gone) > GONE_KEPT:
            del self.gone[next(iter(self.gone))]

    def neighbours(self, function: Function) -> list[Environment]:
        """The environments that draw on the same share as this function's."""
        functions = [function] if function.reserved is not None else function.pool.functions.values()
        return [
            environment
            for other in functions
            if other is function or other.reserved is None
            for revision in other.revisions.values()
            for environment in revision.environments.values()
        ]
