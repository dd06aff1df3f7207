"""Provisioned concurrency in the scaler and the dispatcher: kept without demand, apart from what runs on demand, and before it."""

from __future__ import annotations

import itertools

import pytest

from kappa_core.link.capacity import RESERVED_REASON, Known
from kappa_core.link.dispatch import Dispatcher
from kappa_core.link.effects import (
    Dispatch,
    Effect,
    ProvisionedChanged,
    RetireEnvironment,
    SendCollect,
    SendDeny,
    StartEnvironments,
    StartsFail,
    StopEnvironments,
)
from kappa_core.link.frames import Collected, Demand, Hello
from kappa_core.link.scale import Scaler
from kappa_core.rules.provisioned import Progress
from kappa_core.spec import INIT_FAILURE, initialization_type

HERE = "gateway-1"
V1, LATEST = "f.1", "f.$LATEST"


class Function:
    """A scaler with one function of two revisions, at a gateway that answers what the test says is busy and idle."""

    def __init__(self, *, account: int = 100, reserved: int | None = None, burst: int = 1000) -> None:
        numbers = itertools.count(1)
        self.scaler = Scaler(new_id=lambda: str(next(numbers)), burst=burst, idle_seconds=10.0)
        self.busy: list[str] = []
        self.idle: list[str] = []
        self.waiting: dict[str, int] = {}
        self.sequence = itertools.count(1)
        self.scaler.on_pool("account", account, 0.0)
        self.scaler.on_function("f", "account", reserved, 0.0)
        for revision in (V1, LATEST):
            self.scaler.on_revision(revision, "f", 0.0)
        self.scaler.take_over(1, (), [HERE], 0.0)
        self.scaler.on_gateway_up(HERE, 0.0)

    def provision(self, number: int, now: float = 0.0) -> list[Effect]:
        return self.settle(self.scaler.on_provisioned("f", {V1: (number, 60.0)} if number else {}, now), now)

    def waits(self, revision: str, number: int, now: float) -> list[Effect]:
        self.waiting = {revision: number}
        return self.settle(self.scaler.on_demand(HERE, Demand(revision, "f", number, 0, 0, next(self.sequence)), now), now)

    def ready(self, *names: str, revision: str = V1, now: float) -> list[Effect]:
        return [effect for name in names for effect in self.settle(self.scaler.on_environment(name, revision, "ready", now), now)]

    def gone(self, name: str, reason: str, now: float) -> list[Effect]:
        return self.settle(self.scaler.on_environment_gone(name, reason, now), now)

    def settle(self, effects: list[Effect], now: float) -> list[Effect]:
        wanted: list[Effect] = []
        queue = list(effects)
        while queue:
            effect = queue.pop(0)
            if isinstance(effect, SendCollect):
                busy, idle = [(name, 1) for name in self.busy], [(name, 1) for name in self.idle]
                answer = Collected(effect.collect.function_key, effect.collect.number, busy, idle, dict(self.waiting))
                queue += self.scaler.on_collected(HERE, answer, now)
            else:
                wanted.append(effect)
        return wanted


def started(effects: list[Effect]) -> list[str]:
    return [name for effect in effects if isinstance(effect, StartEnvironments) for name in effect.environment_ids]


def retired(effects: list[Effect]) -> list[tuple[str, str]]:
    return [(effect.environment_id, effect.when_busy) for effect in effects if isinstance(effect, RetireEnvironment)]


def denied(effects: list[Effect]) -> list[str]:
    return [effect.deny.reason for effect in effects if isinstance(effect, SendDeny)]


class TestKeeping:
    def test_as_many_are_started_without_demand_and_what_they_are_is_in_their_ids(self) -> None:
        effects = Function().provision(2)
        assert started(effects) == ["provisioned-1", "provisioned-2"]
        assert {initialization_type(name) for name in started(effects)} == {"provisioned-concurrency"}
        assert ProvisionedChanged(V1) in effects

    def test_how_far_it_has_come_is_told(self) -> None:
        it = Function()
        it.provision(2)
        assert it.scaler.provisioned(V1) == Progress(ready=0, allocated=2, revision=V1)
        assert ProvisionedChanged(V1) in it.ready("provisioned-1", now=1.0)
        assert it.scaler.provisioned(V1) == Progress(ready=1, allocated=2, revision=V1)

    def test_one_that_ends_is_replaced(self) -> None:
        it = Function()
        it.provision(1)
        it.ready("provisioned-1", now=1.0)
        assert started(it.gone("provisioned-1", "it exited", 2.0)) == ["provisioned-2"]
        it.ready("provisioned-2", now=2.5)
        assert started(it.settle(it.scaler.on_environment("provisioned-2", V1, "draining", 3.0), 3.0)) == ["provisioned-3"]

    def test_no_idle_window_ends_one(self) -> None:
        it = Function()
        it.provision(1)
        it.ready("provisioned-1", now=1.0)
        assert retired(it.scaler.on_tick(1000.0)) == []

    def test_fewer_of_them_finish_what_they_run(self) -> None:
        it = Function()
        it.provision(3)
        it.ready("provisioned-1", "provisioned-2", now=1.0)
        assert retired(it.provision(1, 2.0)) == [
            ("provisioned-3", "finish"),
            ("provisioned-1", "finish"),
        ]  # first what is no use yet
        assert retired(it.provision(0, 3.0)) == [("provisioned-2", "finish")]

    def test_the_scaling_rate_holds_for_them_too(self) -> None:
        it = Function(burst=10)
        assert len(started(it.provision(25))) == 10
        assert len(started(it.settle(it.scaler.on_tick(5.0), 5.0))) == 5

    def test_a_new_holder_finds_those_that_are_there(self) -> None:
        it = Function()
        it.provision(2)
        known = [Known("provisioned-1", V1, "ready"), Known("7", V1, "ready")]
        effects = it.scaler.take_over(2, known, [HERE], 5.0)
        assert started(effects) == ["provisioned-3"]
        assert ProvisionedChanged(V1) in effects

    def test_a_deleted_function_keeps_nothing(self) -> None:
        it = Function()
        it.provision(1)
        it.ready("provisioned-1", now=1.0)
        assert ("provisioned-1", "finish") in retired(it.scaler.on_function_removed("f", 2.0))
        assert started(it.gone("provisioned-1", "retired", 3.0)) == []


class TestFailing:
    def test_a_failed_init_is_repeated_ever_more_slowly_and_said(self) -> None:
        it = Function()
        it.provision(2)
        effects = it.gone("provisioned-1", f"{INIT_FAILURE}: Runtime.ExitError", 1.0)
        assert started(effects) == []
        assert it.scaler.provisioned(V1).cause.startswith(INIT_FAILURE)
        assert not [effect for effect in effects if isinstance(effect, StartsFail)]  # nobody's invocation is concerned
        it.gone("provisioned-2", INIT_FAILURE, 1.1)
        times = [now / 100 for now in range(110, 500) if started(it.settle(it.scaler.on_tick(now / 100), now / 100))]
        assert len(times) == 1  # one at a time
        assert times[0] >= 1.5

    def test_another_number_is_tried_at_once(self) -> None:
        it = Function()
        it.provision(1)
        it.gone("provisioned-1", INIT_FAILURE, 1.0)
        assert started(it.provision(2, 1.1)) == ["provisioned-2", "provisioned-3"]
        assert it.scaler.provisioned(V1).cause == ""

    def test_one_that_comes_up_ends_the_trouble(self) -> None:
        it = Function()
        it.provision(2)
        it.gone("provisioned-1", INIT_FAILURE, 1.0)
        effects = it.ready("provisioned-2", now=1.2)
        assert started(effects) == ["provisioned-3"]
        assert it.scaler.provisioned(V1).cause == ""

    def test_who_waits_is_not_told_of_it(self) -> None:
        it = Function()
        it.provision(1)
        for attempt in range(5):
            name = f"provisioned-{attempt + 1}"
            it.gone(name, INIT_FAILURE, 20.0 * attempt + 1)
            it.scaler.on_tick(20.0 * attempt + 18)
        effects = it.waits(V1, 1, 100.0)
        assert denied(effects) == []
        assert [initialization_type(name) for name in started(effects)] == ["on-demand"]

    def test_one_that_never_comes_is_given_up_at_its_own_deadline(self) -> None:
        it = Function()
        it.provision(1)
        assert not [effect for effect in it.scaler.on_tick(59.9) if isinstance(effect, StopEnvironments)]
        (stopped,) = [effect for effect in it.scaler.on_tick(60.0) if isinstance(effect, StopEnvironments)]
        assert stopped.environment_ids == ["provisioned-1"]


class TestLimits:
    def test_what_is_set_aside_is_not_lent_even_while_it_is_coming_up(self) -> None:
        it = Function(reserved=3)
        it.provision(2)
        assert started(it.waits(LATEST, 3, 0.1)) == ["3"]

    def test_reserved_equal_to_provisioned_leaves_nothing_for_others(self) -> None:
        it = Function(reserved=2)
        it.provision(2)
        it.ready("provisioned-1", "provisioned-2", now=1.0)
        assert denied(it.waits(LATEST, 1, 2.0)) == [RESERVED_REASON]

    def test_a_waiter_is_turned_away_only_when_its_provisioned_ones_are_busy_too(self) -> None:
        it = Function(reserved=2)
        it.provision(1)
        it.ready("provisioned-1", now=1.0)
        it.waits(LATEST, 1, 1.5)
        it.ready("2", revision=LATEST, now=2.0)
        it.waits(LATEST, 0, 2.0)
        it.busy, it.idle = ["2"], ["provisioned-1"]
        assert denied(it.waits(V1, 1, 3.0)) == []
        it.busy, it.idle = ["2", "provisioned-1"], []
        assert denied(it.settle(it.scaler.on_tick(3.5), 3.5)) == [RESERVED_REASON]

    def test_what_spills_over_runs_on_demand_up_to_the_rest_of_the_reservation(self) -> None:
        it = Function(reserved=3)
        it.provision(2)
        it.ready("provisioned-1", "provisioned-2", now=1.0)
        it.busy = ["provisioned-1", "provisioned-2"]
        assert started(it.waits(V1, 2, 2.0)) == ["3"]

    def test_environments_on_demand_give_way_after_what_they_run(self) -> None:
        it = Function(reserved=2)
        it.waits(LATEST, 2, 0.0)
        it.ready("1", "2", revision=LATEST, now=1.0)
        it.waits(LATEST, 0, 1.0)
        effects = it.provision(1, 2.0)
        assert started(effects) == []
        assert {name for name, _ in retired(effects)} <= {"1", "2"}
        first = retired(effects)[0][0]
        it.gone(first, "retired", 3.0)
        assert started(it.scaler.on_tick(3.0)) == ["provisioned-3"]

    def test_it_comes_out_of_what_functions_without_reservation_share(self) -> None:
        it = Function(account=3)
        it.scaler.on_function("g", "account", None, 0.0)
        it.scaler.on_revision("g.1", "g", 0.0)
        it.provision(2)
        effects = it.settle(it.scaler.on_demand(HERE, Demand("g.1", "g", 2, 0, 0, next(it.sequence)), 1.0), 1.0)
        assert started(effects) == ["3"]
        it.scaler.on_function("f", "account", 2, 2.0)  # a reservation: what is provisioned is inside of it
        assert it.scaler.provisioned(V1).allocated == 2


@pytest.mark.parametrize("order", list(itertools.permutations([("7", 5.0), ("provisioned-1", 1.0), ("provisioned-2", 2.0)])))
def test_an_idle_provisioned_environment_is_taken_before_one_on_demand(order: list[tuple[str, float]]) -> None:
    dispatcher = Dispatcher()
    dispatcher.on_hello(1, Hello("s", 1, 1, V1, 1, []), 0.0)
    streams = {name: stream for stream, (name, _) in enumerate(order, start=1)}
    for name, used in order:
        dispatcher.on_environment(1, streams[name], name, 6.0)
        dispatcher.on_parked(1, streams[name], 1, int((6.0 - used) * 1000), 6.0)
    taken = [
        effect.stream
        for number in range(3)
        for effect in dispatcher.invoke(f"r{number}", V1, "f", 6.0)
        if isinstance(effect, Dispatch)
    ]
    assert taken == [streams["provisioned-2"], streams["provisioned-1"], streams["7"]]
