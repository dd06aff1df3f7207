"""The simulated cluster: gateways, supervisors, provider, Lease, clients and faults of one seed, from the first request to silence.

One history has four parts: load with faults; healing, when everything broken works again; a second, calm wave of requests that must
all be served or rightly throttled; silence, in which every environment must go. See :func:`simulate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from kappa_core.link.dispatch import Dispatcher
from kappa_core.link.parking import Parking
from kappa_core.link.scale import Scaler
from simulation import faults
from simulation.checks import Checks, Request, is_provisioned
from simulation.gateways import Gateway
from simulation.plan import Plan, draw
from simulation.supervisors import Provider, Supervisor
from simulation.world import Violation, World

HEAL_SECONDS = 25.0
"""From the end of the load to the second wave: longer than any back-off, start deadline and wait."""
CALM_SECONDS = 8.0
SILENCE_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines under test; broken ones show that the checks can fail."""

    parking: Callable[..., Parking] = Parking
    dispatcher: Callable[..., Dispatcher] = Dispatcher
    scaler: Callable[..., Scaler] = Scaler


class Cluster:
    __slots__ = (
        "_environments",
        "_learns",
        "_links",
        "_requests",
        "addresses",
        "checks",
        "epoch",
        "followers",
        "gateways",
        "holder",
        "lives",
        "machines",
        "partitions",
        "peer_partitions",
        "plan",
        "provider",
        "revisions",
        "supervisors",
        "world",
    )

    def __init__(self, world: World, plan: Plan, machines: Machines) -> None:
        self.world = world
        self.plan = plan
        self.machines = machines
        self.addresses = [f"g{number}" for number in range(plan.gateways)]
        self.checks = Checks(world, plan.account, plan.functions, plan.provisioned)
        self.checks.thrifty = (
            plan.gateways == 1
            and plan.far_delay <= plan.delay
            and not (plan.faults or plan.updates or plan.timeouts or plan.provisioned)
        )
        self.provider = Provider(self)
        self.supervisors: list[Supervisor] = []
        self.partitions: set[tuple[str, str]] = set()
        """(supervisor, address) that cannot reach each other; an empty supervisor stands for all."""
        self.peer_partitions: set[str] = set()
        """Addresses that no other gateway can reach."""
        self.revisions: dict[str, int] = dict.fromkeys(plan.functions, 1)
        self.followers: dict[str, Callable[[], None]] = {}
        """Request → what its client does when it is answered."""
        self.epoch = 0
        self._learns = dict.fromkeys(self.addresses, 0.0)
        """When a gateway's last news of an update come."""
        self.holder: Gateway | None = None
        self._links = self._environments = self._requests = 0
        self.lives = dict.fromkeys(self.addresses, 1)
        self.gateways = {address: Gateway(self, address, 1) for address in self.addresses}
        self.move_lease()

    # -- chance ------------------------------------------------------------------------------------------------------
    def small(self) -> float:
        return self.world.random.uniform(0.0005, 0.02)

    def delay(self, typical: float) -> float:
        return typical * self.world.random.choice((0.3, 1.0, 1.0, 3.0))

    def start_seconds(self) -> float:
        return self.world.random.uniform(*self.plan.start)

    def init_seconds(self) -> float:
        return self.world.random.uniform(*self.plan.init)

    # -- names -------------------------------------------------------------------------------------------------------
    def next_link(self) -> int:
        self._links += 1
        return self._links

    def new_environment_id(self) -> str:
        self._environments += 1
        return f"e{self._environments}"

    def revision_of(self, function: str) -> str:
        return f"{function}.r{self.revisions[function]}"

    def function_of(self, revision: str) -> str:
        return revision.partition(".")[0]

    # -- who reaches whom --------------------------------------------------------------------------------------------
    def reach(self, supervisor: str, address: str) -> Gateway | None:
        gateway = self.gateways[address]
        cut = (supervisor, address) in self.partitions or ("", address) in self.partitions
        return gateway if gateway.alive and not cut else None

    def reach_peer(self, one: Gateway, other: Gateway) -> bool:
        return other.alive and not {one.address, other.address} & self.peer_partitions

    def shared_supervisor(self, revision: str) -> Supervisor | None:
        for supervisor in self.supervisors:
            if supervisor.alive and supervisor.revision == revision:
                return supervisor
        return None

    # -- the Lease ---------------------------------------------------------------------------------------------------
    def move_lease(self) -> None:
        """The Lease goes to some gateway that lives; the old holder may believe in its own a little longer."""
        able = [gateway for gateway in self.gateways.values() if gateway.alive and gateway is not self.holder]
        able = [gateway for gateway in able if gateway.address not in self.peer_partitions] or able
        if not able:
            return
        old = self.holder
        if old is not None and old.alive:
            self.world.after(self.world.random.choice((0.0, 0.0, 0.5)), self._stand_down, old)
        self.holder = self.world.random.choice(able)
        self.epoch += 1
        self.provider.fence = self.epoch
        self.holder.take_over(self.epoch)
        for gateway in self.gateways.values():
            if gateway.alive and gateway is not old:
                self.world.after(self.small(), gateway.holder_changed)

    def _stand_down(self, old: Gateway) -> None:
        if old.alive and self.holder is not old:
            old.stand_down()
            old.holder_changed()

    def holder_address(self) -> str:
        return self.holder.address if self.holder is not None else self.addresses[0]

    def environment_ended(self, environment_id: str, *, was_ready: bool) -> None:
        for gateway in self.gateways.values():
            if gateway.alive and (gateway is self.holder or gateway.scaler.acting):
                gateway.environment_ended(environment_id, was_ready=was_ready)

    # -- functions ---------------------------------------------------------------------------------------------------
    def configure(self, scaler: Scaler) -> None:
        """What a gateway reads from its index."""
        now = self.world.now
        scaler.on_pool("account", self.plan.account, now)
        for function, reserved in self.plan.functions.items():
            scaler.on_function(function, "account", reserved, now)
            for number in range(1, self.revisions[function] + 1):
                scaler.on_revision(f"{function}.r{number}", function, now)
                if number < self.revisions[function]:
                    scaler.on_revision_superseded(f"{function}.r{number}", now)
            scaler.on_provisioned(function, self.provisioned_targets(function), now)

    def provisioned_targets(self, function: str) -> dict[str, tuple[int, float]]:
        number = self.plan.provisioned.get(function, 0)
        return {self.revision_of(function): (number, self.plan.start_seconds)} if number else {}

    def update(self) -> None:
        """A new revision of some function; gateways learn of it one after the other, and of one update after the other."""
        function = self.world.random.choice(list(self.plan.functions))
        old = self.revision_of(function)
        self.revisions[function] += 1
        new = self.revision_of(function)
        self.checks.revised(new)
        self.world.log("update", old, "→", new)
        for address, gateway in self.gateways.items():
            at = self._learns[address] = max(self._learns[address], self.world.now + self.small())
            self.world.at(at, self._superseded, gateway, function, old, new)

    def _superseded(self, gateway: Gateway, function: str, old: str, new: str) -> None:
        if gateway.alive:
            gateway.superseded(old, new, function)

    def change_limit(self) -> None:
        able = [function for function, reserved in self.plan.functions.items() if reserved is not None]
        if not able:
            return
        function = self.world.random.choice(able)
        provisioned = self.plan.provisioned
        most = self.plan.account - sum(amount or 0 for name, amount in self.plan.functions.items() if name != function)
        others = sum(number for name, number in provisioned.items() if self.plan.functions[name] is None)
        reserved = self.world.random.randint(provisioned.get(function, 0), max(0, most - max(1, others)))
        self.world.log("limit", function, reserved)
        self.plan.functions[function] = reserved
        self.checks.limit_changed(function, reserved)
        for gateway in self.gateways.values():
            if gateway.alive:
                gateway.limit_changed(function, reserved)

    def change_provisioned(self) -> None:
        """Within the share, as the API sees to it."""
        function = self.world.random.choice(list(self.plan.functions))
        reserved, provisioned = self.plan.functions[function], self.plan.provisioned
        rest = self.plan.account - sum(amount or 0 for amount in self.plan.functions.values())
        others = sum(number for name, number in provisioned.items() if name != function and self.plan.functions[name] is None)
        number = self.world.random.randint(0, min(3, rest - others if reserved is None else reserved))
        self.world.log("provisioned", function, number)
        provisioned[function] = number
        self.checks.provisioned_changed(function, number)
        for gateway in self.gateways.values():
            if gateway.alive:
                gateway.provisioned_changed(function)

    # -- clients -----------------------------------------------------------------------------------------------------
    def client(self, name: str, requests: int, *, until: float) -> None:
        """One client: serial or not, at whatever gateway it reaches."""
        if requests <= 0 or self.world.now > until:
            return
        world, plan = self.world, self.plan
        alive = [gateway for gateway in self.gateways.values() if gateway.alive]
        if not alive:
            world.after(0.5, lambda: self.client(name, requests, until=until))
            return
        self._requests += 1
        request_id = f"{name}-{self._requests}"
        ending = "park"
        if world.chance(plan.timeouts):
            ending = world.random.choice(("restart", "end"))
        elif plan.active and world.chance(plan.crashes):
            ending = "crash"
        request = Request(
            request_id,
            world.random.choice(list(plan.functions)),
            "",
            "",
            world.now,
            world.random.uniform(*plan.duration),
            calm=not plan.faults or not plan.active,
            ending=ending,
        )
        pause = world.random.uniform(0, plan.pause)

        def follow() -> None:
            world.after(pause, lambda: self.client(name, requests - 1, until=until))

        if plan.serial:
            self.followers[request_id] = follow
        else:
            follow()
        world.random.choice(alive).invoke(request)

    def answered(self, request_id: str) -> None:
        if (follow := self.followers.pop(request_id, None)) is not None:
            follow()


def simulate(seed: int, *, machines: Machines | None = None, change: Callable[[Plan], None] | None = None) -> World:
    """Run the history of one seed, of its plan or of what ``change`` made of it. Raises Violation; the world that it carries in
    ``args[1]`` has the trace."""
    world = World(seed)
    plan = draw(world.random)
    if change is not None:
        change(plan)
    world.log("plan", plan)
    try:
        cluster = Cluster(world, plan, machines or Machines())
        _load(cluster)
        world.run(plan.load_seconds)
        faults.heal(cluster)
        world.run(plan.load_seconds + HEAL_SECONDS)
        _check_answered(cluster)
        calm_from = world.now
        for number in range(3):
            world.after(world.random.uniform(0, 0.5), _start_client, cluster, f"calm{number}", 3, calm_from + CALM_SECONDS)
        world.run(calm_from + CALM_SECONDS + plan.capacity_wait + 2)
        _check_answered(cluster)
        world.run(world.now + SILENCE_SECONDS)
        _check_silence(cluster)
    except AssertionError as broken:
        broken.args = (f"seed {seed}: {broken}", world)
        raise
    return world


def _load(cluster: Cluster) -> None:
    world, plan = cluster.world, cluster.plan
    for number in range(plan.clients):
        world.after(world.random.uniform(0, 1), _start_client, cluster, f"c{number}", plan.requests, plan.load_seconds)
    for _ in range(plan.updates):
        world.after(world.random.uniform(0, plan.load_seconds), cluster.update)
    for _ in range(plan.limit_changes):
        world.after(world.random.uniform(0, plan.load_seconds), cluster.change_limit)
    for _ in range(plan.provisioned_changes):
        world.after(world.random.uniform(0, plan.load_seconds), cluster.change_provisioned)
    for _ in range(plan.faults):
        world.after(world.random.uniform(0, plan.load_seconds), faults.strike, cluster)


def _start_client(cluster: Cluster, name: str, requests: int, until: float) -> None:
    cluster.client(name, requests, until=until)


def _check_answered(cluster: Cluster) -> None:
    for request in cluster.checks.requests.values():
        if not request.outcome:
            raise Violation(f"{request.request_id} was never answered")


def _check_silence(cluster: Cluster) -> None:
    kept = {name: books.revision for name, books in cluster.provider.books.items() if is_provisioned(name)}
    left = sorted(cluster.provider.books.keys() - kept)
    if left:
        raise Violation(f"environments are left after all is quiet: {left}")
    wanted = {cluster.revision_of(function): number for function, number in cluster.plan.provisioned.items() if number}
    if Counter(kept.values()) != wanted:
        raise Violation(f"{kept} are provisioned where {wanted} are to be")
    for gateway in cluster.gateways.values():
        if gateway.dispatcher.in_flight() or gateway.dispatcher.waiting():
            raise Violation(f"{gateway.name} still holds invocations")
        for revision in list(cluster.revisions):
            for number in range(1, cluster.revisions[revision] + 1):
                counted = gateway.scaler.environments(f"{revision}.r{number}")
                if gateway is cluster.holder and counted.keys() - kept.keys():
                    raise Violation(f"{gateway.name} still counts environments")
