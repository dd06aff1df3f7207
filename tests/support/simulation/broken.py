"""Machines with one rule taken out each: the simulation must catch every one of them, or its checks prove nothing."""

from __future__ import annotations

from kappa_core.link.capacity import Function
from kappa_core.link.dispatch import Dispatcher
from kappa_core.link.effects import Effect, EnvironmentLost, Run, Send
from kappa_core.link.frames import Deny, FrameType
from kappa_core.link.parking import Parking
from kappa_core.link.scale import Scaler


class NoEpochCheck(Parking):
    """Accepts an INVOKE whatever epoch it names and whatever the environment does."""

    __slots__ = ()

    def on_invoke(self, gateway: str, stream: int, epoch: int, request_id: str, now: float) -> list[Effect]:
        effects = super().on_invoke(gateway, stream, epoch, request_id, now)
        environment = self._environments.get(stream)
        if environment is None or environment.state not in {"idle", "busy"} or any(isinstance(e, Run) for e in effects):
            return effects
        environment.state, environment.request_id, environment.gateway = "busy", request_id, gateway
        environment.epoch += 1
        return [Run(stream, request_id)]


class ForgetsWhatItAccepted(Parking):
    """Does not say in its HELLO which INVOKE it has accepted."""

    __slots__ = ()

    def on_invoke(self, gateway: str, stream: int, epoch: int, request_id: str, now: float) -> list[Effect]:
        effects = super().on_invoke(gateway, stream, epoch, request_id, now)
        if stream in self._environments:
            self._environments[stream].accepted.clear()
        return effects


class RunsLostAgain(Dispatcher):
    """Dispatches again what was lost with its link."""

    __slots__ = ()

    def on_tick(self, now: float) -> list[Effect]:
        lost = [invocation for supervisor in self._lost for invocation in self._in_flight_on(supervisor)]
        effects: list[Effect] = []
        for effect in super().on_tick(now):
            again = next(
                (each for each in lost if isinstance(effect, EnvironmentLost) and each.request_id == effect.request_id), None
            )
            if again is None:
                effects.append(effect)
            else:
                again.environment = None
                effects += self.invoke(again.request_id, again.queue.revision, again.queue.function_key, again.arrived)
        return effects


class DeniesEveryone(Dispatcher):
    """Answers a denial to whoever waits when it arrives."""

    __slots__ = ()

    def on_deny(self, deny: Deny, now: float) -> list[Effect]:
        return super().on_deny(Deny(deny.revision, 1_000_000, 1_000_000, deny.reason), now)


class LastComeFirstServed(Dispatcher):
    __slots__ = ()

    def _next_waiter(self, queue):  # type: ignore[no-untyped-def]
        queue.waiters.rotate(1)
        return super()._next_waiter(queue)


class FirstUsedFirst(Dispatcher):
    __slots__ = ()

    def invoke(self, request_id: str, revision: str, function_key: str, now: float) -> list[Effect]:
        queue = self._queues.get(revision)
        if queue is not None:
            queue.idle = dict.fromkeys(reversed(queue.idle))
        return super().invoke(request_id, revision, function_key, now)


class NeverSaysWant(Dispatcher):
    """Idle environments elsewhere never hear of its waiters."""

    __slots__ = ()

    def flush(self, now: float, *, hold: bool = True) -> list[Effect]:
        return [e for e in super().flush(now, hold=hold) if not (isinstance(e, Send) and e.kind is FrameType.WANT)]


class Generous(Scaler):
    """Starts one environment too many."""

    __slots__ = ()

    def _start(self, revision, need, now):  # type: ignore[no-untyped-def]
        function: Function = revision.function
        function.pool.limit += 1
        if function.reserved is not None:
            function.reserved += 1
        try:
            return super()._start(revision, need, now)
        finally:
            function.pool.limit -= 1
            if function.reserved is not None:
                function.reserved -= 1


class ForgetsInventory(Scaler):
    """A new holder starts from nothing."""

    __slots__ = ()

    def take_over(self, epoch, known, gateways, now):  # type: ignore[no-untyped-def]
        return super().take_over(epoch, (), gateways, now)


class CountsGoneTooEarly(Scaler):
    """Stops counting an environment as soon as it drains."""

    __slots__ = ()

    def on_environment(self, environment_id: str, revision: str, state: str, now: float) -> list[Effect]:
        effects = super().on_environment(environment_id, revision, state, now)
        if state == "draining":
            effects += self.on_environment_gone(environment_id, "drains", now)
        return effects


class NeverReaps(Scaler):
    __slots__ = ()

    def _reap(self, environment, now):  # type: ignore[no-untyped-def]
        return []


class KeepsNothing(Scaler):
    """Starts nothing for provisioned concurrency."""

    __slots__ = ()

    def _hold(self, revision, now):  # type: ignore[no-untyped-def]
        return []


class LendsWhatIsSetAside(Scaler):
    """Gives the room of provisioned environments to those on demand."""

    __slots__ = ()

    def _start(self, revision, need, now):  # type: ignore[no-untyped-def]
        function: Function = revision.function
        aside, of_pool = function.provisioned, function.pool.provisioned
        function.provisioned = function.pool.provisioned = 0
        try:
            return super()._start(revision, need, now)
        finally:
            function.provisioned, function.pool.provisioned = aside, of_pool


class DeniesDespiteProvisioned(Scaler):
    """Looks at environments on demand alone before it turns somebody away."""

    __slots__ = ()

    def _review(self, revision, now):  # type: ignore[no-untyped-def]
        function = revision.function
        if self._state == "acting" and function is not None and revision.demands and function.limit() <= 0:
            return self._deny(revision, function.throttle_reason())
        return super()._review(revision, now)


class TakesTheLastUsed(Dispatcher):
    """Whether it is provisioned or not."""

    __slots__ = ()

    def _park(self, environment, epoch, used):  # type: ignore[no-untyped-def]
        environment.provisioned = False
        return super()._park(environment, epoch, used)
