"""The scaler's books: which environments there are, of which revision, function and account, and how much room the limits leave.

The scaler (:mod:`kappa_core.link.scale`) decides with it and is the only one to change it. Every environment is counted from the
moment it is ordered until it is known to be gone, whatever phase it is in, so room is never given away twice.

A function with reserved concurrency may have that many environments, and nobody else may use its share; all others share what the
account has left. Provisioned concurrency is set aside from the share of its function: environments that start on demand share the
rest, whether those that are provisioned are up or not. What kind an environment is, its id says (:mod:`kappa_core.spec`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from kappa_core.limits import ENVIRONMENTS_PER_10_SECONDS
from kappa_core.link.frames import Demand
from kappa_core.link.pace import Pace
from kappa_core.spec import initialization_type

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

    __slots__ = (
        "count",
        "functions",
        "limit",
        "name",
        "provisioned",
        "reserved",
        "unreserved_count",
        "unreserved_provisioned",
    )

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.reserved = 0
        """Sum of what functions have reserved."""
        self.count = 0
        self.unreserved_count = 0
        """Environments of functions without reserved concurrency."""
        self.provisioned = 0
        """Sum of what is to be provisioned for functions without reserved concurrency."""
        self.unreserved_provisioned = 0
        """Provisioned environments of functions without reserved concurrency."""
        self.functions: dict[str, Function] = {}


class Function:
    __slots__ = (
        "burst",
        "count",
        "key",
        "pool",
        "provisioned",
        "provisioned_count",
        "removed",
        "reserved",
        "revisions",
        "tokens",
        "tokens_at",
    )

    def __init__(self, key: str, pool: Pool, *, burst: int = ENVIRONMENTS_PER_10_SECONDS) -> None:
        self.key = key
        self.pool = pool
        self.reserved: int | None = None
        self.removed = False
        """Deleted; counted until its last environment is gone."""
        self.revisions: dict[str, Revision] = {}
        self.count = 0
        """Environments in any phase."""
        self.provisioned = 0
        """Sum of what is to be provisioned for its revisions."""
        self.provisioned_count = 0
        """Provisioned environments in any phase."""
        self.burst = burst
        self.tokens = float(burst)
        self.tokens_at = 0.0
        pool.functions[key] = self

    def reserve(self, reserved: int | None) -> None:
        pool = self.pool
        pool.reserved += (reserved or 0) - (self.reserved or 0)
        moves = int(self.reserved is not None) - int(reserved is not None)
        pool.unreserved_count += moves * self.count
        pool.unreserved_provisioned += moves * self.provisioned_count
        pool.provisioned += moves * self.provisioned
        self.reserved = reserved

    def provision(self, revision: Revision, number: int) -> None:
        """Set aside so many environments of one revision."""
        by = number - revision.provision.target
        revision.provision.wanted_anew(number)
        self.provisioned += by
        if self.reserved is None:
            self.pool.provisioned += by

    def share(self) -> int:
        """How many environments of any kind it may have: its own reserved ones, or with others all that the account has unreserved."""
        return self.pool.limit - self.pool.reserved if self.reserved is None else self.reserved

    def limit(self) -> int:
        """How many environments on demand the function's share permits besides what is set aside as provisioned."""
        return self.share() - (self.pool.provisioned if self.reserved is None else self.provisioned)

    def throttle_reason(self) -> str:
        """ThrottleReason of a waiter beyond the limit."""
        return ACCOUNT_REASON if self.reserved is None else RESERVED_REASON

    def free(self) -> int:
        """How many more may be started on demand. Negative after a limit was lowered."""
        return min(self.limit() - self._on_demand(), self.room())

    def room(self) -> int:
        """How many more of any kind fit into the share and the account: what is to be provisioned may take all of it."""
        return min(self.share() - self._used(), self.pool.limit - self.pool.count)

    def excess(self) -> int:
        """How many exist beyond what the share permits, after a limit was lowered or more was set aside."""
        return max(0, self._on_demand() - max(0, self.limit()), self._used() - self.share())

    def _used(self) -> int:
        return self.pool.unreserved_count if self.reserved is None else self.count

    def _on_demand(self) -> int:
        provisioned = self.pool.unreserved_provisioned if self.reserved is None else self.provisioned_count
        return self._used() - provisioned

    def refill(self, now: float) -> int:
        """The scaling rate: a bucket of ``burst`` environments, filled within ten seconds. Returns what is in it."""
        if now > self.tokens_at:
            self.tokens = min(float(self.burst), self.tokens + (now - self.tokens_at) * self.burst / 10)
            self.tokens_at = now
        return int(self.tokens)


class Provision:
    """The provisioned concurrency of one revision."""

    __slots__ = ("cause", "failures", "hold_at", "retry_at", "start_seconds", "target")

    def __init__(self) -> None:
        self.target = 0
        """How many environments are to be kept ready."""
        self.start_seconds = 0.0
        """The start deadline of one: its init may take longer than that of an environment on demand."""
        self.failures = 0
        """Starts in a row that failed. On their own: that an init fails when nobody waits for it says nothing to those who wait, whose
        invocation repeats it and is told."""
        self.cause = ""
        """Why the last start failed; empty after one that did not."""
        self.retry_at = 0.0
        self.hold_at: float | None = None
        """When what is missing is looked at again."""

    def wanted_anew(self, target: int) -> None:
        """Somebody has asked for another number: what went wrong before is no reason to wait."""
        self.target = target
        self.succeeded()

    def succeeded(self) -> None:
        self.failures, self.cause, self.retry_at = 0, "", 0.0

    def failed(self, cause: str, now: float) -> None:
        """A start failed: from now on one at a time, ever more slowly. What was started together fails once."""
        self.cause = cause
        if now < self.retry_at:
            return
        self.failures += 1
        self.retry_at = now + min(BACKOFF_SECONDS * 2 ** min(self.failures - 1, 10), BACKOFF_MOST_SECONDS)


class Revision:
    __slots__ = (
        "attempt",
        "demands",
        "environments",
        "failures",
        "function",
        "idle_seconds",
        "name",
        "pace",
        "provision",
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
        self.pace = Pace()
        self.provision = Provision()

    def waiting(self) -> int:
        return sum(demand.waiting for demand, _ in self.demands.values())

    def oldest_seconds(self, now: float) -> float:
        """Age of the oldest waiter."""
        return max((now - at + demand.oldest_ms / 1000 for demand, at in self.demands.values()), default=0.0)

    def serving(self) -> int:
        """Environments that are being started for the waiters. What is to be provisioned is not started for them, and may take long."""
        return sum(environment.is_awaited() for environment in self.environments.values())

    def provisioned(self) -> list[Environment]:
        """The provisioned environments that there are, those that end included."""
        return [environment for environment in self.environments.values() if environment.provisioned]

    def kept(self) -> list[Environment]:
        """The provisioned environments that are up, or are coming up, and are to stay."""
        return [
            environment
            for environment in self.provisioned()
            if environment.phase != "draining" and not (environment.finish or environment.given_up)
        ]

    def head_start(self, now: float) -> float:
        """Seconds that have passed since the environments that are being started for the waiters were ordered, in sum."""
        return sum(
            now - (environment.due - self.start_seconds) for environment in self.environments.values() if environment.is_awaited()
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
    __slots__ = (
        "asked_at",
        "attempt",
        "due",
        "environment_id",
        "finish",
        "given_up",
        "phase",
        "provisioned",
        "ready_at",
        "revision",
    )

    def __init__(self, environment_id: str, revision: Revision, phase: Phase) -> None:
        self.environment_id = environment_id
        self.revision = revision
        self.phase: Phase = phase
        self.provisioned = initialization_type(environment_id) == "provisioned-concurrency"
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
        enter(revision.function, 1, provisioned=int(self.provisioned))

    def leave(self) -> None:
        """It is gone."""
        del self.revision.environments[self.environment_id]
        enter(self.revision.function, -1, provisioned=-int(self.provisioned))

    def is_awaited(self) -> bool:
        """It is being started for those who wait."""
        return self.phase == "starting" and not (self.given_up or self.finish or self.provisioned)

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
    enter(function, len(revision.environments), provisioned=len(revision.provisioned()))


def enter(function: Function | None, by: int, *, provisioned: int) -> None:
    """Count ``by`` environments, ``provisioned`` of them such, into the function's and the account's books."""
    if function is None:
        return
    function.count += by
    function.provisioned_count += provisioned
    function.pool.count += by
    if function.reserved is None:
        function.pool.unreserved_count += by
        function.pool.unreserved_provisioned += provisioned


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
        if revision.environments or revision.demands or revision.provision.target:
            return
        if not (revision.superseded or revision.function is None):
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

    def neighbours(self, function: Function, *, provisioned: bool = False) -> list[Environment]:
        """The environments on demand that draw on the same share as this function's; or those that are ``provisioned`` from it."""
        functions = [function] if function.reserved is not None else function.pool.functions.values()
        return [
            environment
            for other in functions
            if other is function or other.reserved is None
            for revision in other.revisions.values()
            for environment in revision.environments.values()
            if environment.provisioned == provisioned
        ]
