"""Parking: the supervisor owns the state of its environments and parks an idle one at exactly one gateway."""

from typing import Any

import pytest

from kappa_core.link.effects import DropResult, Effect, End, Run, Send, SendHello, SendResult, StartEnvironment, Stop
from kappa_core.link.frames import RESUME_SECONDS, FrameType, Gone, Refused
from kappa_core.link.parking import HOLD_SECONDS, Parking

A, B, C = "gateway-a", "gateway-b", "gateway-c"


def linked(*gateways: str) -> Parking:
    parking = Parking()
    for gateway in gateways:
        parking.on_link_up(gateway, 0.0)
    return parking


def with_idle(*gateways: str, environments: int = 1) -> Parking:
    """Streams 1… are idle, parked at the first gateway."""
    parking = linked(*gateways)
    parking.on_start(gateways[0], [f"e{number}" for number in range(1, environments + 1)], 0.0)
    for stream in range(1, environments + 1):
        parking.on_ready(stream, 0.0)
    return parking


def frames(effects: list[Effect], kind: FrameType) -> list[tuple[str | int, int, int]]:
    """(to, stream, epoch) of the frames of a kind."""
    return [(e.to, e.stream, e.epoch) for e in effects if isinstance(e, Send) and e.kind is kind]


def refusal(effects: list[Effect]) -> str:
    (effect,) = effects
    assert isinstance(effect, Send)
    assert isinstance(effect.body, Refused)
    return effect.body.reason


def hello(effects: list[Effect]) -> Any:
    first = effects[0]
    assert isinstance(first, SendHello)
    return first


class TestStarting:
    def test_a_start_is_told_on_every_link_before_the_init_begins(self) -> None:
        effects = linked(A, B).on_start(A, ["e1"], 0.0)
        assert frames(effects, FrameType.ENVIRONMENT) == [(A, 1, 0), (B, 1, 0)]
        assert effects[-1] == StartEnvironment(1, "e1")

    def test_a_repeated_start_is_answered_and_starts_nothing(self) -> None:
        parking = linked(A)
        parking.on_start(A, ["e1"], 0.0)
        effects = parking.on_start(A, ["e1"], 0.1)
        assert frames(effects, FrameType.ENVIRONMENT) == [(A, 1, 0)]
        assert not any(isinstance(effect, StartEnvironment) for effect in effects)

    def test_a_ready_environment_parks_where_its_start_was_asked_for(self) -> None:
        parking = linked(A, B)
        parking.on_start(B, ["e1"], 0.0)
        assert [to for to, _, _ in frames(parking.on_ready(1, 1.0), FrameType.PARKED)] == [B]

    def test_a_ready_environment_parks_at_the_oldest_wish_first(self) -> None:
        parking = linked(A, B, C)
        parking.on_start(A, ["e1"], 0.0)
        parking.on_want(B, oldest_ms=100, waiting=1, now=1.0)
        parking.on_want(C, oldest_ms=900, waiting=1, now=1.0)
        assert [to for to, _, _ in frames(parking.on_ready(1, 1.0), FrameType.PARKED)] == [C]

    def test_an_environment_that_is_ready_before_any_link_parks_at_the_first_one(self) -> None:
        parking = Parking()
        parking.on_start(A, ["e1"], 0.0)
        parking.on_ready(1, 0.0)
        (state,) = hello(parking.on_link_up(B, 1.0)).environments
        assert state.parked_here
        assert parking.on_invoke(B, 1, state.epoch, "r", 1.0) == [Run(1, "r")]


class TestInvocations:
    def test_an_invoke_is_accepted_only_with_the_epoch_under_which_it_is_parked(self) -> None:
        parking = with_idle(A)
        assert parking.on_invoke(A, 1, 1, "r1", 1.0) == [Run(1, "r1")]

    @pytest.mark.parametrize(
        ("gateway", "stream", "epoch", "reason"),
        [
            pytest.param(A, 1, 0, "stale", id="an older epoch"),
            pytest.param(A, 1, 2, "stale", id="an epoch that is not reached"),
            pytest.param(B, 1, 1, "stale", id="not parked at this gateway"),
            pytest.param(A, 9, 1, "unknown", id="no such environment"),
        ],
    )
    def test_any_other_invoke_is_refused_and_runs_nothing(self, gateway: str, stream: int, epoch: int, reason: str) -> None:
        parking = with_idle(A, B)
        assert refusal(parking.on_invoke(gateway, stream, epoch, "r1", 1.0)) == reason
        assert parking.state(1) == "idle"

    def test_a_busy_environment_refuses_a_second_invoke(self) -> None:
        parking = with_idle(A)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        assert refusal(parking.on_invoke(A, 1, 1, "r2", 1.0)) == "stale"
        assert refusal(parking.on_invoke(A, 1, 2, "r3", 1.0)) == "stale"

    def test_the_parking_frame_goes_out_before_the_result(self) -> None:
        parking = with_idle(A)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        effects = parking.on_finished(1, 2.0)
        assert frames(effects[:1], FrameType.PARKED) == [(A, 1, 2)]
        assert effects[1] == SendResult(A, 1, "r1")

    def test_a_finished_environment_parks_towards_the_oldest_waiter(self) -> None:
        parking = with_idle(A, B)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        parking.on_want(B, oldest_ms=5, waiting=1, now=1.5)
        effects = parking.on_finished(1, 2.0)
        assert [to for to, _, _ in frames(effects, FrameType.PARKED)] == [B]
        assert effects[-1] == SendResult(A, 1, "r1")

    def test_a_restarted_environment_parks_only_when_it_is_ready_again(self) -> None:
        parking = with_idle(A)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        assert parking.on_finished(1, 2.0, then="restart") == [SendResult(A, 1, "r1")]
        assert frames(parking.on_ready(1, 3.0), FrameType.PARKED) == [(A, 1, 2)]

    def test_what_dies_while_it_runs_is_named_to_its_gateway_alone(self) -> None:
        parking = with_idle(A, B)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        bodies = {e.to: e.body for e in parking.on_gone(1, "killed", 2.0) if isinstance(e, Send)}
        assert bodies == {A: Gone("e1", "killed", "r1"), B: Gone("e1", "killed", "")}


class TestWishes:
    def test_an_idle_environment_moves_to_the_gateway_that_wants_it_under_a_new_epoch(self) -> None:
        parking = with_idle(A, B)
        effects = parking.on_want(B, oldest_ms=0, waiting=1, now=1.0)
        assert frames(effects, FrameType.UNPARKED) == [(A, 1, 1)]
        assert frames(effects, FrameType.PARKED) == [(B, 1, 2)]
        assert refusal(parking.on_invoke(A, 1, 1, "r", 1.0)) == "stale"

    def test_no_more_move_than_are_wanted(self) -> None:
        effects = with_idle(A, B, environments=5).on_want(B, oldest_ms=0, waiting=2, now=1.0)
        assert len(frames(effects, FrameType.PARKED)) == 2

    def test_what_is_parked_there_already_counts_towards_the_wish(self) -> None:
        parking = with_idle(A, B, environments=3)
        parking.on_want(B, oldest_ms=0, waiting=1, now=1.0)
        assert parking.on_want(B, oldest_ms=10, waiting=1, now=1.01) == []

    def test_a_move_keeps_the_idle_clock_running(self) -> None:
        (parked,) = (
            e.body
            for e in with_idle(A, B).on_want(B, oldest_ms=0, waiting=1, now=7.0)
            if isinstance(e, Send) and e.kind is FrameType.PARKED
        )
        assert getattr(parked, "idle_ms", None) == 7000

    def test_gateways_that_want_the_same_environment_do_not_take_it_from_each_other(self) -> None:
        parking = with_idle(A, B, C)
        parking.on_want(B, oldest_ms=10, waiting=1, now=1.0)
        assert parking.on_want(C, oldest_ms=500, waiting=1, now=1.01) == []
        assert parking.on_invoke(B, 1, 2, "r", 1.1) == [Run(1, "r")]

    def test_an_unused_environment_goes_to_the_next_wish_on_enough_at_once_or_after_the_hold(self) -> None:
        parking = with_idle(A, B, C)
        parking.on_want(B, oldest_ms=10, waiting=1, now=1.0)
        parking.on_want(C, oldest_ms=0, waiting=1, now=1.0)
        assert frames(parking.on_enough(B, 1.1), FrameType.PARKED) == [(C, 1, 3)]
        effects = parking.on_want(A, oldest_ms=0, waiting=1, now=1.1 + HOLD_SECONDS)
        assert frames(effects, FrameType.PARKED) == [(A, 1, 4)]

    def test_after_enough_a_finished_environment_stays_where_it_was_used(self) -> None:
        parking = with_idle(A, B)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        parking.on_want(B, oldest_ms=0, waiting=1, now=1.0)
        parking.on_enough(B, 1.1)
        assert frames(parking.on_finished(1, 2.0), FrameType.PARKED) == [(A, 1, 2)]


class TestLostLinks:
    def test_a_result_waits_for_the_link_and_is_sent_after_the_hello(self) -> None:
        parking = with_idle(A)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        parking.on_link_down(A, 2.0)
        parking.on_finished(1, 2.5)
        effects = parking.on_link_up(A, 3.0)
        (state,) = hello(effects).environments
        assert (state.request_id, state.accepted) == ("r1", 1)
        assert effects[1:] == [SendResult(A, 1, "r1")]

    def test_a_result_is_dropped_when_the_link_stays_away(self) -> None:
        parking = with_idle(A)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        parking.on_link_down(A, 2.0)
        parking.on_finished(1, 2.5)
        assert parking.next_deadline() == 2.0 + RESUME_SECONDS
        assert parking.on_tick(2.0 + RESUME_SECONDS) == [DropResult(1, "r1")]

    def test_a_result_that_comes_too_late_is_dropped_at_once(self) -> None:
        parking = with_idle(A, B)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        parking.on_link_down(A, 2.0)
        assert parking.on_finished(1, 2.0 + RESUME_SECONDS)[-1] == DropResult(1, "r1")

    def test_what_runs_goes_on_and_is_named_when_the_link_is_back(self) -> None:
        parking = with_idle(A)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        parking.on_link_down(A, 2.0)
        parking.on_tick(9.0)
        (state,) = hello(parking.on_link_up(A, 9.0)).environments
        assert (state.state, state.request_id, state.parked_here) == ("busy", "r1", False)
        assert parking.on_finished(1, 10.0)[-1] == SendResult(A, 1, "r1")

    def test_an_idle_environment_parks_elsewhere_after_the_resume_time(self) -> None:
        parking = with_idle(A, B)
        assert parking.on_link_down(A, 2.0) == []
        assert frames(parking.on_tick(2.0 + RESUME_SECONDS), FrameType.PARKED) == [(B, 1, 2)]

    def test_an_idle_environment_moves_at_once_where_it_is_wanted(self) -> None:
        parking = with_idle(A, B)
        parking.on_link_down(A, 2.0)
        effects = parking.on_want(B, oldest_ms=0, waiting=1, now=2.1)
        assert frames(effects, FrameType.PARKED) == [(B, 1, 2)]
        assert frames(effects, FrameType.UNPARKED) == []

    def test_the_result_of_an_environment_that_is_gone_is_still_sent(self) -> None:
        parking = with_idle(A)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        parking.on_link_down(A, 2.0)
        parking.on_finished(1, 2.1, then="end")
        parking.on_gone(1, "ended", 2.2)
        effects = parking.on_link_up(A, 2.5)
        (state,) = hello(effects).environments
        assert (state.state, state.request_id) == ("gone", "r1")
        assert effects[1:] == [SendResult(A, 1, "r1")]

    def test_a_removed_gateway_gets_nothing_any_more(self) -> None:
        parking = with_idle(A, B)
        assert frames(parking.on_gateway_removed(A, 2.0), FrameType.PARKED) == [(B, 1, 2)]
        assert parking.next_deadline() is None

    def test_a_leaving_gateway_keeps_nothing_idle_and_is_parked_at_for_who_waits_there_alone(self) -> None:
        parking = with_idle(A, B)
        assert frames(parking.on_leaving(A, 1.0), FrameType.PARKED) == [(B, 1, 2)]
        assert frames(parking.on_want(A, oldest_ms=999, waiting=1, now=1.0), FrameType.PARKED) == [(A, 1, 3)]
        parking.on_invoke(A, 1, 3, "r1", 1.1)
        assert frames(parking.on_finished(1, 1.2), FrameType.PARKED) == [(B, 1, 5)]

    def test_a_gateway_leaves_from_when_it_says_so_until_it_is_linked_anew(self) -> None:
        parking = with_idle(A, B)
        assert not parking.leaves(A)
        parking.on_leaving(A, 1.0)
        assert (parking.leaves(A), parking.leaves(B), parking.leaves("unknown")) == (True, False, False)
        parking.on_link_down(A, 2.0)
        parking.on_link_up(A, 3.0)
        assert not parking.leaves(A)

    def test_what_a_leaving_gateway_wanted_in_vain_goes_elsewhere_again(self) -> None:
        parking = with_idle(A, B)
        parking.on_leaving(A, 1.0)
        parking.on_want(A, oldest_ms=999, waiting=1, now=1.0)
        assert frames(parking.on_enough(A, 1.1), FrameType.PARKED) == [(B, 1, 4)]

    def test_a_leaving_gateway_without_another_one_keeps_its_environments(self) -> None:
        assert with_idle(A).on_leaving(A, 1.0) == []


class TestRetiring:
    def test_an_idle_environment_drains_on_every_link_and_stops(self) -> None:
        parking = with_idle(A, B)
        effects = parking.on_retire(B, 1, reason="idle", now=1.0)
        assert [to for to, _, _ in frames(effects, FrameType.DRAINING)] == [A, B]
        assert effects[-1] == Stop(1, "idle")
        assert refusal(parking.on_invoke(A, 1, 1, "r", 1.0)) == "draining"

    def test_a_busy_environment_refuses_unless_it_may_finish(self) -> None:
        parking = with_idle(A)
        parking.on_invoke(A, 1, 1, "r1", 1.0)
        assert refusal(parking.on_retire(A, 1, reason="idle", now=1.0)) == "busy"
        assert frames(parking.on_retire(A, 1, reason="update", when_busy="finish", now=1.0), FrameType.DRAINING)
        assert parking.on_finished(1, 2.0) == [SendResult(A, 1, "r1"), Stop(1, "retired")]

    def test_an_environment_that_was_used_lately_refuses_and_says_for_how_long_it_is_idle(self) -> None:
        (effect,) = with_idle(A).on_retire(A, 1, reason="idle", idle_ms=5000, now=3.0)
        assert isinstance(effect, Send)
        assert effect.body == Refused("", "fresh", 3000)

    def test_one_that_is_starting_is_not_retired_for_room(self) -> None:
        parking = linked(A)
        parking.on_start(A, ["e1"], 0.0)
        assert refusal(parking.on_retire(A, 1, reason="room", now=0.1)) == "busy"

    def test_retiring_twice_drains_once(self) -> None:
        parking = with_idle(A)
        parking.on_retire(A, 1, reason="idle", now=1.0)
        effects = parking.on_retire(A, 1, reason="idle", now=1.1)
        assert frames(effects, FrameType.DRAINING) == [(A, 1, 1)]
        assert not any(isinstance(effect, Stop) for effect in effects)

    def test_the_supervisor_ends_with_its_last_environment(self) -> None:
        parking = with_idle(A, environments=2)
        parking.on_invoke(A, 2, 1, "r", 1.0)
        parking.on_retire(A, 0, reason="deleted", when_busy="finish", now=2.0)
        assert not any(isinstance(effect, End) for effect in parking.on_gone(1, "stopped", 2.1))
        parking.on_finished(2, 3.0)
        assert parking.on_gone(2, "stopped", 3.1)[-1] == End("deleted")

    def test_a_retired_supervisor_starts_nothing_and_says_so(self) -> None:
        parking = with_idle(A)
        parking.on_retire(A, 0, reason="deleted", when_busy="finish", now=2.0)
        effects = parking.on_start(A, ["e9"], 2.1)
        assert frames(effects, FrameType.GONE) == [(A, 2, 0)]
