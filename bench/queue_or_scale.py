"""Queue or scale: what it saves and what it costs in latency, beside starting an environment for every waiter, on the same arrivals.

    python -m bench.queue_or_scale                     # all loads, cold starts of 0.8 s as in a cluster
    python -m bench.queue_or_scale --start 0.03        # as on one machine

The real Dispatcher and Scaler of one gateway in virtual time; only what takes time is made up: when requests arrive, how long they run,
how long a start takes. Nothing is measured on a clock, so that a busy machine changes no number.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.report import Report

from kappa_core.link import effects as wanted
from kappa_core.link.dispatch import Dispatcher
from kappa_core.link.effects import Effect
from kappa_core.link.frames import EnvironmentState, Hello
from kappa_core.link.policy import Policy, queue_or_scale, start_at_once
from kappa_core.link.scale import Scaler

START_SECONDS: Final = 0.8
"""About what a cold start takes in a cluster; see docs/benchmarks.md."""
IDLE_SECONDS: Final = 60.0
MINUTES: Final = 10
BEGIN_SECONDS: Final = 10.0
"""When the load begins behind the first request: one environment is there, and what things take is known."""
FIRST: Final = "first"
HERE: Final = "gateway"
REVISION: Final = "f.1"
POLICIES: Final[dict[str, Policy]] = {"always scale": start_at_once, "queue or scale": queue_or_scale}


class Load(NamedTuple):
    """Requests of one kind: when each arrives, and how long it runs, in seconds."""

    name: str
    arrivals: Callable[[random.Random, float], Iterator[float]]
    """Takes the dice and until when."""
    runs: Callable[[random.Random], float]


def steady(rate: float) -> Callable[[random.Random, float], Iterator[float]]:
    """So many a second, each whenever it likes."""

    def arrive(dice: random.Random, until: float) -> Iterator[float]:
        now = 0.0
        while (now := now + dice.expovariate(rate)) < until:
            yield now

    return arrive


def bursts(size: int, every: float) -> Callable[[random.Random, float], Iterator[float]]:
    """So many within 50 ms, every so many seconds, and two a second between."""

    def arrive(dice: random.Random, until: float) -> Iterator[float]:
        together = [
            at + dice.uniform(0, 0.05) for at in itertools.takewhile(until.__gt__, itertools.count(5, every)) for _ in range(size)
        ]
        yield from sorted([*together, *steady(2)(dice, until)])

    return arrive


def growing(most: float) -> Callable[[random.Random, float], Iterator[float]]:
    """From nothing to so many a second."""

    def arrive(dice: random.Random, until: float) -> Iterator[float]:
        return (at for at in steady(most)(dice, until) if dice.random() < at / until)

    return arrive


LOADS: Final = (
    Load("20/s of 100 ms", steady(20), lambda dice: dice.expovariate(1 / 0.1)),
    Load("200/s of 5 ms", steady(200), lambda dice: dice.expovariate(1 / 0.005)),
    Load("bursts of 50, of 50 ms each", bursts(50, 20), lambda dice: dice.expovariate(1 / 0.05)),
    Load("growing to 100/s of 100 ms", growing(100), lambda dice: dice.expovariate(1 / 0.1)),
    Load("20/s, most of 20 ms, one in fifty of 3 s", steady(20), lambda dice: 3.0 if dice.random() < 0.02 else 0.02),
    Load("2/s of 2 s", steady(2), lambda dice: dice.expovariate(1 / 2)),
)


class Environment:
    """One that was ordered; ``link`` is its supervisor's, and its number."""

    def __init__(self, environment_id: str, link: int) -> None:
        self.environment_id = environment_id
        self.link = link
        self.epoch = 0
        self.busy = False
        self.idle_since = 0.0


class Cluster:
    """One gateway, its environments, and time."""

    def __init__(self, policy: Policy, load: Load, *, start_seconds: float, seed: str) -> None:
        self._dice = random.Random(seed)
        self._load = load
        self._start_seconds = start_seconds
        self._runs = random.Random(f"{seed} runs")
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count(1)
        self._environments: dict[str, Environment] = {}
        self._by_link: dict[int, Environment] = {}
        self._run_seconds: dict[str, float] = {}
        self._arrived: dict[str, float] = {}
        self._counted_at = 0.0
        self.now = 0.0
        self.waits: list[float] = []
        """From arrival to answer, without the run itself."""
        self.failed = 0
        self.started = 0
        self.most = 0
        self.environment_seconds = 0.0
        self.dispatcher = Dispatcher()
        self.scaler = Scaler(new_id=lambda: f"e{next(self._numbers)}", policy=policy, idle_seconds=IDLE_SECONDS)
        for effects in (
            self.scaler.on_pool("account", 1000, 0.0),
            self.scaler.on_function("f", "account", None, 0.0),
            self.scaler.on_revision(REVISION, "f", 0.0),
            self.scaler.take_over(1, (), [HERE], 0.0),
            self.scaler.on_gateway_up(HERE, 0.0),
        ):
            self._do(effects)

    def run(self, seconds: float) -> None:
        """A first request, which finds nothing and is not counted; then that many seconds of arrivals, each run to its end."""
        self._at(0.0, self._arrive, FIRST)
        arrivals = random.Random(self._dice.random())
        for number, at in enumerate(self._load.arrivals(arrivals, seconds)):
            self._at(BEGIN_SECONDS + at, self._arrive, f"r{number}")
        while self._events or self._arrived:
            self._step()
        self._count()

    def _step(self) -> None:
        deadlines = [at for at in (self.dispatcher.next_deadline(), self.scaler.next_deadline()) if at is not None]
        if self._events and self._events[0][0] <= min(deadlines, default=self._events[0][0]):
            at, _, happens, arguments = heapq.heappop(self._events)
            self.now = max(self.now, at)
            happens(*arguments)
        else:
            self.now = max(self.now, min(deadlines))
            self._do(self.dispatcher.on_tick(self.now))
            self._do(self.scaler.on_tick(self.now))
        while self.dispatcher.dirty:
            self._do(self.dispatcher.flush(self.now))

    def _at(self, at: float, happens: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), happens, arguments))

    # -- what happens -------------------------------------------------------------------------------------------------
    def _arrive(self, request_id: str) -> None:
        self._arrived[request_id] = self.now
        self._run_seconds[request_id] = self._load.runs(self._runs)
        self._do(self.dispatcher.invoke(request_id, REVISION, "f", self.now))

    def _ready(self, environment: Environment) -> None:
        environment.idle_since = self.now
        self._do(self.scaler.on_environment(environment.environment_id, REVISION, "ready", self.now))
        state = EnvironmentState(1, environment.environment_id, environment.epoch, "idle", parked_here=True)
        self._do(
            self.dispatcher.on_hello(environment.link, Hello(environment.environment_id, 1, 1, REVISION, 1, [state]), self.now)
        )

    def _ended(self, environment: Environment, request_id: str) -> None:
        environment.busy, environment.idle_since = False, self.now
        environment.epoch += 1
        self.dispatcher.on_result(environment.link, 1, request_id, self.now)
        waited = round(self.now - self._arrived.pop(request_id) - self._run_seconds.pop(request_id), 6)
        if request_id != FIRST:
            self.waits.append(waited)
        self._do(self.dispatcher.on_parked(environment.link, 1, environment.epoch, 0, self.now))

    # -- what is wanted -----------------------------------------------------------------------------------------------
    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case wanted.Dispatch():
                    environment = self._by_link[effect.link]
                    environment.busy = True
                    self._at(self.now + self._run_seconds[effect.request_id], self._ended, environment, effect.request_id)
                case wanted.Report():
                    self._do(self.scaler.on_demand(HERE, effect.demand, self.now))
                case wanted.SendCollect():
                    answer = self.dispatcher.collect(effect.collect.function_key, effect.collect.number)
                    self._do(self.scaler.on_collected(HERE, answer, self.now))
                case wanted.StartEnvironments():
                    self._order(effect.environment_ids)
                case wanted.RetireEnvironment():
                    self._retire(self._environments[effect.environment_id], effect)
                case wanted.Throttled() | wanted.Unavailable():
                    self.failed += 1
                    del self._arrived[effect.request_id]
                case wanted.Send():
                    pass  # WANT and ENOUGH: there is no other gateway where an environment could be
                case _:
                    raise AssertionError(effect)

    def _order(self, environment_ids: list[str]) -> None:
        self._count()
        for environment_id in environment_ids:
            environment = Environment(environment_id, next(self._numbers))
            self._environments[environment_id] = self._by_link[environment.link] = environment
            self._at(self.now + self._start_seconds * self._dice.uniform(0.9, 1.1), self._ready, environment)
        self.started += len(environment_ids)
        self.most = max(self.most, len(self._environments))

    def _retire(self, environment: Environment, effect: wanted.RetireEnvironment) -> None:
        idle_ms = int((self.now - environment.idle_since) * 1000)
        if environment.busy or idle_ms < effect.idle_ms:
            reason = "busy" if environment.busy else "fresh"
            self._do(self.scaler.on_retire_refused(environment.environment_id, reason, idle_ms, self.now))
            return
        self._count()
        del self._environments[environment.environment_id], self._by_link[environment.link]
        self._do(self.dispatcher.on_gone(environment.link, 1, "", "retired", self.now))
        self._do(self.dispatcher.on_link_down(environment.link, self.now))
        self._do(self.scaler.on_environment_gone(environment.environment_id, "retired", self.now))

    def _count(self) -> None:
        """Bring the sum of environment-seconds up to now."""
        self.environment_seconds += len(self._environments) * (self.now - self._counted_at)
        self._counted_at = self.now


def compare(report: Report, load: Load, *, start_seconds: float, minutes: float, seed: str) -> None:
    """Both policies on the same arrivals and runs."""
    for name, policy in POLICIES.items():
        cluster = Cluster(policy, load, start_seconds=start_seconds, seed=seed)
        cluster.run(minutes * 60)
        waits = sorted(cluster.waits)
        title = f"queue or scale: {load.name}, starts of {start_seconds:g} s, {len(waits):,} requests: {name}"
        report.add(title, "environments started", cluster.started, "")
        report.add(title, "environments at most", cluster.most, "")
        report.add(title, "environments on average", cluster.environment_seconds / cluster.now, "")
        report.add(title, "waiting, mean", 1000 * sum(waits) / len(waits), "ms")
        for percent in (50, 99, 99.9):
            report.add(title, f"waiting, p{percent:g}", 1000 * waits[int(len(waits) * percent / 100)], "ms")
        report.add(title, "waiting, longest", 1000 * waits[-1], "ms")
        report.add(title, "refused", cluster.failed, "", at_most=0)


def measure(report: Report, *, scratch: Path, rie: Path | None, quick: bool) -> None:  # one signature for all
    """Every load, with starts as in a cluster."""
    for load in LOADS:
        compare(report, load, start_seconds=START_SECONDS, minutes=1 if quick else MINUTES, seed="1")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=float, default=START_SECONDS, help="seconds that a start takes")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of arrivals")
    parser.add_argument("--seed", default="1")
    chosen = parser.parse_args()
    report = Report(quick=False)
    for load in LOADS:
        compare(report, load, start_seconds=chosen.start, minutes=chosen.minutes, seed=chosen.seed)


if __name__ == "__main__":
    main()
