"""Parking: the supervisor's end of the link. It alone owns the state of its environments and decides where an idle one is parked.

Every environment is in one state: ``init``, ``idle``, ``busy`` (with a request, for a gateway) or ``draining``. An idle environment
is parked at exactly one gateway, and only that gateway may have it run something, by an INVOKE that names the environment's epoch.
The epoch rises whenever an INVOKE is accepted and whenever the environment moves, so an INVOKE that crosses a move, a retirement or
another acceptance on its way names a stale one: it is refused, nothing has run, and the gateway may take it elsewhere. Two gateways
can thus never run something on one environment, whatever the network delays or repeats.

Where an idle environment parks: at the gateway whose waiter is oldest; without a wish, where it was last used; first, where its
start was asked for. When a link is lost, what runs goes on; a result that comes meanwhile waits RESUME_SECONDS for the link to come
back and is then dropped, and idle environments park elsewhere at once if they are wanted there, else after the same time.

The shell names a gateway by what it dials (a stable name, not one life of a gateway), passes on the frames of the current connection
only, and calls :meth:`Parking.on_tick` at :meth:`Parking.next_deadline`. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from typing import Final, Literal

from kappa_core.link.effects import DropResult, Effect, End, Run, Send, SendHello, SendResult, StartEnvironment, Stop
from kappa_core.link.frames import (
    RESUME_SECONDS,
    EnvironmentStarted,
    EnvironmentState,
    FrameType,
    Gone,
    Parked,
    Refused,
)

Then = Literal["park", "restart", "end"]
"""What becomes of an environment after an invocation: it parks; its runtime is started anew (``on_ready`` follows, as after a
timeout); or it ends (``on_gone`` follows)."""

HOLD_SECONDS: Final = 2.0
"""How long an environment that parked at a gateway's wish is left to it. Without that, gateways with waiters would take it from each
other for ever, each before the other's INVOKE arrives. An ENOUGH releases it at once; a RETIRE finds it as good as busy."""
_RETIRED: Final = "the supervisor is retired"


class _Environment:
    __slots__ = (
        "accepted",
        "ending",
        "environment_id",
        "epoch",
        "gateway",
        "held_until",
        "idle_since",
        "request_id",
        "state",
        "stream",
    )

    def __init__(self, stream: int, environment_id: str, gateway: str | None) -> None:
        self.stream = stream
        self.environment_id = environment_id
        self.state: Literal["init", "idle", "busy", "draining"] = "init"
        self.epoch = 1
        self.gateway = gateway
        """Idle: where it is parked, None if nowhere. Busy: for whom. Init: who asked for it."""
        self.request_id = ""
        self.idle_since = 0.0
        self.held_until = 0.0
        """Idle: parked at a wish, and not to be moved by another one before."""
        self.ending = False
        """Busy, and drains when it has finished."""
        self.accepted: dict[str, int] = {}
        """Per gateway the epoch that its last accepted INVOKE named."""


class _Gateway:
    __slots__ = ("held", "leaving", "linked", "lost_at", "want_count", "want_since")

    def __init__(self) -> None:
        self.linked = False
        self.leaving = False
        self.lost_at = 0.0
        self.want_since = 0.0
        self.want_count = 0
        self.held: dict[int, str] = {}
        """Stream to request: results that wait for the link to come back."""


class Parking:
    """The environments of one supervisor. See the module."""

    __slots__ = ("_environments", "_gateways", "_next_stream", "_retired")

    def __init__(self) -> None:
        self._environments: dict[int, _Environment] = {}
        self._gateways: dict[str, _Gateway] = {}
        self._next_stream = 1
        self._retired = ""

    # -- links ---------------------------------------------------------------------------------------------------
    def on_link_up(self, gateway: str, now: float) -> list[Effect]:
        """A connection to the gateway is established (again). Its first frame is the HELLO that this returns."""
        peer = self._gateways.setdefault(gateway, _Gateway())
        peer.linked, peer.leaving, peer.want_count = True, False, 0
        for environment in self._environments.values():
            if environment.state == "idle" and environment.gateway is None:
                self._assign(environment, gateway, now)
        effects: list[Effect] = [SendHello(gateway, self._states_for(gateway))]
        effects += (SendResult(gateway, stream, request_id) for stream, request_id in peer.held.items())
        peer.held = {}
        return effects

    def on_link_down(self, gateway: str, now: float) -> list[Effect]:
        """The connection broke. Nothing is decided for RESUME_SECONDS but what is wanted elsewhere."""
        peer = self._gateways.get(gateway)
        if peer is None or not peer.linked:
            return []
        peer.linked, peer.lost_at, peer.want_count = False, now, 0
        effects: list[Effect] = []
        for environment in self._idle_by_last_use():
            if environment.gateway == gateway and (wanting := self._oldest_want()) is not None:
                effects += self._park(environment, wanting, now)
        return effects

    def on_gateway_removed(self, gateway: str, now: float) -> list[Effect]:
        """There is no such gateway any more, and it is no longer dialled."""
        peer = self._gateways.pop(gateway, None)
        return [] if peer is None else self._give_up(gateway, peer, now)

    def on_leaving(self, gateway: str, now: float) -> list[Effect]:
        """LEAVING: what is parked there moves to another gateway if there is one; what runs for it ends there. It may go on wanting:
        who waits there waits for an answer."""
        peer = self._gateways.get(gateway)
        if peer is None or not peer.linked:
            return []
        peer.leaving = True
        return self._leave(gateway, now)

    def leaves(self, gateway: str) -> bool:
        """Whether this gateway has said that it stops soon."""
        peer = self._gateways.get(gateway)
        return peer is not None and peer.leaving

    def _leave(self, gateway: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for environment in self._idle_by_last_use():
            if environment.gateway == gateway and (target := self._place(environment)) != gateway:
                effects += self._move(environment, target, now)
        return effects

    # -- life of environments ------------------------------------------------------------------------------------
    def on_start(self, gateway: str, environment_ids: list[str], now: float) -> list[Effect]:
        """START. A repeated id is answered, not started twice."""
        known = {environment.environment_id: environment for environment in self._environments.values()}
        effects: list[Effect] = []
        for environment_id in environment_ids:
            if (environment := known.get(environment_id)) is not None:
                state = "init" if environment.state == "init" else "ready"
                effects.append(
                    Send(gateway, FrameType.ENVIRONMENT, environment.stream, body=EnvironmentStarted(environment_id, state))
                )
                continue
            stream = self._next_stream
            self._next_stream += 1
            if self._retired:
                effects.append(Send(gateway, FrameType.ENVIRONMENT, stream, body=EnvironmentStarted(environment_id)))
                effects.append(Send(gateway, FrameType.GONE, stream, body=Gone(environment_id, _RETIRED)))
                continue
            self._environments[stream] = _Environment(stream, environment_id, gateway)
            effects += self._tell_all(FrameType.ENVIRONMENT, stream, EnvironmentStarted(environment_id))
            effects.append(StartEnvironment(stream, environment_id))
        return effects

    def on_ready(self, stream: int, now: float) -> list[Effect]:
        """The init is over (a failed one too, if it is repeated inside the first invocation): the environment can run something."""
        environment = self._environments.get(stream)
        if environment is None or environment.state != "init":
            return []
        environment.state, environment.idle_since = "idle", now
        effects = self._tell_all(FrameType.ENVIRONMENT, stream, EnvironmentStarted(environment.environment_id, "ready"))
        return effects + self._park(environment, self._place(environment), now)

    def on_gone(self, stream: int, reason: str, now: float) -> list[Effect]:
        """The environment has ended, for whatever reason. What it was running has no result."""
        environment = self._environments.pop(stream, None)
        if environment is None:
            return []
        effects: list[Effect] = []
        for gateway, peer in self._gateways.items():
            if peer.linked:
                request_id = environment.request_id if environment.request_id and environment.gateway == gateway else ""
                effects.append(
                    Send(
                        gateway,
                        FrameType.GONE,
                        stream,
                        environment.epoch,
                        Gone(environment.environment_id, reason, request_id),
                    )
                )
        if self._retired and not self._environments:
            effects.append(End(self._retired))
        return effects

    def on_retire(
        self, gateway: str, stream: int, *, reason: str, when_busy: str = "refuse", idle_ms: int = 0, now: float
    ) -> list[Effect]:
        """RETIRE of one environment, or with stream 0 of all and of the supervisor itself. Obeyed with DRAINING, else REFUSED."""
        if stream == 0:
            effects: list[Effect] = []
            for environment in list(self._environments.values()):
                effects += self._retire(gateway, environment, reason=reason, when_busy=when_busy, idle_ms=idle_ms, now=now)
            if all(environment.ending or environment.state == "draining" for environment in self._environments.values()):
                self._retired = reason
                if not self._environments:
                    effects.append(End(reason))
            return effects
        one = self._environments.get(stream)
        if one is None:
            return [Send(gateway, FrameType.REFUSED, stream, body=Refused("", "unknown"))]
        return self._retire(gateway, one, reason=reason, when_busy=when_busy, idle_ms=idle_ms, now=now)

    # -- invocations ---------------------------------------------------------------------------------------------
    def on_invoke(self, gateway: str, stream: int, epoch: int, request_id: str, now: float) -> list[Effect]:
        """INVOKE. Accepted, which is for good, or refused, and then nothing has run."""
        environment = self._environments.get(stream)
        if environment is None:
            return [Send(gateway, FrameType.REFUSED, stream, epoch, Refused(request_id, "unknown"))]
        if environment.state != "idle" or environment.epoch != epoch or environment.gateway != gateway:
            reason = "draining" if environment.state == "draining" or environment.ending else "stale"
            return [Send(gateway, FrameType.REFUSED, stream, epoch, Refused(request_id, reason))]
        environment.state = "busy"
        environment.request_id = request_id
        environment.accepted[gateway] = epoch
        environment.epoch = epoch + 1
        return [Run(stream, request_id)]

    def on_finished(self, stream: int, now: float, *, then: Then = "park") -> list[Effect]:
        """The invocation has ended and the shell holds its result. PARKED goes out before the RESULT: a client that has its answer
        finds the environment free."""
        environment = self._environments.get(stream)
        if environment is None or environment.state != "busy" or environment.gateway is None:
            return []
        gateway, request_id = environment.gateway, environment.request_id
        environment.request_id = ""
        peer = self._gateways.get(gateway)
        effects: list[Effect] = []
        if environment.ending or then == "end":
            effects += self._drain(environment) if not environment.ending else []
            environment.state = "draining"
        elif then == "restart":
            environment.state = "init"
        else:
            environment.state, environment.idle_since = "idle", now
            effects += self._park(environment, self._place(environment), now)
        if peer is not None and peer.linked:
            effects.append(SendResult(gateway, stream, request_id))
        elif peer is not None and now < peer.lost_at + RESUME_SECONDS:
            peer.held[stream] = request_id
        else:
            effects.append(DropResult(stream, request_id))
        if environment.ending:
            effects.append(Stop(stream, "retired"))
        return effects

    # -- wishes --------------------------------------------------------------------------------------------------
    def on_want(self, gateway: str, *, oldest_ms: int, waiting: int, now: float) -> list[Effect]:
        """WANT: idle environments move there, at most ``waiting``; busy ones remember it until ENOUGH or so many came."""
        peer = self._gateways.get(gateway)
        if peer is None or not peer.linked:
            return []
        peer.want_since = now - oldest_ms / 1000
        idle = self._idle_by_last_use()
        peer.want_count = max(0, waiting - sum(environment.gateway == gateway for environment in idle))
        return self._grant(now) if peer.want_count else []

    def on_enough(self, gateway: str, now: float) -> list[Effect]:
        """ENOUGH: takes back the WANT. What had parked there for it is free for another wish."""
        peer = self._gateways.get(gateway)
        if peer is None:
            return []
        peer.want_count = 0
        for environment in self._environments.values():
            if environment.gateway == gateway:
                environment.held_until = 0.0
        return [*self._grant(now), *(self._leave(gateway, now) if peer.leaving and peer.linked else ())]

    # -- time ----------------------------------------------------------------------------------------------------
    def on_tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for gateway, peer in self._gateways.items():
            if not peer.linked and now >= peer.lost_at + RESUME_SECONDS:
                effects += self._give_up(gateway, peer, now)
        return effects

    def next_deadline(self) -> float | None:
        """When ``on_tick`` has something to do, None for never."""
        lost = [
            peer.lost_at + RESUME_SECONDS
            for gateway, peer in self._gateways.items()
            if not peer.linked and (peer.held or self._is_home(gateway))
        ]
        return min(lost, default=None)

    # -- what is known, for the shell's logs and metrics ---------------------------------------------------------
    def state(self, stream: int) -> str:
        """``init``, ``idle``, ``busy``, ``draining`` or ``gone``."""
        environment = self._environments.get(stream)
        return "gone" if environment is None else environment.state

    def epoch(self, stream: int) -> int:
        return self._environments[stream].epoch

    def streams(self) -> list[int]:
        return list(self._environments)

    # -- decisions -----------------------------------------------------------------------------------------------
    def _oldest_want(self) -> str | None:
        wanting = [(peer.want_since, name) for name, peer in self._gateways.items() if peer.want_count and peer.linked]
        return min(wanting)[1] if wanting else None

    def _grant(self, now: float) -> list[Effect]:
        """Let idle environments move to those who wish for one, the oldest wish first."""
        effects: list[Effect] = []
        for environment in self._idle_by_last_use():
            wanting = self._oldest_want()
            if wanting is None:
                break
            if environment.gateway != wanting and now >= environment.held_until:
                effects += self._move(environment, wanting, now)
        return effects

    def _place(self, environment: _Environment) -> str | None:
        """Where an idle environment is to park; None if no gateway is linked."""
        wanting = self._oldest_want()
        if wanting is not None:
            return wanting
        last = self._gateways.get(environment.gateway) if environment.gateway is not None else None
        if last is not None and last.linked and not last.leaving:
            return environment.gateway
        staying = [name for name, peer in self._gateways.items() if peer.linked and not peer.leaving]
        if staying:
            return staying[0]
        if last is not None and last.linked:
            return environment.gateway
        return next((name for name, peer in self._gateways.items() if peer.linked), None)

    def _assign(self, environment: _Environment, gateway: str | None, now: float) -> None:
        environment.held_until = 0.0
        if environment.gateway != gateway:
            environment.gateway = gateway
            environment.epoch += 1
        if gateway is not None and (peer := self._gateways[gateway]).want_count:
            peer.want_count -= 1
            environment.held_until = now + HOLD_SECONDS

    def _park(self, environment: _Environment, gateway: str | None, now: float) -> list[Effect]:
        self._assign(environment, gateway, now)
        if gateway is None:
            return []
        idle_ms = int((now - environment.idle_since) * 1000)
        return [Send(gateway, FrameType.PARKED, environment.stream, environment.epoch, Parked(idle_ms))]

    def _move(self, environment: _Environment, gateway: str | None, now: float) -> list[Effect]:
        effects: list[Effect] = []
        old = environment.gateway
        if old is not None and (peer := self._gateways.get(old)) is not None and peer.linked:
            effects.append(Send(old, FrameType.UNPARKED, environment.stream, environment.epoch))
        return effects + self._park(environment, gateway, now)

    def _give_up(self, gateway: str, peer: _Gateway, now: float) -> list[Effect]:
        effects: list[Effect] = [DropResult(stream, request_id) for stream, request_id in peer.held.items()]
        peer.held = {}
        for environment in self._idle_by_last_use():
            if environment.gateway == gateway:
                effects += self._park(environment, self._place(environment), now)
        return effects

    def _retire(
        self, gateway: str, environment: _Environment, *, reason: str, when_busy: str, idle_ms: int, now: float
    ) -> list[Effect]:
        if environment.state == "draining" or environment.ending:
            return [Send(gateway, FrameType.DRAINING, environment.stream, environment.epoch)]
        if when_busy == "refuse" and (environment.state != "idle" or now < environment.held_until):
            return [Send(gateway, FrameType.REFUSED, environment.stream, body=Refused("", "busy"))]
        if environment.state == "busy":
            environment.ending = True
            return self._drain(environment)
        idle_for = int((now - environment.idle_since) * 1000)
        if environment.state == "idle" and idle_for < idle_ms:
            return [Send(gateway, FrameType.REFUSED, environment.stream, body=Refused("", "fresh", idle_for))]
        environment.state = "draining"
        return [*self._drain(environment), Stop(environment.stream, reason)]

    def _drain(self, environment: _Environment) -> list[Effect]:
        return self._tell_all(FrameType.DRAINING, environment.stream, None, environment.epoch)

    def _tell_all(self, kind: FrameType, stream: int, body: EnvironmentStarted | None, epoch: int = 0) -> list[Effect]:
        return [Send(name, kind, stream, epoch, body) for name, peer in self._gateways.items() if peer.linked]

    def _idle_by_last_use(self) -> list[_Environment]:
        idle = [environment for environment in self._environments.values() if environment.state == "idle"]
        return sorted(idle, key=lambda environment: environment.idle_since, reverse=True)

    def _is_home(self, gateway: str) -> bool:
        return any(environment.state == "idle" and environment.gateway == gateway for environment in self._environments.values())

    def _states_for(self, gateway: str) -> list[EnvironmentState]:
        held = dict(self._gateways[gateway].held)
        states = []
        for stream, environment in self._environments.items():
            mine = environment.gateway == gateway
            request_id = held.pop(stream, environment.request_id if mine else "")
            states.append(
                EnvironmentState(
                    stream=stream,
                    environment_id=environment.environment_id,
                    epoch=environment.epoch,
                    state="draining" if environment.ending else environment.state,
                    parked_here=mine and environment.state == "idle",
                    request_id=request_id,
                    accepted=environment.accepted.get(gateway, 0),
                )
            )
        states += (EnvironmentState(stream, "", 0, "gone", False, request_id) for stream, request_id in held.items())
        return states
