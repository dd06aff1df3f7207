"""Queue or scale: who waits for a busy environment, who gets a new one, and that waiting has an end."""

from __future__ import annotations

import msgspec
import pytest

from kappa_core.link.capacity import Known
from kappa_core.link.dispatch import Dispatcher
from kappa_core.link.effects import Effect, Report, SendCollect, StartEnvironments
from kappa_core.link.frames import Collected, Demand, EnvironmentState, Hello
from kappa_core.link.pace import REMEMBERED, Pace, RunTimes
from kappa_core.link.policy import Situation, patient_seconds, queue_or_scale, start_at_once
from kappa_core.link.scale import Scaler

HERE, REVISION = "gateway-1", "f.1"
KNOWN = Situation(
    need=10,
    waiting=10,
    oldest_seconds=0.0,
    starting=0,
    ready=2,
    run_seconds=0.2,
    start_seconds=0.8,
    standing_seconds=0.0,
    head_start=0.0,
    rest_seconds=0.2,
)
"""Two environments that will have ended eight invocations before a new one could begin its first: four are counted on."""


def decided(**changed: float) -> int:
    return queue_or_scale(msgspec.structs.replace(KNOWN, **changed))


def test_only_those_whom_the_busy_ones_serve_too_late_get_a_new_environment() -> None:
    assert decided() == 6
    assert decided(need=4, waiting=4) == 0
    assert start_at_once(KNOWN) == 10


def test_an_invocation_that_goes_on_for_longer_than_a_start_takes_is_never_waited_for() -> None:
    assert decided(rest_seconds=0.8) == 10


def test_one_that_has_been_starting_for_long_counts_for_what_it_will_have_done_by_then() -> None:
    assert decided(ready=0, starting=1, head_start=0.4) == 10
    assert decided(ready=0, starting=1, head_start=0.4, run_seconds=0.04, rest_seconds=0.04) == 6


@pytest.mark.parametrize("unknown", ["run_seconds", "start_seconds", "ready"])
def test_nobody_waits_on_the_strength_of_what_is_not_known(unknown: str) -> None:
    assert decided(**{unknown: 0}) == 10


def test_a_queue_that_stands_gets_as_many_environments_again_one_time_after_the_other() -> None:
    few = {"need": 3, "waiting": 3}
    assert decided(**few, standing_seconds=0.79) == 0
    assert decided(**few, standing_seconds=0.8) == 2
    assert decided(**few, standing_seconds=0.8, starting=1) == 0


def test_a_waiter_who_was_promised_too_much_gets_an_environment_and_so_do_as_many_as_there_are() -> None:
    few = {"need": 3, "waiting": 3}
    assert decided(**few, oldest_seconds=1.19) == 0
    assert decided(**few, oldest_seconds=1.21) == 2
    assert decided(**few, oldest_seconds=1.21, starting=2) == 0


def test_where_nothing_is_ready_long_after_it_should_be_everybody_gets_an_environment() -> None:
    assert decided(ready=0, starting=3, head_start=3.6, oldest_seconds=1.21, run_seconds=0.01) == 10


def test_slow_starts_are_no_reason_to_leave_anybody_waiting_for_long() -> None:
    slow = {"start_seconds": 40.0, "run_seconds": 10.0, "rest_seconds": 5.0}
    assert decided(**slow) == 10
    assert decided(start_seconds=40.0, need=3, waiting=3, oldest_seconds=2.99) == 0
    assert decided(start_seconds=40.0, need=3, waiting=3, oldest_seconds=3.01) == 2


def test_whoever_was_left_waiting_is_looked_at_when_that_may_change() -> None:
    assert patient_seconds(KNOWN) == 0.8
    assert patient_seconds(msgspec.structs.replace(KNOWN, standing_seconds=0.75)) == pytest.approx(0.05)
    assert patient_seconds(msgspec.structs.replace(KNOWN, starting=1, oldest_seconds=0.2)) == pytest.approx(1.0)


def test_a_mean_goes_over_all_until_there_are_many_and_then_follows_slowly() -> None:
    runs = RunTimes()
    assert (runs.mean, runs.rest) == (0.0, 0.0)
    for seconds in (1.0, 2.0, 3.0):
        runs.add(seconds)
    assert runs.mean == pytest.approx(2.0)
    for _ in range(100 * REMEMBERED):
        runs.add(5.0)
    assert runs.mean == pytest.approx(5.0)


@pytest.mark.parametrize(("runs_of", "rest"), [((0.2,) * 50, 0.1), ((0.02,) * 49 + (3.0,), 1.135)], ids=["all alike", "one long"])
def test_what_runs_goes_on_for_half_of_its_time_or_for_much_longer_where_one_of_many_is_long(
    runs_of: tuple[float, ...], rest: float
) -> None:
    runs = RunTimes()
    for seconds in runs_of:
        runs.add(seconds)
    assert runs.rest == pytest.approx(rest, rel=0.01)


def test_a_queue_stands_from_its_first_waiter_or_the_last_environment_until_nobody_waits() -> None:
    pace, demand = Pace(), Demand(REVISION, "f", 1, 0, 0, 1)
    assert pace.standing_seconds(1.0) == 0.0
    pace.waits([demand], 1.0)
    pace.waits([demand], 2.0)
    assert pace.standing_seconds(3.0) == 2.0
    pace.started(0.5, 3.5)
    assert pace.standing_seconds(4.0) == 0.5
    pace.waits([], 5.0)
    assert pace.standing_seconds(6.0) == 0.0


def test_the_slowest_gateways_times_count_and_are_kept_when_one_comes_that_knows_none() -> None:
    pace = Pace()
    pace.waits([Demand(REVISION, "f", 1, 0, 0, 1, run_us, 2 * run_us) for run_us in (0, 5_000, 2_000)], 0.0)
    pace.waits([Demand(REVISION, "f", 1, 0, 0, 2)], 1.0)
    assert (pace.run_seconds, pace.rest_seconds) == (0.005, 0.01)


class TestDispatcher:
    """How long an invocation holds an environment is what its gateway reports."""

    def test_the_time_in_the_queue_is_no_part_of_it(self) -> None:
        dispatcher = Dispatcher()
        environment = EnvironmentState(1, "e1", epoch=1, state="idle", parked_here=True)
        hello = Hello("s", 1, 1, REVISION, 7, [environment])
        dispatcher.invoke("first", REVISION, "f", 0.0)
        dispatcher.invoke("second", REVISION, "f", 0.0)
        dispatcher.on_hello(1, hello, 1.0)
        dispatcher.on_result(1, 1, "first", 1.5)
        dispatcher.on_parked(1, 1, 2, 0, 1.5)
        dispatcher.invoke("third", REVISION, "f", 1.6)
        assert reported(dispatcher.flush(1.6)).run_us == 500_000
        dispatcher.on_result(1, 1, "second", 1.7)
        dispatcher.on_parked(1, 1, 3, 0, 1.7)
        dispatcher.invoke("fourth", REVISION, "f", 1.8)
        assert reported(dispatcher.flush(1.8)).run_us == 350_000


def reported(effects: list[Effect]) -> Demand:
    (demand,) = [effect.demand for effect in effects if isinstance(effect, Report)]
    return demand


class TestScaler:
    """What the scaler learns and does with it: a start of 0.8 s, invocations of 0.2 s."""

    def scaler(self) -> Scaler:
        names = iter(f"e{number}" for number in range(1, 100))
        scaler = Scaler(new_id=lambda: next(names))
        scaler.on_pool("account", 100, 0.0)
        scaler.on_function("f", "account", None, 0.0)
        scaler.on_revision(REVISION, "f", 0.0)
        scaler.take_over(1, (), [HERE], 0.0)
        scaler.on_gateway_up(HERE, 0.0)
        self.sequence = 0
        assert self.waits(scaler, 1, 0.0) == 1
        assert self.started(scaler, scaler.on_environment("e1", REVISION, "ready", 0.8), 0, 0.8) == 0
        assert self.waits(scaler, 0, 0.8) == 0
        return scaler

    def waits(self, scaler: Scaler, waiting: int, now: float, *, oldest: float = 0.0) -> int:
        """So many wait behind the busy e1. How many environments are started for them."""
        self.sequence += 1
        demand = Demand(REVISION, "f", waiting, int(oldest * 1000), 1, self.sequence, 200_000, 100_000)
        return self.started(scaler, scaler.on_demand(HERE, demand, now), waiting, now)

    def started(self, scaler: Scaler, effects: list[Effect], waiting: int, now: float) -> int:
        number = 0
        for effect in effects:
            if isinstance(effect, StartEnvironments):
                number += len(effect.environment_ids)
            elif isinstance(effect, SendCollect):
                collect = effect.collect
                answer = Collected(collect.function_key, collect.number, [("e1", 1)], [], {REVISION: waiting})
                number += self.started(scaler, scaler.on_collected(HERE, answer, now), waiting, now)
        return number

    def test_a_short_queue_is_left_to_the_busy_environment(self) -> None:
        assert self.waits(self.scaler(), 2, 2.0) == 0

    def test_a_longer_one_gets_environments_for_the_rest(self) -> None:
        assert self.waits(self.scaler(), 7, 2.0) == 5

    def test_a_waiter_that_was_left_waiting_is_looked_at_in_time(self) -> None:
        scaler = self.scaler()
        assert self.waits(scaler, 1, 2.0) == 0
        started = 0
        while not started:
            deadline = scaler.next_deadline()
            assert deadline is not None
            assert deadline <= 2.0 + 0.8 + 0.01
            started = self.started(scaler, scaler.on_tick(deadline), 1, deadline)
        assert started == 1

    def test_a_queue_that_never_empties_is_not_left_standing(self) -> None:
        scaler = self.scaler()
        for turn in range(8):
            assert self.waits(scaler, 2, 2.0 + turn / 10) == 0
        assert self.waits(scaler, 2, 2.85) == 1

    def test_a_new_holder_knows_nothing_and_lets_nobody_wait(self) -> None:
        scaler = self.scaler()
        scaler.stand_down()
        scaler = Scaler(new_id=lambda: "e9")
        scaler.on_pool("account", 100, 3.0)
        scaler.on_function("f", "account", None, 3.0)
        scaler.on_revision(REVISION, "f", 3.0)
        scaler.take_over(2, [Known("e1", REVISION, "ready")], [HERE], 3.0)
        scaler.on_gateway_up(HERE, 3.0)
        assert self.waits(scaler, 1, 3.0) == 1
