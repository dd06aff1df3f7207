"""What one seed is about: sizes, limits, clients, and which faults there are. Drawn once, so that a seed can be read off its plan."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Plan:
    gateways: int
    functions: dict[str, int | None]
    """With their reserved concurrency."""
    account: int
    shared: bool
    """One supervisor hosts all environments of a revision, as in embedded mode."""
    delay: float
    """Typical delay of a connection, seconds; each draws its own around it."""
    peer_delay: float
    """Between gateways."""
    far_delay: float
    """Between supervisors and the last gateway."""
    start: tuple[float, float]
    init: tuple[float, float]
    duration: tuple[float, float]
    clients: int
    serial: bool
    """Every client waits for its answer before it sends the next."""
    requests: int
    """Per client."""
    pause: float
    faults: int
    """How many of the faults of :mod:`simulation.faults` strike while there is load; 0: nothing is ever broken."""
    updates: int
    limit_changes: int
    provisioned: dict[str, int] = field(default_factory=dict)
    """By function: environments that are to be kept ready for its newest revision."""
    provisioned_changes: int = 0
    duplicate_dials: float = 0.0
    start_failures: float = 0.0
    never_starts: float = 0.0
    init_crashes: float = 0.0
    crashes: float = 0.0
    timeouts: float = 0.0
    active: bool = True
    """Whether what may fail by chance still does; over when the world has healed."""
    capacity_wait: float = 8.0
    idle_seconds: float = 1.5
    start_seconds: float = 5.0
    load_seconds: float = field(default=6.0)


def draw(chance: random.Random) -> Plan:
    faults = chance.choice((0, 0, 1, 2, 4, 8))
    functions = {f"f{number}": chance.choice((None, None, 1, 1, 2, 3)) for number in range(chance.choice((1, 1, 2, 3)))}
    reserved = sum(amount or 0 for amount in functions.values())
    clients = chance.choice((1, 2, 3, 5, 8))
    delay = chance.choice((0.0002, 0.001, 0.005, 0.02))
    plan = Plan(
        gateways=chance.choice((1, 2, 3, 3, 3)),
        functions=functions,
        account=reserved + chance.choice((1, 2, 3, 5)),
        shared=chance.random() < 0.4,
        delay=delay,
        peer_delay=min(0.03, delay * chance.choice((1, 1, 10))),
        far_delay=chance.choice((delay, delay, delay, 0.1)),
        start=chance.choice(((0.005, 0.02), (0.05, 0.5), (0.2, 1.5))),
        init=chance.choice(((0.002, 0.02), (0.05, 0.4))),
        duration=chance.choice(((0.001, 0.01), (0.01, 0.2), (0.2, 1.5))),
        clients=clients,
        serial=chance.random() < 0.5,
        requests=max(3, 30 // clients),
        pause=chance.choice((0.0, 0.01, 0.1, 0.5)),
        faults=faults,
        updates=chance.choice((0, 0, 0, 1, 2)),
        limit_changes=chance.choice((0, 0, 0, 1, 2)),
    )
    if faults:
        plan.duplicate_dials = chance.choice((0.0, 0.0, 0.3))
        plan.start_failures = chance.choice((0.0, 0.0, 0.1, 0.5))
        plan.never_starts = chance.choice((0.0, 0.0, 0.1))
        plan.init_crashes = chance.choice((0.0, 0.0, 0.1, 0.5))
        plan.crashes = chance.choice((0.0, 0.05))
    plan.timeouts = chance.choice((0.0, 0.0, 0.1))
    if chance.random() < 0.1:
        contend(plan, chance)
    elif chance.random() < 0.4:
        provision(plan, chance)
    return plan


def provision(plan: Plan, chance: random.Random) -> None:
    """Environments that are kept ready, within every share."""
    rest = plan.account - sum(amount or 0 for amount in plan.functions.values())
    for function, reserved in plan.functions.items():
        number = plan.provisioned[function] = min(chance.choice((0, 1, 1, 2)), rest if reserved is None else reserved)
        rest -= number if reserved is None else 0
    plan.provisioned_changes = chance.choice((0, 0, 1, 2))


def contend(plan: Plan, chance: random.Random) -> None:
    """Many short invocations at three gateways for few environments over a slow network: everything crosses everything."""
    plan.gateways = 3
    plan.provisioned, plan.provisioned_changes = {}, 0
    plan.functions = {"f0": chance.choice((1, 2, 2, 3))}
    plan.account = 4
    plan.peer_delay = chance.choice((0.005, 0.02, 0.05))
    plan.delay, plan.start, plan.init, plan.duration = 0.02, (0.005, 0.02), (0.002, 0.02), (0.001, 0.02)
    plan.clients, plan.serial, plan.requests, plan.pause = 4, True, chance.choice((15, 40)), 0.05
