"""The simulated supervisors and the provider that starts them: shells around the real Parking, with the truth of what runs.

A supervisor dials every gateway, redials what breaks, runs invocations for as long as the client said, and dies when it is killed.
The provider orders environments with delays and failures, is fenced by the scaler's epoch, and tells the holder of the scaler, some
time later, when the process or pod of an environment has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kappa_core.link.capacity import Known
from kappa_core.link.effects import DropResult, Effect, End, Run, Send, SendHello, SendResult, StartEnvironment, Stop
from kappa_core.link.frames import FrameType, Hello
from simulation.checks import is_provisioned
from simulation.network import Connection, Frame

if TYPE_CHECKING:
    from simulation.cluster import Cluster

REDIAL_SECONDS = 0.2


class Supervisor:
    """One process or pod of a revision."""

    __slots__ = (
        "_epochs",
        "_tick_at",
        "alive",
        "cluster",
        "connections",
        "dials",
        "environments",
        "name",
        "parking",
        "revision",
        "runs",
    )

    def __init__(self, cluster: Cluster, name: str, revision: str) -> None:
        self.cluster = cluster
        self.name = name
        self.revision = revision
        self.parking = cluster.machines.parking()
        self.connections: dict[str, Connection] = {}
        self.environments: dict[int, str] = {}
        self.runs: dict[int, str] = {}
        self._epochs: dict[int, int] = {}
        self.dials: dict[str, int] = {}
        self.alive = True
        self._tick_at: float | None = None
        for address in cluster.addresses:
            cluster.world.after(cluster.small(), self.dial, address)

    # -- links -------------------------------------------------------------------------------------------------------
    def dial(self, address: str) -> None:
        world = self.cluster.world
        if not self.alive or address in self.connections:
            return
        gateway = self.cluster.reach(self.name, address)
        if gateway is None:
            world.after(REDIAL_SECONDS * (0.5 + world.random.random()), self.dial, address)
            return
        self._connect(address, gateway)
        if world.chance(self.cluster.plan.duplicate_dials):
            # The first connection is given up before it answers, and a second one is made: the HELLOs race.
            world.log(self.name, "gives up a connection to", address, "and dials again")
            first = self.connections.pop(address)
            first.closed_for.add(0)
            self._do(self.parking.on_link_down(address, world.now))
            world.after(self.cluster.small() + 3 * first.delay, first.cut)
            self._connect(address, gateway)

    def _connect(self, address: str, gateway: Any) -> None:
        cluster = self.cluster
        delay = cluster.delay(cluster.plan.far_delay if address == cluster.addresses[-1] else cluster.plan.delay)
        name = f"{self.name}-{address}"
        connection = Connection(cluster.world, name, self, gateway, delay=delay, link=cluster.next_link())
        self.connections[address] = connection
        self.dials[address] = self.dials.get(address, 0) + 1
        self._do(self.parking.on_link_up(address, cluster.world.now))

    def on_closed(self, connection: Connection) -> None:
        address = connection.name.rpartition("-")[2]
        if self.connections.get(address) is not connection:
            return
        del self.connections[address]
        if self.alive:
            self.cluster.world.log(self.name, "lost its link to", address)
            self._do(self.parking.on_link_down(address, self.cluster.world.now))
            self.cluster.world.after(self.cluster.small(), self.dial, address)

    def on_frame(self, connection: Connection, frame: Frame) -> None:
        address = connection.name.rpartition("-")[2]
        if not self.alive or self.connections.get(address) is not connection:
            return
        kind, stream, epoch, body = frame
        now, parking = self.cluster.world.now, self.parking
        if kind is FrameType.INVOKE:
            self._do(parking.on_invoke(address, stream, epoch, body, now))
        elif kind is FrameType.WANT:
            self._do(parking.on_want(address, oldest_ms=body.oldest_ms, waiting=body.waiting, now=now))
        elif kind is FrameType.ENOUGH:
            self._do(parking.on_enough(address, now))
        elif kind is FrameType.LEAVING:
            self._do(parking.on_leaving(address, now))
        elif kind is FrameType.RETIRE:
            effects = parking.on_retire(
                address, stream, reason=body.reason, when_busy=body.when_busy, idle_ms=body.idle_ms, now=now
            )
            self._do(effects)

    # -- environments ------------------------------------------------------------------------------------------------
    def start(self, address: str, environment_ids: list[str]) -> None:
        if self.alive:
            self._do(self.parking.on_start(address, environment_ids, self.cluster.world.now))

    def terminate(self) -> None:
        """SIGTERM: drain."""
        if self.alive:
            self._do(self.parking.on_retire("", 0, reason="SIGTERM", when_busy="finish", now=self.cluster.world.now))

    def kill(self) -> None:
        """SIGKILL, or its node is gone."""
        if not self.alive:
            return
        self.alive = False
        self.cluster.world.log(self.name, "is killed")
        for connection in list(self.connections.values()):
            connection.cut(quickly=self.cluster.world.chance(0.5))
        self.connections.clear()
        for environment_id in list(self.environments.values()):
            self._ended(environment_id)
        self.cluster.provider.supervisor_ended(self)

    def _ended(self, environment_id: str) -> None:
        self.cluster.checks.run_ends(environment_id)
        self.cluster.provider.environment_ended(environment_id)

    def _ready(self, stream: int) -> None:
        if self.alive and stream in self.environments:
            self.cluster.provider.is_ready(self.environments[stream], self.revision)
            self._do(self.parking.on_ready(stream, self.cluster.world.now))

    def _gone(self, stream: int, reason: str) -> None:
        if self.alive and stream in self.environments:
            environment_id = self.environments.pop(stream)
            self.runs.pop(stream, None)
            self._ended(environment_id)
            self._do(self.parking.on_gone(stream, reason, self.cluster.world.now))

    def _finish(self, stream: int, request_id: str) -> None:
        if not self.alive or self.runs.get(stream) != request_id:
            return
        world = self.cluster.world
        ending = self.cluster.checks.requests[request_id].ending
        del self.runs[stream]
        self.cluster.checks.run_ends(self.environments[stream])
        if ending == "crash":
            self._gone(stream, "it crashed")
            return
        self._do(self.parking.on_finished(stream, world.now, then=ending))  # type: ignore[arg-type]
        if ending == "restart":
            world.after(self.cluster.init_seconds(), self._ready, stream)
        elif ending == "end":
            world.after(self.cluster.small(), self._gone, stream, "it ended")

    # -- effects -----------------------------------------------------------------------------------------------------
    def _do(self, effects: list[Effect]) -> None:
        world = self.cluster.world
        for effect in effects:
            match effect:
                case Send(to=str(address), kind=kind):
                    if kind is FrameType.PARKED:
                        world.log(self.name, "parks", effect.stream, "epoch", effect.epoch, "at", address)
                        self._check_epoch(effect)
                    self._send(address, (kind, effect.stream, effect.epoch, effect.body))
                case SendHello(address, states):
                    world.log(self.name, "says hello to", address, states)
                    hello = Hello(self.name, 1, 1, self.revision, 1, states, dial=self.dials[address])
                    self._send(address, (FrameType.HELLO, 0, 0, hello))
                case StartEnvironment(stream, environment_id):
                    self.environments[stream] = environment_id
                    if self.cluster.plan.active and world.chance(self.cluster.plan.init_crashes):
                        world.after(self.cluster.small(), self._gone, stream, "it exited while it started")
                    else:
                        world.after(self.cluster.init_seconds(), self._ready, stream)
                case Run(stream, request_id):
                    world.log(self.name, "runs", request_id, "on", self.environments[stream])
                    self.cluster.checks.run_begins(self.environments[stream], request_id)
                    self.runs[stream] = request_id
                    world.after(self.cluster.checks.requests[request_id].duration, self._finish, stream, request_id)
                case SendResult(address, stream, request_id):
                    self._send(address, (FrameType.RESULT, stream, 0, request_id))
                case DropResult(stream, request_id):
                    world.log(self.name, "drops the result of", request_id)
                case Stop(stream, reason):
                    world.after(self.cluster.small(), self._gone, stream, reason)
                case End():
                    self.alive = False
                    world.log(self.name, "exits")
                    for connection in list(self.connections.values()):
                        # Closed only after what was sent has arrived.
                        world.at(max(connection.free_at[0], connection.stalled_until) + 0.001, connection.close, 0)
                    self.cluster.provider.supervisor_ended(self)
                case _:
                    raise AssertionError(effect)
        deadline = self.parking.next_deadline()
        if self.alive and deadline is not None and (self._tick_at is None or deadline < self._tick_at):
            self._tick_at = deadline
            world.at(deadline, self._tick)

    def _check_epoch(self, parked: Send) -> None:
        last = self._epochs.get(parked.stream, 0)
        assert parked.epoch >= last, "an epoch never falls"
        self._epochs[parked.stream] = parked.epoch

    def _tick(self) -> None:
        self._tick_at = None
        if self.alive:
            self._do(self.parking.on_tick(self.cluster.world.now))

    def _send(self, address: str, frame: Frame) -> None:
        connection = self.connections.get(address)
        if connection is not None:
            connection.send(0, frame)


@dataclass(slots=True)
class Ordered:
    revision: str
    supervisor: Supervisor | None = None
    ready: bool = False
    ended: bool = False


class Provider:
    """Starts environments. What it has in its books exists, or is about to."""

    __slots__ = ("_supervisors", "books", "cluster", "fence")

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.fence = 0
        self.books: dict[str, Ordered] = {}
        self._supervisors = 0

    def inventory(self) -> list[Known]:
        return [Known(name, ordered.revision, "ready" if ordered.ready else "starting") for name, ordered in self.books.items()]

    def start(self, epoch: int, revision: str, environment_ids: list[str]) -> None:
        world, plan = self.cluster.world, self.cluster.plan
        if epoch < self.fence:
            world.log("provider", "refuses an order under the old epoch", epoch)
            return
        world.log("provider", "is to start", *environment_ids, "of", revision)
        function = self.cluster.function_of(revision)
        for environment_id in environment_ids:
            self.books[environment_id] = Ordered(revision)
        existing = sum(
            not ordered.ended and self.cluster.function_of(ordered.revision) == function for ordered in self.books.values()
        )
        provisioned = is_provisioned(environment_ids[0])
        self.cluster.checks.ordered(function, len(environment_ids), existing, provisioned=provisioned)
        if plan.active and world.chance(plan.start_failures):
            world.after(self.cluster.small(), self._refuse, environment_ids)
            return
        groups = [environment_ids] if plan.shared else [[environment_id] for environment_id in environment_ids]
        for group in groups:
            if not (plan.active and world.chance(plan.never_starts)):
                world.after(self.cluster.start_seconds(), self._begin, revision, group)

    def stop(self, environment_ids: list[str]) -> None:
        """They missed the start deadline."""
        for environment_id in environment_ids:
            ordered = self.books.get(environment_id)
            if ordered is None:
                self.cluster.world.after(self.cluster.small(), self._unknown, environment_id)
                continue
            if ordered.ended:
                continue
            if ordered.supervisor is None:
                self.environment_ended(environment_id)
            else:
                ordered.supervisor.terminate()

    def _refuse(self, environment_ids: list[str]) -> None:
        for environment_id in environment_ids:
            self.environment_ended(environment_id)

    def _begin(self, revision: str, environment_ids: list[str]) -> None:
        wanted = [name for name in environment_ids if name in self.books and not self.books[name].ended]
        if not wanted:
            return
        cluster = self.cluster
        supervisor = cluster.shared_supervisor(revision) if cluster.plan.shared else None
        if supervisor is None:
            self._supervisors += 1
            supervisor = Supervisor(cluster, f"s{self._supervisors}", revision)
            cluster.supervisors.append(supervisor)
        for environment_id in wanted:
            self.books[environment_id].supervisor = supervisor
        supervisor.start(cluster.holder_address(), wanted)

    def is_ready(self, environment_id: str, revision: str) -> None:
        self.books[environment_id].ready = True
        if is_provisioned(environment_id):
            self.cluster.checks.provisioned_ready(environment_id, revision)

    def environment_ended(self, environment_id: str) -> None:
        """The truth; the news of it comes later."""
        ordered = self.books[environment_id]
        if not ordered.ended:
            ordered.ended = True
            self.cluster.checks.ended(self.cluster.function_of(ordered.revision), environment_id, revision=ordered.revision)
            self.cluster.world.after(self.cluster.small() * 4, self._notice, environment_id)

    def supervisor_ended(self, supervisor: Supervisor) -> None:
        for environment_id, ordered in list(self.books.items()):
            if ordered.supervisor is supervisor:
                self.environment_ended(environment_id)

    def _unknown(self, environment_id: str) -> None:
        self.cluster.environment_ended(environment_id, was_ready=False)

    def _notice(self, environment_id: str) -> None:
        ordered = self.books.pop(environment_id, None)
        if ordered is not None:
            self.cluster.environment_ended(environment_id, was_ready=ordered.ready)
