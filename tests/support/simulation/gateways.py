"""The simulated gateways: shells around the real Dispatcher and Scaler, and the connections between gateways.

Every life of a gateway has a name of its own. The one that holds the Lease acts as scaler; the others report to it over a connection
that can break like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kappa_core.link.effects import (
    CloseLink,
    Dispatch,
    Effect,
    EnvironmentLost,
    ProvisionedChanged,
    Report,
    RetireEnvironment,
    Send,
    SendCollect,
    SendDeny,
    StartEnvironments,
    StartsFail,
    StopEnvironments,
    Throttled,
    Unavailable,
)
from kappa_core.link.frames import FrameType, Hello, Retire
from kappa_core.link.policy import queue_or_scale
from simulation.checks import Request, is_provisioned
from simulation.network import Connection, Frame
from simulation.world import Violation

if TYPE_CHECKING:
    from simulation.cluster import Cluster


class Gateway:
    """One life of a gateway at an address."""

    __slots__ = (
        "_flush_at",
        "_tick_at",
        "address",
        "alive",
        "cluster",
        "dispatcher",
        "links",
        "name",
        "on_what",
        "parked",
        "peers",
        "scaler",
        "streams",
        "to_holder",
        "where",
    )

    def __init__(self, cluster: Cluster, address: str, life: int) -> None:
        self.cluster = cluster
        self.address = address
        self.name = f"{address}.{life}"
        self.alive = True
        self.dispatcher = cluster.machines.dispatcher(capacity_wait=cluster.plan.capacity_wait)
        self.scaler = cluster.machines.scaler(
            new_id=cluster.new_environment_id,
            policy=queue_or_scale,
            idle_seconds=cluster.plan.idle_seconds,
            start_seconds=cluster.plan.start_seconds,
        )
        cluster.configure(self.scaler)
        self.links: dict[int, Connection] = {}
        self.streams: dict[tuple[int, int], tuple[str, str]] = {}
        """Link and stream → environment and revision."""
        self.where: dict[str, tuple[int, int]] = {}
        self.on_what: dict[str, str] = {}
        """Request → environment, while in flight."""
        self.peers: dict[str, Connection] = {}
        """As holder: name of a gateway → its connection."""
        self.to_holder: Connection | None = None
        self.parked: dict[tuple[int, int], float] = {}
        """Link and stream of what is idle here → when it was last used."""
        self._flush_at: float | None = None
        self._tick_at: dict[str, float] = {}

    # -- clients -----------------------------------------------------------------------------------------------------
    def invoke(self, request: Request) -> None:
        cluster = self.cluster
        request.gateway = self.name
        request.revision = cluster.revision_of(request.function)
        cluster.world.log(self.name, "takes", request.request_id, "for", request.revision)
        cluster.checks.arrives(request)
        self._do(self.dispatcher.invoke(request.request_id, request.revision, request.function, cluster.world.now))

    def superseded(self, old: str, new: str, function: str) -> None:
        now = self.cluster.world.now
        self._do(self.scaler.on_revision(new, function, now))
        self.provisioned_changed(function)
        self._do(self.scaler.on_revision_superseded(old, now))
        self._do(self.dispatcher.on_superseded(old, new, function, now))

    def limit_changed(self, function: str, reserved: int) -> None:
        self._do(self.scaler.on_function(function, "account", reserved, self.cluster.world.now))

    def provisioned_changed(self, function: str) -> None:
        targets = self.cluster.provisioned_targets(function)
        self._do(self.scaler.on_provisioned(function, targets, self.cluster.world.now))

    def environment_ended(self, environment_id: str, *, was_ready: bool) -> None:
        now = self.cluster.world.now
        self._do(self.scaler.on_environment_gone(environment_id, "its process has ended", now, was_ready=was_ready))

    def kill(self) -> None:
        self.alive = False
        self.cluster.world.log(self.name, "is killed")
        dialled = [supervisor.connections.get(self.address) for supervisor in self.cluster.supervisors]
        peers = [gateway.to_holder for gateway in self.cluster.gateways.values()]
        for connection in (*dialled, *peers, self.to_holder):
            if connection is not None and self in connection.ends:
                connection.cut(quickly=self.cluster.world.chance(0.5))
        for request in self.cluster.checks.requests.values():
            if request.gateway == self.name and not request.outcome:
                self._answer(request.request_id, "reset")

    def leave(self) -> None:
        self.cluster.world.log(self.name, "is leaving")
        self._do(self.dispatcher.leave(self.cluster.world.now))

    # -- connections -------------------------------------------------------------------------------------------------
    def on_closed(self, connection: Connection) -> None:
        if not self.alive:
            return
        now = self.cluster.world.now
        if connection is self.to_holder:
            self.to_holder = None
            self.cluster.world.after(self.cluster.small(), self.dial_holder)
        elif self.links.get(connection.link) is connection:
            self._forget_link(connection.link)
            self._do(self.dispatcher.on_link_down(connection.link, now))
        else:
            for name, peer in list(self.peers.items()):
                if peer is connection:
                    del self.peers[name]
                    self._do(self.scaler.on_gateway_down(name, now))

    def on_frame(self, connection: Connection, frame: Frame) -> None:
        if not self.alive:
            return
        kind, stream, epoch, body = frame
        if kind.value >= FrameType.PEER_HELLO.value:
            self._on_peer(connection, kind, body)
        elif kind is FrameType.HELLO:
            self._on_hello(connection, body)
        elif connection.link in self.links:
            self._on_supervisor(connection.link, kind, stream, epoch, body)

    def _on_hello(self, connection: Connection, hello: Hello) -> None:
        now, link = self.cluster.world.now, connection.link
        self.links[link] = connection
        effects = self.dispatcher.on_hello(link, hello, now)
        if not any(isinstance(effect, CloseLink) and effect.link == link for effect in effects):
            for state in hello.environments:
                if state.state != "gone":
                    self._at(link, state.stream, state.environment_id, hello.revision)
        self._returned()
        self._do(effects)
        if self.scaler.acting:
            for state in hello.environments:
                if state.state != "gone":
                    self._do(self.scaler.on_environment(state.environment_id, hello.revision, state.state, now))

    def _on_supervisor(self, link: int, kind: FrameType, stream: int, epoch: int, body: object) -> None:
        now, dispatcher = self.cluster.world.now, self.dispatcher
        supervisor = self.links[link].ends[0]
        if kind is FrameType.ENVIRONMENT:
            self._at(link, stream, body.environment_id, supervisor.revision)  # type: ignore[attr-defined]
            self._do(dispatcher.on_environment(link, stream, body.environment_id, now))  # type: ignore[attr-defined]
            self._fact(link, stream, body.state)  # type: ignore[attr-defined]
        elif kind is FrameType.PARKED:
            self.parked[link, stream] = now - body.idle_ms / 1000  # type: ignore[attr-defined]
            self._do(dispatcher.on_parked(link, stream, epoch, body.idle_ms, now))  # type: ignore[attr-defined]
            self._fact(link, stream, "idle")
        elif kind is FrameType.UNPARKED:
            self.parked.pop((link, stream), None)
            self._do(dispatcher.on_unparked(link, stream, now))
        elif kind is FrameType.RESULT:
            if dispatcher.on_result(link, stream, body, now):  # type: ignore[arg-type]
                self._answer(body, "ok")  # type: ignore[arg-type]
        elif kind is FrameType.REFUSED:
            if body.request_id:  # type: ignore[attr-defined]
                self.cluster.world.log(self.name, "is refused", body.request_id, body.reason)  # type: ignore[attr-defined]
                effects = dispatcher.on_refused(link, stream, body.request_id, now)  # type: ignore[attr-defined]
                self._returned()
                self._do(effects)
            elif self.scaler.acting and (link, stream) in self.streams:
                name = self.streams[link, stream][0]
                self._do(self.scaler.on_retire_refused(name, body.reason, body.idle_ms, now))  # type: ignore[attr-defined]
        elif kind is FrameType.DRAINING:
            self.parked.pop((link, stream), None)
            self._do(dispatcher.on_draining(link, stream, now))
            self._fact(link, stream, "draining")
        elif kind is FrameType.GONE:
            self.parked.pop((link, stream), None)
            self._do(dispatcher.on_gone(link, stream, body.request_id, body.reason, now))  # type: ignore[attr-defined]
            self.streams.pop((link, stream), None)
            self.where.pop(body.environment_id, None)  # type: ignore[attr-defined]
            if self.scaler.acting:
                self._do(self.scaler.on_environment_gone(body.environment_id, body.reason, now))  # type: ignore[attr-defined]
        self._schedule()

    def _at(self, link: int, stream: int, environment_id: str, revision: str) -> None:
        self.streams[link, stream] = (environment_id, revision)
        self.where[environment_id] = (link, stream)

    def _forget_link(self, link: int) -> None:
        self.links.pop(link, None)
        for key in [key for key in self.streams if key[0] == link]:
            self.parked.pop(key, None)
            environment_id, _ = self.streams.pop(key)
            if self.where.get(environment_id) == key:
                del self.where[environment_id]

    def _fact(self, link: int, stream: int, state: str) -> None:
        if self.scaler.acting and (link, stream) in self.streams:
            environment_id, revision = self.streams[link, stream]
            self._do(self.scaler.on_environment(environment_id, revision, state, self.cluster.world.now))

    def _check_last_used(self, link: int, stream: int) -> None:
        """Only where no connection ever broke: a HELLO does not say how long an environment has been idle."""
        used = self.parked.pop((link, stream), None)
        if used is None or self.cluster.plan.faults:
            return
        taken, revision = self.streams[link, stream]
        for key, other in self.parked.items():
            left, of = self.streams[key]
            if of != revision:
                continue
            if is_provisioned(left) and not is_provisioned(taken):
                raise Violation(f"{taken} was taken before {left}, which is provisioned")
            if other > used + 0.001 and is_provisioned(left) == is_provisioned(taken):
                raise Violation(f"{taken} was taken before {left}, used after it")

    def _returned(self) -> None:
        """What the dispatcher took back into its FIFOs."""
        for request_id, environment_id in list(self.on_what.items()):
            if self.dispatcher.is_waiting(request_id):
                del self.on_what[request_id]
                self.cluster.checks.returned(request_id, environment_id)

    # -- peers -------------------------------------------------------------------------------------------------------
    def dial_holder(self) -> None:
        cluster = self.cluster
        if not self.alive or self.to_holder is not None:
            return
        holder = cluster.holder
        if holder is self:
            return
        if holder is None or not cluster.reach_peer(self, holder):
            cluster.world.after(0.2, self.dial_holder)
            return
        self.to_holder = Connection(
            cluster.world, f"{self.name}-{holder.name}", self, holder, delay=cluster.delay(cluster.plan.peer_delay)
        )
        self.to_holder.send(0, (FrameType.PEER_HELLO, 0, 0, self.name))
        self.dispatcher.on_scaler_changed()
        self._schedule()

    def holder_changed(self) -> None:
        if self.to_holder is not None:
            self.to_holder.close(0)
            self.to_holder = None
        self.dial_holder()

    def take_over(self, epoch: int) -> None:
        cluster = self.cluster
        cluster.world.log(self.name, "takes the scaler over under epoch", epoch)
        names = [gateway.name for gateway in cluster.gateways.values() if gateway.alive]
        self._do(self.scaler.take_over(epoch, cluster.provider.inventory(), names, cluster.world.now))
        self._do(self.scaler.on_gateway_up(self.name, cluster.world.now))
        self.dispatcher.on_scaler_changed()
        self._schedule()

    def stand_down(self) -> None:
        self.cluster.world.log(self.name, "stands down")
        self.scaler.stand_down()

    def _on_peer(self, connection: Connection, kind: FrameType, body: object) -> None:
        now = self.cluster.world.now
        if kind is FrameType.PEER_HELLO:
            name = str(body)
            if name in self.peers:
                self._do(self.scaler.on_gateway_down(name, now))
            self.peers[name] = connection
            self._do(self.scaler.on_gateway_up(name, now))
        elif kind is FrameType.COLLECT:
            answer = self.dispatcher.collect(body.function_key, body.number)  # type: ignore[attr-defined]
            self.cluster.world.log(self.name, "answers", answer)
            connection.send(0, (FrameType.COLLECTED, 0, 0, answer))
        elif kind is FrameType.DENY:
            self._do(self.dispatcher.on_deny(body, now))  # type: ignore[arg-type]
        else:
            name = next((name for name, peer in self.peers.items() if peer is connection), "")
            if name and kind is FrameType.DEMAND:
                self._do(self.scaler.on_demand(name, body, now))  # type: ignore[arg-type]
            elif name and kind is FrameType.COLLECTED:
                self._do(self.scaler.on_collected(name, body, now))  # type: ignore[arg-type]

    # -- effects -----------------------------------------------------------------------------------------------------
    def _do(self, effects: list[Effect]) -> None:
        cluster, now = self.cluster, self.cluster.world.now
        for effect in effects:
            match effect:
                case Dispatch(link, stream, epoch, request_id):
                    environment_id = self.streams[link, stream][0]
                    cluster.world.log(self.name, "dispatches", request_id, "to", environment_id, "epoch", epoch)
                    if request_id in self.on_what:  # refused, and dispatched again at once
                        cluster.checks.returned(request_id, self.on_what[request_id])
                    self.on_what[request_id] = environment_id
                    cluster.checks.dispatched(request_id, environment_id)
                    self._check_last_used(link, stream)
                    self.links[link].send(1, (FrameType.INVOKE, stream, epoch, request_id))
                case Send(to=int(link), kind=kind):
                    self.links[link].send(1, (kind, effect.stream, effect.epoch, effect.body))
                case Throttled(request_id):
                    self._answer(request_id, "429")
                case Unavailable(request_id, cause):
                    cluster.world.log(self.name, "is out of capacity:", cause)
                    self._answer(request_id, "503")
                case EnvironmentLost(request_id, cause):
                    cluster.world.log(self.name, "lost", request_id, "as", cause)
                    self._answer(request_id, "502" if cause != "it crashed" else "crash")
                case CloseLink(link):
                    connection = self.links[link]
                    self._forget_link(link)
                    connection.close(1)
                case Report(demand):
                    if self.scaler.acting or cluster.holder is self:
                        self._do(self.scaler.on_demand(self.name, demand, now))
                    elif self.to_holder is not None:
                        cluster.world.log(self.name, "reports", demand)
                        self.to_holder.send(0, (FrameType.DEMAND, 0, 0, demand))
                case StartEnvironments(epoch, revision, environment_ids):
                    cluster.provider.start(epoch, revision, environment_ids)
                case StopEnvironments(_, environment_ids, reason):
                    cluster.world.log(self.name, "gives up", *environment_ids, reason)
                    cluster.provider.stop(environment_ids)
                case RetireEnvironment(environment_id, reason, when_busy, idle_ms):
                    cluster.world.log(self.name, "retires", environment_id, reason, when_busy)
                    if environment_id in self.where:
                        link, stream = self.where[environment_id]
                        self.links[link].send(1, (FrameType.RETIRE, stream, 0, Retire(reason, when_busy, idle_ms)))
                case SendDeny(gateway, deny):
                    cluster.world.log(self.name, "denies", gateway, deny)
                    if gateway == self.name:
                        self._do(self.dispatcher.on_deny(deny, now))
                    elif gateway in self.peers:
                        self.peers[gateway].send(1, (FrameType.DENY, 0, 0, deny))
                case SendCollect(gateway, collect):
                    if gateway == self.name:
                        answer = self.dispatcher.collect(collect.function_key, collect.number)
                        cluster.world.log(self.name, "answers itself", answer)
                        self._do(self.scaler.on_collected(self.name, answer, now))
                    elif gateway in self.peers:
                        self.peers[gateway].send(1, (FrameType.COLLECT, 0, 0, collect))
                case ProvisionedChanged(revision):
                    cluster.world.log(self.name, "keeps", self.scaler.provisioned(revision), "ready for", revision)
                case StartsFail(revision, cause):
                    cluster.world.log(self.name, "has starts fail of", revision, cause or "no more")
                case _:
                    raise AssertionError(effect)
        self._schedule()

    def _answer(self, request_id: str, outcome: str) -> None:
        self.cluster.world.log(self.name, "answers", request_id, outcome)
        self.cluster.checks.answered(request_id, outcome, self.on_what.pop(request_id, None))
        self.cluster.answered(request_id)

    # -- time --------------------------------------------------------------------------------------------------------
    def _schedule(self) -> None:
        world = self.cluster.world
        if self.dispatcher.dirty and self._flush_at is None:
            self._flush_at = world.now
            world.after(world.random.choice((0.0, 0.0, 0.0005)), self._flush)
        for machine, deadline in (
            ("dispatcher", self.dispatcher.next_deadline()),
            ("scaler", self.scaler.next_deadline()),
        ):
            if deadline is not None and (machine not in self._tick_at or deadline < self._tick_at[machine]):
                self._tick_at[machine] = deadline
                world.at(deadline, self._tick, machine, deadline)

    def _flush(self) -> None:
        self._flush_at = None
        if self.alive:
            self._do(self.dispatcher.flush(self.cluster.world.now))

    def _tick(self, machine: str, deadline: float) -> None:
        if not self.alive or self._tick_at.get(machine) != deadline:
            return
        del self._tick_at[machine]
        now = self.cluster.world.now
        self._do(self.dispatcher.on_tick(now) if machine == "dispatcher" else self.scaler.on_tick(now))
