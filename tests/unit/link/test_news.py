"""What a dispatcher says of those who wait: at once when it matters, from time to time while something runs that will serve them."""

from __future__ import annotations

import pytest

from kappa_core.link.dispatch import Dispatcher
from kappa_core.link.effects import Effect, Report, Send
from kappa_core.link.frames import EnvironmentState, FrameType, Hello, Want
from kappa_core.link.news import NEWS_EACH_SECONDS, NEWS_SECONDS, WANT_AGAIN_SECONDS
from shared_environments import WORK, SharedEnvironments

V1 = "f@1"
SOON = NEWS_SECONDS / 2


def hello(supervisor: str = "s", *, environments: int = 1, parked_here: bool = True) -> Hello:
    states = [
        EnvironmentState(stream, f"{supervisor}-{stream}", 1, "idle", parked_here=parked_here)
        for stream in range(1, environments + 1)
    ]
    return Hello(supervisor, 1, 1, V1, 1, states, dial=1)


def busy() -> Dispatcher:
    """One environment, which runs; one waits, as has been said at 1.0."""
    dispatcher = Dispatcher()
    dispatcher.on_hello(1, hello(), 0.0)
    dispatcher.invoke("r1", V1, "f", 1.0)
    dispatcher.invoke("r2", V1, "f", 1.0)
    assert said(dispatcher.flush(1.0)) == [1, FrameType.WANT]
    return dispatcher


def said(effects: list[Effect]) -> list[int | FrameType]:
    """Waiters of a DEMAND, kinds of everything else."""
    return [each.demand.waiting if isinstance(each, Report) else each.kind for each in effects if isinstance(each, Report | Send)]


def wants(effects: list[Effect]) -> list[int]:
    return [each.body.waiting for each in effects if isinstance(each, Send) and isinstance(each.body, Want)]


class TestPace:
    def test_that_somebody_waits_is_said_at_once(self) -> None:
        busy()

    def test_what_changes_soon_after_is_said_when_it_is_due(self) -> None:
        dispatcher = busy()
        dispatcher.invoke("r3", V1, "f", 1.0 + SOON)
        assert dispatcher.flush(1.0 + SOON) == []
        assert dispatcher.next_deadline() == 1.0 + NEWS_SECONDS
        dispatcher.on_tick(1.0 + NEWS_SECONDS)
        assert said(dispatcher.flush(1.0 + NEWS_SECONDS)) == [2, FrameType.WANT]

    def test_what_is_due_is_said_though_the_clock_counts_milliseconds(self) -> None:
        dispatcher = busy()
        dispatcher.invoke("r3", V1, "f", 1.0 + SOON)
        dispatcher.flush(1.0 + SOON)
        dispatcher.on_tick(1.0 + NEWS_SECONDS)
        assert said(dispatcher.flush(1.0 + NEWS_SECONDS - 0.0005)) == [2, FrameType.WANT]

    def test_that_nobody_waits_any_more_is_said_when_it_is_due(self) -> None:
        dispatcher = busy()
        dispatcher.on_parked(1, 1, 2, 0, 1.0 + SOON)
        assert dispatcher.flush(1.0 + SOON) == []
        dispatcher.on_tick(1.0 + NEWS_SECONDS)
        assert said(dispatcher.flush(1.0 + NEWS_SECONDS)) == [0, FrameType.ENOUGH]
        assert dispatcher.next_deadline() is None

    def test_where_nothing_runs_every_change_is_said_at_once(self) -> None:
        dispatcher = Dispatcher()
        for number in range(3):
            at = 1.0 + number * SOON / 3
            dispatcher.invoke(f"r{number}", V1, "f", at)
            assert said(dispatcher.flush(at)) == [number + 1]

    def test_the_scaler_that_asks_is_told_everything_first(self) -> None:
        dispatcher = busy()
        dispatcher.invoke("r3", V1, "f", 1.0 + SOON)
        assert dispatcher.flush(1.0 + SOON) == []
        assert said(dispatcher.flush(1.0 + SOON, hold=False)) == [2, FrameType.WANT]
        assert dispatcher.next_deadline() == pytest.approx(1.0 + SOON + WANT_AGAIN_SECONDS)

    def test_a_new_scaler_is_told_at_once(self) -> None:
        dispatcher = busy()
        dispatcher.on_scaler_changed()
        assert said(dispatcher.flush(1.0 + SOON)) == [1]

    def test_many_supervisors_are_told_less_often(self) -> None:
        dispatcher = Dispatcher()
        many = 100
        for number in range(many):
            dispatcher.on_hello(number + 1, hello(f"s{number}", parked_here=number == 0), 0.0)
        dispatcher.invoke("r1", V1, "f", 1.0)
        dispatcher.invoke("r2", V1, "f", 1.0)
        dispatcher.flush(1.0)
        dispatcher.invoke("r3", V1, "f", 1.001)
        assert dispatcher.flush(1.0 + NEWS_SECONDS) == []
        assert dispatcher.next_deadline() == 1.0 + many * NEWS_EACH_SECONDS


class TestWishes:
    def test_each_supervisor_is_asked_for_its_share(self) -> None:
        dispatcher = Dispatcher()
        for number in range(4):
            dispatcher.invoke(f"r{number}", V1, "f", 0.0)
        dispatcher.on_hello(1, hello("one", parked_here=False), 0.0)
        dispatcher.on_hello(2, hello("other", parked_here=False), 0.0)
        assert wants(dispatcher.flush(0.0)) == [2, 2]

    def test_a_supervisor_with_many_environments_may_send_them_all(self) -> None:
        dispatcher = Dispatcher()
        for number in range(4):
            dispatcher.invoke(f"r{number}", V1, "f", 0.0)
        dispatcher.on_hello(1, hello("one", parked_here=False), 0.0)
        dispatcher.on_hello(2, hello("other", environments=9, parked_here=False), 0.0)
        assert wants(dispatcher.flush(0.0)) == [2, 4]

    def test_a_wish_is_renewed_once_as_many_as_it_asked_for_have_come(self) -> None:
        dispatcher = busy()
        for number in range(3, 6):
            dispatcher.invoke(f"r{number}", V1, "f", 1.001)
        dispatcher.flush(1.0 + NEWS_SECONDS)
        for epoch in range(2, 5):
            dispatcher.on_parked(1, 1, epoch, 0, 1.02 + epoch / 1000)
        assert said(dispatcher.flush(1.03)) == [1]
        dispatcher.invoke("r6", V1, "f", 1.04)
        dispatcher.on_parked(1, 1, 5, 0, 1.04)
        assert said(dispatcher.flush(1.04)) == [1, FrameType.WANT]


class TestSeveralGateways:
    @pytest.mark.parametrize(("gateways", "environments", "callers"), [(2, 2, 8), (2, 4, 32), (3, 8, 24)])
    def test_nobody_waits_much_longer_than_others_at_whatever_gateway(
        self, gateways: int, environments: int, callers: int
    ) -> None:
        world = SharedEnvironments(gateways=gateways, environments=environments, callers=callers, run_seconds=0.002)
        world.run(2.0)
        assert max(world.seconds) < 3 * world.percentile(50)

    def test_waiting_for_short_invocations_takes_few_words(self) -> None:
        world = SharedEnvironments(gateways=2, environments=4, callers=8, run_seconds=0.002)
        world.run(2.0)
        assert world.words_each() < 5

    def test_who_has_an_environment_of_their_own_needs_no_words_at_all(self) -> None:
        world = SharedEnvironments(gateways=2, environments=8, callers=8, run_seconds=0.002)
        world.run(2.0)
        assert set(world.words) == set(WORK)
