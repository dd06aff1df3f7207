"""Dispatch: waiters, parked environments and what is in flight at one gateway."""

import pytest

from kappa_core.link.dispatch import CAPACITY, NO_ROOM, TOO_LATE, Dispatcher
from kappa_core.link.effects import CloseLink, Dispatch, Effect, EnvironmentLost, Report, Send, Throttled, Unavailable
from kappa_core.link.frames import RESUME_SECONDS, Deny, EnvironmentState, FrameType, Hello
from kappa_core.link.news import WANT_AGAIN_SECONDS

V1, V2 = "f.1", "f.2"


def state(stream: int, **changes: object) -> EnvironmentState:
    values = {"stream": stream, "environment_id": f"e{stream}", "epoch": 1, "state": "idle", "parked_here": True}
    return EnvironmentState(**(values | changes))  # type: ignore[arg-type]


def hello(*states: EnvironmentState, supervisor: str = "s", revision: str = V1, dial: int = 1) -> Hello:
    return Hello(supervisor, 1, 1, revision, 1, list(states), dial=dial)


def with_idle(number: int = 1, **settings: float) -> Dispatcher:
    """Link 1 with streams 1… idle, used in this order."""
    dispatcher = Dispatcher(**settings)  # type: ignore[arg-type]
    dispatcher.on_hello(1, hello(*(state(stream) for stream in range(1, number + 1))), 0.0)
    return dispatcher


def waiting(*requests: str, **settings: float) -> Dispatcher:
    dispatcher = Dispatcher(**settings)  # type: ignore[arg-type]
    for at, request in enumerate(requests):
        assert dispatcher.invoke(request, V1, "f", at / 10) == []
    return dispatcher


def reports(effects: list[Effect]) -> list[tuple[str, int, int]]:
    """(revision, waiting, in flight) of the demands."""
    return [(e.demand.revision, e.demand.waiting, e.demand.in_flight) for e in effects if isinstance(e, Report)]


def kinds(effects: list[Effect]) -> list[FrameType]:
    return [effect.kind for effect in effects if isinstance(effect, Send)]


class TestDispatching:
    def test_an_idle_environment_is_taken_at_once_naming_its_epoch(self) -> None:
        assert with_idle().invoke("r", V1, "f", 1.0) == [Dispatch(1, 1, 1, "r")]

    def test_a_warm_invocation_has_nothing_to_report(self) -> None:
        dispatcher = with_idle()
        dispatcher.flush(0.0)
        dispatcher.invoke("r", V1, "f", 1.0)
        dispatcher.on_parked(1, 1, 2, 0, 2.0)
        dispatcher.on_result(1, 1, "r", 2.0)
        assert not dispatcher.dirty
        assert dispatcher.next_deadline() is None

    def test_the_environment_that_was_used_last_is_taken_first(self) -> None:
        dispatcher = with_idle(3)
        dispatcher.invoke("r", V1, "f", 1.0)
        dispatcher.invoke("q", V1, "f", 1.0)
        dispatcher.on_parked(1, 2, 2, 0, 2.0)
        dispatcher.on_parked(1, 3, 2, 0, 3.0)
        dispatcher.on_parked(1, 2, 3, 1500, 3.1)  # it moved away and back, idle since 1.6
        assert dispatcher.invoke("next", V1, "f", 4.0) == [Dispatch(1, 3, 2, "next")]

    def test_a_revision_takes_no_environment_of_another_one(self) -> None:
        assert with_idle().invoke("r", V2, "f", 1.0) == []

    def test_waiters_are_served_in_order_of_arrival(self) -> None:
        dispatcher = waiting("r1", "r2")
        dispatcher.on_hello(1, hello(state(1, parked_here=False, state="init")), 1.0)
        assert dispatcher.on_parked(1, 1, 1, 0, 2.0) == [Dispatch(1, 1, 1, "r1")]
        assert dispatcher.on_parked(1, 1, 2, 0, 3.0) == [Dispatch(1, 1, 2, "r2")]

    def test_a_refused_invocation_returns_to_the_head_with_its_age(self) -> None:
        dispatcher = with_idle()
        dispatcher.invoke("r1", V1, "f", 1.0)
        dispatcher.invoke("r2", V1, "f", 2.0)
        dispatcher.on_unparked(1, 1, 2.1)
        assert dispatcher.on_refused(1, 1, "r1", 2.2) == []
        assert dispatcher.on_parked(1, 1, 5, 0, 3.0) == [Dispatch(1, 1, 5, "r1")]

    def test_a_refused_invocation_takes_another_idle_environment_at_once(self) -> None:
        dispatcher = with_idle(2)
        dispatcher.invoke("r1", V1, "f", 1.0)
        assert dispatcher.on_refused(1, 2, "r1", 1.1) == [Dispatch(1, 1, 1, "r1")]

    @pytest.mark.parametrize("taken_back", ["unparked", "draining", "gone", "link down"])
    def test_what_is_no_longer_parked_here_is_not_dispatched_to(self, taken_back: str) -> None:
        dispatcher = with_idle()
        if taken_back == "unparked":
            dispatcher.on_unparked(1, 1, 1.0)
        elif taken_back == "draining":
            dispatcher.on_draining(1, 1, 1.0)
        elif taken_back == "gone":
            dispatcher.on_gone(1, 1, "", "over", 1.0)
        else:
            dispatcher.on_link_down(1, 1.0)
        assert dispatcher.invoke("r", V1, "f", 2.0) == []

    def test_a_result_counts_only_from_where_the_invocation_was_sent(self) -> None:
        dispatcher = with_idle(2)
        dispatcher.on_hello(2, hello(state(2), supervisor="other"), 0.0)
        dispatcher.invoke("r", V1, "f", 1.0)
        assert not dispatcher.on_result(1, 1, "r", 2.0)
        assert not dispatcher.on_result(1, 2, "r", 2.0)
        assert not dispatcher.on_result(2, 2, "nobody", 2.0)
        assert dispatcher.on_result(2, 2, "r", 2.0)
        assert not dispatcher.on_result(2, 2, "r", 2.0)


class TestWaiting:
    def test_a_full_queue_turns_away_at_once(self) -> None:
        dispatcher = waiting("r1", "r2", queue_bound=2)
        assert dispatcher.invoke("r3", V1, "f", 1.0) == [Unavailable("r3", NO_ROOM)]

    def test_a_waiter_waits_no_longer_than_the_bound(self) -> None:
        dispatcher = waiting("r1", "r2", capacity_wait=5.0)
        assert dispatcher.next_deadline() == 5.0
        assert dispatcher.on_tick(5.0) == [Unavailable("r1", TOO_LATE)]
        assert dispatcher.next_deadline() == 5.1

    def test_who_hung_up_before_its_dispatch_is_forgotten(self) -> None:
        dispatcher = waiting("r1", "r2")
        assert dispatcher.cancel("r1", 1.0)
        dispatcher.on_hello(1, hello(state(1)), 1.0)
        assert dispatcher.on_deny(Deny(V1, 99, 9, "x"), 1.0) == []

    def test_who_hung_up_after_its_dispatch_does_not_stop_it(self) -> None:
        dispatcher = with_idle()
        dispatcher.invoke("r", V1, "f", 1.0)
        assert not dispatcher.cancel("r", 1.1)
        assert dispatcher.on_result(1, 1, "r", 2.0)

    def test_demand_and_wish_are_told_once_per_change_and_taken_back(self) -> None:
        dispatcher = waiting("r1", "r2")
        dispatcher.on_hello(1, hello(state(1, parked_here=False, state="busy")), 0.2)
        effects = dispatcher.flush(0.3)
        assert reports(effects) == [(V1, 2, 0)]
        assert kinds(effects) == [FrameType.WANT]
        assert dispatcher.flush(0.3) == []
        dispatcher.on_parked(1, 1, 1, 0, 0.4)
        dispatcher.on_parked(1, 1, 2, 0, 0.5)
        effects = dispatcher.flush(0.6)
        assert reports(effects) == [(V1, 0, 2)]
        assert kinds(effects) == [FrameType.ENOUGH]

    def test_a_wish_is_said_again_while_it_lasts_and_to_supervisors_that_come(self) -> None:
        dispatcher = waiting("r1")
        dispatcher.on_hello(1, hello(), 0.0)
        dispatcher.flush(0.0)
        assert kinds(dispatcher.on_hello(2, hello(supervisor="other"), 0.1)) == [FrameType.WANT]
        assert dispatcher.next_deadline() == WANT_AGAIN_SECONDS
        dispatcher.on_tick(WANT_AGAIN_SECONDS)
        assert kinds(dispatcher.flush(WANT_AGAIN_SECONDS)) == [FrameType.WANT, FrameType.WANT]

    def test_everything_is_reported_again_to_a_new_scaler(self) -> None:
        dispatcher = with_idle()
        dispatcher.invoke("r1", V1, "f", 1.0)
        dispatcher.invoke("r2", V2, "f", 1.0)
        dispatcher.flush(1.0)
        dispatcher.on_scaler_changed()
        assert sorted(reports(dispatcher.flush(2.0))) == [(V1, 0, 1), (V2, 1, 0)]


class TestDenials:
    def denied(self, dispatcher: Dispatcher, sequence: int, *, count: int = 99, reason: str = "Reason") -> list[Effect]:
        return dispatcher.on_deny(Deny(V1, sequence, count, reason), 1.0)

    def test_exactly_the_waiters_that_the_demand_counted_are_throttled(self) -> None:
        dispatcher = waiting("r1", "r2")
        dispatcher.flush(0.2)
        dispatcher.invoke("r3", V1, "f", 0.3)
        assert self.denied(dispatcher, 1) == [Throttled("r2", "Reason"), Throttled("r1", "Reason")]
        assert dispatcher.waiting() == 1

    def test_no_more_than_the_denial_counts_and_the_youngest_first(self) -> None:
        dispatcher = waiting("r1", "r2", "r3")
        dispatcher.flush(0.3)
        assert self.denied(dispatcher, 1, count=1) == [Throttled("r3", "Reason")]

    def test_who_was_dispatched_meanwhile_is_not_denied(self) -> None:
        dispatcher = waiting("r1", "r2")
        dispatcher.flush(0.3)
        dispatcher.on_hello(1, hello(state(1)), 0.4)
        assert self.denied(dispatcher, 1) == [Throttled("r2", "Reason")]

    def test_who_was_refused_meanwhile_is_not_denied_on_the_strength_of_its_own_dispatch(self) -> None:
        dispatcher = waiting("r1")
        dispatcher.flush(0.1)
        dispatcher.on_hello(1, hello(state(1)), 0.2)
        dispatcher.on_refused(1, 1, "r1", 0.3)
        assert self.denied(dispatcher, 1) == []
        dispatcher.flush(0.4)
        assert self.denied(dispatcher, 2) == [Throttled("r1", "Reason")]

    def test_a_denial_for_lack_of_capacity_is_unavailable_with_its_cause(self) -> None:
        dispatcher = waiting("r1")
        dispatcher.flush(0.1)
        assert self.denied(dispatcher, 1, reason=CAPACITY + "no python3.9") == [Unavailable("r1", "no python3.9")]


class TestLostLinks:
    def busy(self) -> Dispatcher:
        dispatcher = with_idle()
        dispatcher.invoke("r", V1, "f", 1.0)
        dispatcher.on_link_down(1, 2.0)
        return dispatcher

    def test_what_is_in_flight_is_lost_after_the_resume_time_and_never_dispatched_again(self) -> None:
        dispatcher = self.busy()
        assert dispatcher.next_deadline() == 2.0 + RESUME_SECONDS
        (lost,) = dispatcher.on_tick(2.0 + RESUME_SECONDS)
        assert isinstance(lost, EnvironmentLost)
        assert not dispatcher.on_result(1, 1, "r", 5.0)
        assert dispatcher.on_hello(2, hello(state(1, epoch=3, accepted=1)), 5.0) == []

    def test_a_link_that_is_back_in_time_resumes_what_runs(self) -> None:
        dispatcher = self.busy()
        assert dispatcher.on_hello(2, hello(state(1, state="busy", parked_here=False, request_id="r", accepted=1)), 3.0) == []
        assert dispatcher.on_tick(9.0) == []
        assert dispatcher.on_result(2, 1, "r", 9.0)

    def test_a_result_that_waited_for_the_link_is_taken_though_the_environment_is_idle_again(self) -> None:
        dispatcher = self.busy()
        dispatcher.on_hello(2, hello(state(1, epoch=2, request_id="r", accepted=1)), 3.0)
        assert dispatcher.on_result(2, 1, "r", 3.1)

    def test_what_was_never_accepted_is_dispatched_again(self) -> None:
        assert self.busy().on_hello(2, hello(state(1, accepted=0)), 3.0) == [Dispatch(2, 1, 1, "r")]

    @pytest.mark.parametrize(
        "states",
        [
            pytest.param([state(1, epoch=2, accepted=1)], id="it ran and its result was lost"),
            pytest.param([], id="its environment is gone"),
        ],
    )
    def test_what_ran_without_a_result_is_lost(self, states: list[EnvironmentState]) -> None:
        (lost,) = self.busy().on_hello(2, hello(*states), 3.0)
        assert isinstance(lost, EnvironmentLost)

    def test_what_dies_with_its_environment_is_lost(self) -> None:
        dispatcher = with_idle()
        dispatcher.invoke("r", V1, "f", 1.0)
        assert dispatcher.on_gone(1, 1, "r", "killed", 2.0) == [EnvironmentLost("r", "killed")]

    def test_what_crossed_the_end_of_its_environment_waits_for_the_refusal(self) -> None:
        dispatcher = with_idle()
        dispatcher.invoke("r", V1, "f", 1.0)
        assert dispatcher.on_gone(1, 1, "", "retired", 2.0) == []
        assert dispatcher.on_refused(1, 1, "r", 2.1) == []
        assert dispatcher.is_waiting("r")

    def test_a_second_connection_of_a_supervisor_replaces_the_first(self) -> None:
        dispatcher = with_idle()
        assert dispatcher.on_hello(2, hello(state(1), dial=2), 1.0) == [CloseLink(1, "replaced by a later connection")]
        assert dispatcher.invoke("r", V1, "f", 1.1) == [Dispatch(2, 1, 1, "r")]

    def test_a_hello_of_an_earlier_dial_that_comes_late_is_turned_away(self) -> None:
        dispatcher = Dispatcher()
        dispatcher.on_hello(2, hello(state(1), dial=2), 1.0)
        (closed,) = dispatcher.on_hello(1, hello(state(1), dial=1), 1.1)
        assert isinstance(closed, CloseLink)
        assert closed.link == 1
        assert dispatcher.invoke("r", V1, "f", 1.2) == [Dispatch(2, 1, 1, "r")]

    def test_a_hello_of_an_earlier_dial_that_comes_after_the_end_of_the_later_one_says_nothing_of_what_ran_there(self) -> None:
        dispatcher = Dispatcher()
        dispatcher.on_hello(2, hello(state(1), dial=2), 1.0)
        dispatcher.invoke("r", V1, "f", 1.1)
        dispatcher.on_link_down(2, 1.2)
        (closed,) = dispatcher.on_hello(1, hello(state(1, parked_here=False, state="init"), dial=1), 1.3)
        assert isinstance(closed, CloseLink)
        assert closed.link == 1
        assert not dispatcher.is_waiting("r")


class TestUpdates:
    def test_waiters_move_to_the_new_revision_in_order_of_arrival(self) -> None:
        dispatcher = waiting("r1", "r3")
        dispatcher.invoke("r2", V2, "f", 0.05)
        dispatcher.on_superseded(V1, V2, "f", 1.0)
        effects = dispatcher.on_hello(1, hello(state(1), state(2), state(3), revision=V2), 1.0)
        assert [effect.request_id for effect in effects if isinstance(effect, Dispatch)] == ["r1", "r2", "r3"]

    def test_who_still_asks_for_the_old_revision_gets_the_new_one(self) -> None:
        dispatcher = with_idle()
        dispatcher.on_superseded(V1, V2, "f", 1.0)
        dispatcher.invoke("r", V1, "f", 1.1)
        assert reports(dispatcher.flush(1.2)) == [(V2, 1, 0)]

    def test_what_runs_on_the_old_revision_ends_there(self) -> None:
        dispatcher = with_idle()
        dispatcher.invoke("r", V1, "f", 0.5)
        dispatcher.on_superseded(V1, V2, "f", 1.0)
        assert dispatcher.on_result(1, 1, "r", 2.0)

    def test_what_the_old_revision_refuses_waits_for_the_new_one(self) -> None:
        dispatcher = with_idle()
        dispatcher.invoke("r", V1, "f", 0.5)
        dispatcher.on_superseded(V1, V2, "f", 1.0)
        dispatcher.flush(1.0)
        dispatcher.on_refused(1, 1, "r", 1.1)
        dispatcher.invoke("later", V2, "f", 1.2)
        effects = dispatcher.on_hello(2, hello(state(1), supervisor="new", revision=V2), 2.0)
        assert [effect.request_id for effect in effects if isinstance(effect, Dispatch)] == ["r"]

    def test_a_revision_that_comes_back_serves_again(self) -> None:
        dispatcher = with_idle()
        dispatcher.on_superseded(V1, V2, "f", 1.0)
        dispatcher.on_superseded(V2, V1, "f", 2.0)
        assert dispatcher.invoke("r", V2, "f", 3.0) == [Dispatch(1, 1, 1, "r")]

    def test_a_leaving_gateway_says_so_on_links_that_are_and_that_come(self) -> None:
        dispatcher = with_idle()
        assert kinds(dispatcher.leave(1.0)) == [FrameType.LEAVING]
        assert kinds(dispatcher.on_hello(2, hello(supervisor="other"), 2.0)) == [FrameType.LEAVING]


class TestCollections:
    def test_what_is_in_flight_and_idle_is_named_with_its_epoch(self) -> None:
        dispatcher = with_idle(2)
        dispatcher.invoke("r", V1, "f", 1.0)
        collected = dispatcher.collect("f", 7)
        assert (collected.number, collected.busy, collected.idle) == (7, [("e2", 1)], [("e1", 1)])

    def test_an_environment_that_parked_again_is_idle_before_its_result_is_here(self) -> None:
        dispatcher = with_idle()
        dispatcher.invoke("r", V1, "f", 1.0)
        dispatcher.on_parked(1, 1, 2, 0, 2.0)
        assert dispatcher.collect("f", 1).busy == []

    def test_other_functions_are_left_out_unless_all_are_asked_for(self) -> None:
        dispatcher = with_idle()
        dispatcher.invoke("r", V1, "f", 1.0)
        assert dispatcher.collect("other", 1).busy == []
        assert dispatcher.collect("", 1).busy == [("e1", 1)]

    def test_a_revision_that_nothing_is_left_of_is_forgotten(self) -> None:
        dispatcher = with_idle()
        dispatcher.on_link_down(1, 1.0)
        dispatcher.flush(1.0)
        assert dispatcher._queues == {}
