"""What a dispatcher knows: supervisors with their environments, invocations, and per revision who waits and what is idle.

Plain records that :mod:`kappa_core.link.dispatch` reads and changes, and :mod:`kappa_core.link.news` for it; every decision is made there.
"""

from __future__ import annotations

import math
from collections import deque

from kappa_core.link.pace import RunTimes
from kappa_core.spec import initialization_type


class Environment:
    __slots__ = ("environment_id", "epoch", "provisioned", "queue", "running", "stream", "supervisor", "used")

    def __init__(self, supervisor: Supervisor, stream: int, environment_id: str, queue: Queue) -> None:
        self.supervisor = supervisor
        self.stream = stream
        self.environment_id = environment_id
        self.provisioned = initialization_type(environment_id) == "provisioned-concurrency"
        self.queue = queue
        self.epoch = 0
        self.used = 0.0
        """When it was last used; orders the idle ones."""
        self.running: Invocation | None = None
        """What was dispatched to it and has not been followed by a word that it is no longer there."""


class Supervisor:
    __slots__ = ("dial", "environments", "link", "lost_at", "name", "queue")

    def __init__(self, name: str) -> None:
        self.name = name
        self.link: int | None = None
        self.dial = 0
        self.lost_at = 0.0
        self.queue: Queue | None = None
        self.environments: dict[int, Environment] = {}


class Invocation:
    __slots__ = ("arrived", "covered_by", "environment", "epoch", "queue", "request_id")

    def __init__(self, request_id: str, queue: Queue, arrived: float) -> None:
        self.request_id = request_id
        self.queue = queue
        self.arrived = arrived
        self.covered_by = 0
        """The first DEMAND that counts it as waiting."""
        self.environment: Environment | None = None
        """None while it waits."""
        self.epoch = 0


class Queue:
    """One revision here."""

    __slots__ = (
        "asked",
        "asked_at",
        "came",
        "function_key",
        "idle",
        "revision",
        "running",
        "runs",
        "spoke_at",
        "successor",
        "supervisors",
        "told",
        "waiters",
    )

    def __init__(self, revision: str, function_key: str) -> None:
        self.revision = revision
        self.function_key = function_key
        self.idle: dict[Environment, None] = {}
        """Parked here, last used last, and behind them what is provisioned, likewise: the last one is taken."""
        self.waiters: deque[Invocation] = deque()
        """Oldest first."""
        self.running: dict[str, Invocation] = {}
        self.runs = RunTimes()
        self.supervisors: dict[Supervisor, None] = {}
        """Linked ones."""
        self.successor: str | None = None
        """The revision that serves instead."""
        self.told = 0
        """Waiters in the last DEMAND; -1 where one is due whatever it says."""
        self.asked = 0
        """Environments in the last WANT, 0 after ENOUGH."""
        self.asked_at = 0.0
        self.came = 0
        """Environments that have parked here since that WANT."""
        self.spoke_at = -math.inf
        """When something was last said of who waits: DEMAND, WANT or ENOUGH."""


def arrival(invocation: Invocation) -> float:
    return invocation.arrived


def rank(environment: Environment) -> tuple[bool, float]:
    """The idle environment that has the highest is taken first."""
    return environment.provisioned, environment.used
