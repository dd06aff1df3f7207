"""Several gateways with a fixed number of environments between them, and callers who call again as soon as they are answered.

The real dispatchers, parkings and scaler in virtual time; every word takes WORD_SECONDS, in order. It counts the words and how long each
invocation took. Nothing fails here: that is the business of tests/support/simulation.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from kappa_core.link import effects as wanted
from kappa_core.link.dispatch import Dispatcher
from kappa_core.link.effects import Effect
from kappa_core.link.frames import EnvironmentState, FrameType, Hello
from kappa_core.link.parking import Parking
from kappa_core.link.scale import Scaler

WORD_SECONDS: Final = 0.0004
"""From one end to the other, between processes on one machine."""
PAUSE_SECONDS: Final = 0.0005
"""From an answer to its caller's next call."""
REVISION: Final = "f.1"
WARM_UP_SECONDS: Final = 5.0
WORK: Final = ("INVOKE", "PARKED", "RESULT")
"""The words that every invocation takes."""


class SharedEnvironments:
    """Run it with :meth:`run`, then read the rest."""

    def __init__(self, *, gateways: int, environments: int, callers: int, run_seconds: float) -> None:
        """``run_seconds`` is the mean of what an invocation takes; single ones take between half and one and a half of it."""
        self.now = 0.0
        self.words: Counter[str] = Counter()
        """By kind, since the warm-up."""
        self.seconds: list[float] = []
        """Of each invocation since the warm-up."""
        self.moves = 0
        """How often an environment parked at another gateway than before."""
        self._dice = random.Random(1)
        self._numbers = itertools.count(1)
        self._run_seconds = run_seconds
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._names = [f"g{number}" for number in range(gateways)]
        self._dispatchers = {name: Dispatcher() for name in self._names}
        self._supervisors: dict[int, Parking] = {}
        """By link, which has the same number at every gateway."""
        self._home: dict[int, str] = {}
        self._calls: dict[str, tuple[float, str]] = {}
        self._scaler = Scaler(new_id=lambda: f"e{next(self._numbers)}", policy=lambda _: 0)
        self._scaler.on_pool("account", 1000, 0.0)
        self._scaler.on_function("f", "account", None, 0.0)
        self._scaler.on_revision(REVISION, "f", 0.0)
        self._scaler.take_over(1, (), self._names, 0.0)
        for name in self._names:
            self._scaler.on_gateway_up(name, 0.0)
        for link in range(1, environments + 1):
            self._begin(link)
        for number in range(callers):
            self._after(0.0, self._call, self._names[number % gateways])

    def run(self, seconds: float) -> None:
        """So many seconds after a warm-up, whose words and invocations are forgotten."""
        self._run_until(WARM_UP_SECONDS)
        self.words.clear()
        self.seconds.clear()
        self.moves = 0
        self._run_until(WARM_UP_SECONDS + seconds)

    def words_each(self) -> float:
        """Words for an invocation besides WORK's three."""
        return (self.words.total() - 3 * len(self.seconds)) / len(self.seconds)

    def percentile(self, percent: float) -> float:
        """Of ``seconds``."""
        return sorted(self.seconds)[int(len(self.seconds) * percent / 100)]

    # -- time ---------------------------------------------------------------------------------------------------------
    def _run_until(self, end: float) -> None:
        while self.now < end:
            machines: list[Scaler | Dispatcher] = [self._scaler, *self._dispatchers.values()]
            deadline = min((at for each in machines if (at := each.next_deadline()) is not None), default=end)
            if self._events and self._events[0][0] <= deadline:
                at, _, happens, arguments = heapq.heappop(self._events)
                self.now = max(self.now, at)
                happens(*arguments)
            else:
                self.now = max(self.now, deadline)
                self._scaled(self._scaler.on_tick(self.now))
                for name, dispatcher in self._dispatchers.items():
                    self._dispatched(name, dispatcher.on_tick(self.now))
            for name, dispatcher in self._dispatchers.items():
                if dispatcher.dirty:
                    self._dispatched(name, dispatcher.flush(self.now))

    def _after(self, seconds: float, happens: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), happens, arguments))

    def _say(self, word: str, hears: Callable[..., None], *arguments: Any) -> None:
        self.words[word] += 1
        self._after(WORD_SECONDS, hears, *arguments)

    # -- callers ------------------------------------------------------------------------------------------------------
    def _call(self, gateway: str) -> None:
        request_id = f"r{next(self._numbers)}"
        self._calls[request_id] = (self.now, gateway)
        self._dispatched(gateway, self._dispatchers[gateway].invoke(request_id, REVISION, "f", self.now))

    # -- what a gateway wants, and hears -------------------------------------------------------------------------------
    def _dispatched(self, gateway: str, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case wanted.Dispatch():
                    self._say("INVOKE", self._invoked, gateway, effect)
                case wanted.Report():
                    self._say("DEMAND", self._demanded, gateway, effect)
                case wanted.Send():
                    self._say(effect.kind.name, self._told, gateway, effect)
                case _:
                    raise AssertionError(effect)

    def _result(self, gateway: str, link: int, stream: int, request_id: str) -> None:
        assert self._dispatchers[gateway].on_result(link, stream, request_id, self.now)
        began, caller_of = self._calls.pop(request_id)
        self.seconds.append(self.now - began)
        self._after(PAUSE_SECONDS, self._call, caller_of)

    def _heard(self, gateway: str, link: int, effect: wanted.Send) -> None:
        dispatcher, stream, body = self._dispatchers[gateway], effect.stream, effect.body
        match effect.kind:
            case FrameType.PARKED:
                self.moves += self._home.get(link) != gateway
                self._home[link] = gateway
                self._dispatched(gateway, dispatcher.on_parked(link, stream, effect.epoch, body.idle_ms, self.now))  # type: ignore[union-attr]
            case FrameType.UNPARKED:
                self._dispatched(gateway, dispatcher.on_unparked(link, stream, self.now))
            case FrameType.REFUSED:
                self._dispatched(gateway, dispatcher.on_refused(link, stream, body.request_id, self.now))  # type: ignore[union-attr]
            case other:
                raise AssertionError(other)

    def _collect(self, gateway: str, effect: wanted.SendCollect) -> None:
        dispatcher = self._dispatchers[gateway]
        self._dispatched(gateway, dispatcher.flush(self.now, hold=False))
        answer = dispatcher.collect(effect.collect.function_key, effect.collect.number)
        self._say("COLLECTED", self._collected, gateway, answer)

    # -- what the scaler wants, and hears ------------------------------------------------------------------------------
    def _scaled(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case wanted.SendCollect():
                    self._say("COLLECT", self._collect, effect.gateway, effect)
                case wanted.RetireEnvironment():
                    self._scaler.on_retire_refused(effect.environment_id, "busy", 0, self.now)
                case _:
                    raise AssertionError(effect)

    def _demanded(self, gateway: str, effect: wanted.Report) -> None:
        self._scaled(self._scaler.on_demand(gateway, effect.demand, self.now))

    def _collected(self, gateway: str, answer: Any) -> None:
        self._scaled(self._scaler.on_collected(gateway, answer, self.now))

    # -- what a supervisor wants, and hears ----------------------------------------------------------------------------
    def _begin(self, link: int) -> None:
        """An environment that is ready and parked at some gateway, as all are told."""
        parking = self._supervisors[link] = Parking()
        for name in self._names:
            parking.on_link_up(name, 0.0)
        home = self._home[link] = self._names[link % len(self._names)]
        environment_id = f"e{next(self._numbers)}"
        parking.on_start(home, [environment_id], 0.0)
        parking.on_ready(1, 0.0)
        self._scaler.on_environment(environment_id, REVISION, "ready", 0.0)
        for name, dispatcher in self._dispatchers.items():
            state = EnvironmentState(1, environment_id, parking.epoch(1), "idle", parked_here=name == home)
            dispatcher.on_hello(link, Hello(f"s{link}", 1, 1, REVISION, 1, [state], dial=1), 0.0)

    def _parked(self, link: int, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case wanted.Run():
                    self._after(self._run_seconds * self._dice.uniform(0.5, 1.5), self._finished, link, effect.stream)
                case wanted.SendResult():
                    self._say("RESULT", self._result, effect.gateway, link, effect.stream, effect.request_id)
                case wanted.Send():
                    self._say(effect.kind.name, self._heard, str(effect.to), link, effect)
                case _:
                    raise AssertionError(effect)

    def _invoked(self, gateway: str, effect: wanted.Dispatch) -> None:
        parking = self._supervisors[effect.link]
        self._parked(effect.link, parking.on_invoke(gateway, effect.stream, effect.epoch, effect.request_id, self.now))

    def _finished(self, link: int, stream: int) -> None:
        self._parked(link, self._supervisors[link].on_finished(stream, self.now))

    def _told(self, gateway: str, effect: wanted.Send) -> None:
        link, body = int(effect.to), effect.body
        parking = self._supervisors[link]
        if effect.kind is FrameType.WANT:
            self._parked(link, parking.on_want(gateway, oldest_ms=body.oldest_ms, waiting=body.waiting, now=self.now))  # type: ignore[union-attr]
        else:
            assert effect.kind is FrameType.ENOUGH
            self._parked(link, parking.on_enough(gateway, self.now))
