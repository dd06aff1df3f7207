"""The gateway's I/O shell around the scaler: feeds it with what supervisors, gateways and operations say, carries its wishes out.

Exists in every gateway. In the one that holds the scaler (the only one, unless several work together) the
:class:`~kappa_core.link.scale.Scaler` acts and the provider starts environments; in the others it takes notes, and what this
gateway's waiters need goes to the holder (:mod:`kappa_gateway.links.peers`). Without a connection to the holder nothing is started
and nobody is turned away: waiters wait, at most for the bounded time. Which gateway holds it is settled when it starts, or changes
while it runs (:meth:`Scaling.take_over`, :meth:`Scaling.stand_down`).

It refuses to talk to environments itself (that is :class:`~kappa_gateway.links.shell.InvocationPort`) and to know how one is made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from kappa_core.limits import Limits
from kappa_core.link import effects, frames
from kappa_core.link.capacity import Known, Phase
from kappa_core.link.effects import Effect
from kappa_core.link.frames import Collect, Collected, Demand, Deny, FrameType, Hello
from kappa_core.link.policy import Policy, queue_or_scale
from kappa_core.link.scale import Scaler
from kappa_core.ports.environments import EnvironmentProvider, ProviderError
from kappa_core.rules.provisioned import Progress
from kappa_core.spec import VersionSpec
from kappa_gateway.links.alarm import Alarm

logger = logging.getLogger("kappa.scaler")

SUPERVISORS: Final = "(supervisors)"
"""Stands among the gateways that a starting holder waits for and never comes: with peers there may be environments from before, and
all REBUILD_SECONDS are theirs to say hello."""

OnCause = Callable[[str, str], None]
"""Takes a revision and why its environments cannot be started; an empty cause says that they can again."""


class Port(Protocol):
    """What the scaler needs of this gateway's links."""

    def collect(self, function_key: str, number: int) -> Collected: ...

    def deny(self, deny: Deny) -> None: ...

    def scaler_changed(self) -> None: ...

    def retire_environment(self, environment_id: str, body: frames.Retire) -> bool: ...

    def spec_of(self, revision: str) -> VersionSpec | None: ...


class ProviderNews(Protocol):
    """A provider that wants to know what its supervisors say, such as the ProcessProvider."""

    def supervisor_up(self, supervisor_id: str) -> None: ...

    def supervisor_down(self, supervisor_id: str) -> None: ...

    def environment_gone(self, supervisor_id: str, environment_id: str) -> None: ...


class Holder(Protocol):
    """The connection to the gateway that holds the scaler."""

    def send(self, kind: FrameType, body: msgspec.Struct) -> None: ...


class Peer(Protocol):
    """The holder's connection to another gateway."""

    def send(self, kind: FrameType, body: msgspec.Struct) -> None: ...

    def close(self, reason: str) -> None: ...


class Scaling:
    """See the module. ``me`` is this gateway's name among the others; ``holder`` whether it holds the scaler."""

    def __init__(
        self,
        *,
        me: str,
        holder: bool,
        gateways: list[str],
        port: Port,
        limits: Limits,
        new_id: Callable[[], str],
        idle_seconds: float,
        on_cause: OnCause,
        policy: Policy = queue_or_scale,
    ) -> None:
        """``gateways`` are the others' names; ``new_id`` makes environment ids."""
        self._loop = asyncio.get_running_loop()
        self._me = me
        self._holder = False
        self._port = port
        self._limits = limits
        self._on_cause = on_cause
        self.on_provisioned: Callable[[str], None] = lambda revision: None
        """Told that environments of a revision which are to be kept ready have come or gone."""
        self._scaler = Scaler(new_id=new_id, policy=policy, idle_seconds=idle_seconds)
        self._provider: EnvironmentProvider | None = None
        self._provider_news: ProviderNews | None = None
        self._to_holder: Holder | None = None
        self._told_holder: set[str] = set()
        """Revisions whose spec the holder has got on this connection."""
        self._peers: dict[str, Peer] = {}
        self._specs: dict[str, tuple[VersionSpec, str]] = {}
        """By revision, with the function key; of all gateways, as far as they have come by here."""
        self._reserved: dict[str, int | None] = {}
        self._pools: set[str] = set()
        self._seen: dict[str, dict[str, tuple[str, str]]] = {}
        """By supervisor: environments that it has spoken of and not reported as gone, with revision and state. Only the holder
        keeps those of a supervisor that is not linked."""
        self._linked: set[str] = set()
        self._started: set[str] | None = None
        """Revisions of which an environment was ready in this term, where that is to be said."""
        self._starts: set[asyncio.Task[None]] = set()
        self._alarm = Alarm(self._loop, self._tick)
        if holder:
            self.take_over(1, expected=[*gateways, SUPERVISORS] if gateways else ())

    # -- holding the scaler -------------------------------------------------------------------------------------------
    @property
    def holds(self) -> bool:
        """Whether this gateway holds the scaler."""
        return self._holder

    def take_over(self, epoch: int, *, expected: Iterable[str], known: Iterable[Known] = (), causes_before: bool = False) -> None:
        """This gateway holds the scaler from now on. Nothing is decided before the ``expected`` gateways (and SUPERVISORS, where there
        may be environments from before) are up, or for REBUILD_SECONDS. What is linked here counts from the first moment; ``known``
        is what else exists. With ``causes_before`` the holder before may have said of revisions that they do not start: the first
        environment of each that is ready takes that back."""
        now = self._loop.time()
        self._holder, self._to_holder = True, None
        self._started = set() if causes_before else None
        linked = [
            Known(environment_id, revision, _phase(state))
            for seen in self._seen.values()
            for environment_id, (revision, state) in seen.items()
        ]
        wanted = self._scaler.take_over(epoch, [*linked, *known], [self._me, *expected], now)
        self._apply([*wanted, *self._scaler.on_gateway_up(self._me, now)])
        self._port.scaler_changed()

    def stand_down(self) -> None:
        """Another gateway holds the scaler, or this one can no longer be sure that it does. The provider is let go of, not closed."""
        self._holder = False
        self._scaler.stand_down()
        self._provider = self._provider_news = None
        for task in self._starts:
            task.cancel()
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            peer.close("the scaler is held elsewhere")
        for supervisor_id in self._seen.keys() - self._linked:
            del self._seen[supervisor_id]
        self._alarm.set(self._scaler.next_deadline())

    def provide(self, provider: EnvironmentProvider, *, news: ProviderNews | None = None) -> None:
        """Set the provider; only the holder has one."""
        self._provider = provider
        self._provider_news = news

    # -- what may run -------------------------------------------------------------------------------------------------
    def learn(self, spec: VersionSpec, function_key: str, reserved: int | None, /) -> None:
        """A revision that is about to be invoked."""
        self._specs[spec.revision] = (spec, function_key)
        self._reserved[function_key] = reserved
        now = self._loop.time()
        pool = f"{spec.account}/{spec.region}"
        wanted: list[Effect] = []
        if pool not in self._pools:
            self._pools.add(pool)
            wanted += self._scaler.on_pool(pool, self._limits.account_concurrency, now)
        wanted += self._scaler.on_function(function_key, pool, reserved, now)
        wanted += self._scaler.on_revision(spec.revision, function_key, now)
        self._told_holder.discard(spec.revision)
        self._apply(wanted)

    def set_reserved(self, function_key: str, reserved: int | None, /) -> None:
        """The reserved concurrency of a function has changed."""
        if function_key not in self._reserved:
            return  # never invoked since the start: said with the first invocation
        self._reserved[function_key] = reserved
        account, region, *_ = function_key.split("/")
        self._apply(self._scaler.on_function(function_key, f"{account}/{region}", reserved, self._loop.time()))

    def set_provisioned(self, function_key: str, targets: dict[str, tuple[int, float]], /) -> None:
        """How many environments to keep ready for revisions of a function, and the start deadline of one in seconds. All of ``targets``
        have been learnt; there are none for the revisions that are not named."""
        if function_key in self._reserved:
            self._apply(self._scaler.on_provisioned(function_key, targets, self._loop.time()))

    def provisioned(self, revision: str, /) -> Progress | None:
        """How far the provisioned concurrency of a revision has come; None where another gateway knows, or nobody does yet."""
        return self._scaler.provisioned(revision) if self._holder and self._scaler.acting else None

    def superseded(self, revision: str, /) -> None:
        """A revision that nothing leads to any more."""
        self._apply(self._scaler.on_revision_superseded(revision, self._loop.time()))

    def function_removed(self, function_key: str, /) -> None:
        """A function was deleted."""
        self._reserved.pop(function_key, None)
        self._apply(self._scaler.on_function_removed(function_key, self._loop.time()))
        for revision in [name for name, (_, key) in self._specs.items() if key == function_key]:
            del self._specs[revision]

    # -- what waits ---------------------------------------------------------------------------------------------------
    def demand(self, demand: Demand, /) -> None:
        """This gateway's own waiters."""
        if self._holder:
            self._apply(self._scaler.on_demand(self._me, demand, self._loop.time()))
        elif self._to_holder is not None:
            known = self._specs.get(demand.revision)
            if known is not None and demand.revision not in self._told_holder:
                spec, function_key = known
                self._told_holder.add(demand.revision)
                body = frames.PeerSpec(function_key, self._reserved.get(function_key), msgspec.msgpack.encode(spec))
                self._to_holder.send(FrameType.SPEC, body)
            self._to_holder.send(FrameType.DEMAND, demand)

    def holder_up(self, holder: Holder) -> None:
        """The connection to the gateway that holds the scaler is up: it has to hear everything."""
        self._to_holder = holder
        self._told_holder.clear()
        self._port.scaler_changed()

    def holder_down(self) -> None:
        self._to_holder = None

    def from_holder(self, kind: FrameType, body: msgspec.Struct) -> None:
        """A frame of the gateway that holds the scaler."""
        if kind is FrameType.COLLECT and isinstance(body, Collect):
            if self._to_holder is not None:
                self._to_holder.send(FrameType.COLLECTED, self._port.collect(body.function_key, body.number))
        elif kind is FrameType.DENY and isinstance(body, Deny):
            self._port.deny(body)

    # -- peers, at the holder -----------------------------------------------------------------------------------------
    def peer_up(self, name: str, peer: Peer) -> None:
        """Another gateway has connected; an earlier connection of the same name is over, whether its end was seen or not."""
        earlier = self._peers.get(name)
        if earlier is not None:
            self.peer_down(name, earlier)
        self._peers[name] = peer
        self._apply(self._scaler.on_gateway_up(name, self._loop.time()))

    def peer_down(self, name: str, peer: Peer) -> None:
        if self._peers.get(name) is peer:
            del self._peers[name]
            self._apply(self._scaler.on_gateway_down(name, self._loop.time()))

    def from_peer(self, name: str, kind: FrameType, body: msgspec.Struct) -> None:
        """A frame of another gateway."""
        now = self._loop.time()
        if kind is FrameType.DEMAND and isinstance(body, Demand):
            self._apply(self._scaler.on_demand(name, body, now))
        elif kind is FrameType.COLLECTED and isinstance(body, Collected):
            self._apply(self._scaler.on_collected(name, body, now))
        elif kind is FrameType.SPEC and isinstance(body, frames.PeerSpec):
            self.learn(msgspec.msgpack.decode(body.spec, type=VersionSpec), body.function_key, body.reserved)

    # -- environments -------------------------------------------------------------------------------------------------
    def supervisor_up(self, hello: Hello, spec: VersionSpec | None, /) -> None:
        """A supervisor is linked (again)."""
        now = self._loop.time()
        wanted: list[Effect] = []
        if spec is not None and spec.revision not in self._specs:
            # Environments from before this gateway's start count from now on, whoever asked for them.
            key = function_key_of(spec)
            self.learn(spec, key, self._reserved.get(key))
        told = {state.environment_id: (hello.revision, state.state) for state in hello.environments if state.environment_id}
        seen = self._seen.setdefault(hello.supervisor_id, {})
        self._linked.add(hello.supervisor_id)
        for environment_id in seen.keys() - told.keys():
            wanted += self._gone(hello.supervisor_id, environment_id, "it ended while its supervisor was not linked")
        seen |= told
        if self._holder:
            for environment_id, (revision, state) in told.items():
                wanted += self._scaler.on_environment(environment_id, revision, state, now)
        self._apply(wanted)
        if self._provider_news is not None:
            self._provider_news.supervisor_up(hello.supervisor_id)

    def supervisor_down(self, supervisor_id: str, /) -> None:
        """A supervisor's link is lost; that says nothing about its environments."""
        self._linked.discard(supervisor_id)
        if not self._holder:
            self._seen.pop(supervisor_id, None)
        if self._provider_news is not None:
            self._provider_news.supervisor_down(supervisor_id)

    def environment(self, supervisor_id: str, environment_id: str, revision: str, state: str, /) -> None:
        self._seen.setdefault(supervisor_id, {})[environment_id] = (revision, state)
        if not self._holder:
            return
        if state == "ready" and self._started is not None and revision not in self._started:
            self._started.add(revision)
            self._on_cause(revision, "")
        self._apply(self._scaler.on_environment(environment_id, revision, state, self._loop.time()))

    def draining(self, supervisor_id: str, environment_id: str, revision: str, /) -> None:
        self._seen.setdefault(supervisor_id, {})[environment_id] = (revision, "draining")
        if self._holder:
            self._apply(self._scaler.on_environment(environment_id, revision, "draining", self._loop.time()))

    def retire_refused(self, environment_id: str, refused: frames.Refused, /) -> None:
        self._apply(self._scaler.on_retire_refused(environment_id, refused.reason, refused.idle_ms, self._loop.time()))

    def gone(self, supervisor_id: str, environment_id: str, reason: str, /) -> None:
        self._apply(self._gone(supervisor_id, environment_id, reason))

    def _gone(self, supervisor_id: str, environment_id: str, reason: str) -> list[Effect]:
        self._seen.get(supervisor_id, {}).pop(environment_id, None)
        if self._provider_news is not None:
            self._provider_news.environment_gone(supervisor_id, environment_id)
        return self._scaler.on_environment_gone(environment_id, reason, self._loop.time())

    def supervisor_ended(self, supervisor_id: str, environment_ids: list[str], reason: str) -> None:
        """The provider knows that a supervisor is no more: what had not been reported as gone is gone with it."""
        now = self._loop.time()
        wanted: list[Effect] = []
        for environment_id in dict.fromkeys((*environment_ids, *self._seen.pop(supervisor_id, ()))):
            wanted += self._scaler.on_environment_gone(environment_id, reason, now)
        self._apply(wanted)

    def environments(self, revision: str) -> dict[str, str]:
        """Phase by environment id, as the holder knows them; for conditions and metrics."""
        return dict(self._scaler.environments(revision))

    # -- effects ------------------------------------------------------------------------------------------------------
    def _apply(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            if isinstance(effect, effects.StartEnvironments):
                self._start(effect)
            elif isinstance(effect, effects.RetireEnvironment):
                body = frames.Retire(reason=effect.reason, when_busy=effect.when_busy, idle_ms=effect.idle_ms)
                self._port.retire_environment(effect.environment_id, body)
            elif isinstance(effect, effects.SendCollect):
                self._collect(effect)
            elif isinstance(effect, effects.SendDeny):
                if effect.gateway == self._me:
                    self._port.deny(effect.deny)
                elif effect.gateway in self._peers:
                    self._peers[effect.gateway].send(FrameType.DENY, effect.deny)
            elif isinstance(effect, effects.StopEnvironments):
                self._stop(effect)
            elif isinstance(effect, effects.ProvisionedChanged):
                self.on_provisioned(effect.revision)
            else:
                assert isinstance(effect, effects.StartsFail), effect
                if effect.cause:
                    logger.warning("environments of %s do not start: %s", effect.revision, effect.cause)
                self._on_cause(effect.revision, effect.cause)
        self._alarm.set(self._scaler.next_deadline())

    def _collect(self, effect: effects.SendCollect) -> None:
        collect = effect.collect
        if effect.gateway == self._me:
            # Not at once: the frame that made the scaler ask often comes with the one that answers it (ready, then parked).
            self._loop.call_soon(self._collect_here, collect)
        elif effect.gateway in self._peers:
            self._peers[effect.gateway].send(FrameType.COLLECT, collect)

    def _collect_here(self, collect: Collect) -> None:
        answer = self._port.collect(collect.function_key, collect.number)
        self._apply(self._scaler.on_collected(self._me, answer, self._loop.time()))

    def _start(self, effect: effects.StartEnvironments) -> None:
        known = self._specs.get(effect.revision)
        if known is None:
            self._start_failed(effect.environment_ids, "its code and configuration are not known here")
            return
        task = self._loop.create_task(self._have_started(known[0], effect.environment_ids))
        self._starts.add(task)
        task.add_done_callback(self._starts.discard)

    async def _have_started(self, spec: VersionSpec, environment_ids: list[str]) -> None:
        if self._provider is None:
            self._start_failed(environment_ids, "this gateway starts no environments")
            return
        try:
            await self._provider.start(spec, environment_ids)
        except ProviderError as error:
            self._start_failed(environment_ids, str(error))

    def _start_failed(self, environment_ids: list[str], cause: str) -> None:
        self._apply(self._scaler.on_start_failed(environment_ids, cause, self._loop.time()))

    def _stop(self, effect: effects.StopEnvironments) -> None:
        body = frames.Retire(reason=effect.reason, when_busy="finish")
        silent = [name for name in effect.environment_ids if not self._port.retire_environment(name, body)]
        if silent and self._provider is not None:
            task = self._loop.create_task(self._provider.stop(effect.revision, silent))
            self._starts.add(task)
            task.add_done_callback(self._starts.discard)

    # -- time ---------------------------------------------------------------------------------------------------------
    def _tick(self, now: float) -> None:
        self._apply(self._scaler.on_tick(now))

    async def close(self) -> None:
        """Start nothing more. Idempotent."""
        self._scaler.stand_down()
        self._alarm.set(None)
        for task in list(self._starts):
            task.cancel()
        await asyncio.gather(*self._starts, return_exceptions=True)


def _phase(state: str) -> Phase:
    """What HELLO and ENVIRONMENT say of an environment, as the scaler counts it."""
    return "starting" if state == "init" else "draining" if state == "draining" else "ready"


def function_key_of(spec: VersionSpec) -> str:
    """The function key of a version that was found running, in the form that the index gives it."""
    return f"{spec.account}/{spec.region}/{spec.function_name}/{spec.function_uid}"
