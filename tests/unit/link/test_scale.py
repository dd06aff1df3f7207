"""The scaler: how many environments there are, and who is turned away."""

import itertools

import pytest

from kappa_core.link.capacity import ACCOUNT_REASON, RESERVED_REASON, Known
from kappa_core.link.effects import (
    Effect,
    RetireEnvironment,
    SendCollect,
    SendDeny,
    StartEnvironments,
    StartsFail,
    StopEnvironments,
)
from kappa_core.link.frames import Collected, Demand
from kappa_core.link.policy import FAILURES_BEFORE_DENIAL, GRACE_SECONDS, REBUILD_SECONDS, RETIRE_SECONDS, Situation
from kappa_core.link.scale import Scaler

HERE, THERE = "gateway-1", "gateway-2"
V1, V2, OTHER = "f.1", "f.2", "g.1"


class Shell:
    """A scaler with gateways whose dispatchers answer what the test says is busy and idle."""

    def __init__(self, *gateways: str, account: int = 10, reserved: int | None = None, **settings: object) -> None:
        numbers = itertools.count(1)
        self.scaler = Scaler(new_id=lambda: f"e{next(numbers)}", **settings)  # type: ignore[arg-type]
        self.busy: dict[str, list[tuple[str, int]]] = {name: [] for name in gateways or (HERE,)}
        self.idle: dict[str, list[tuple[str, int]]] = {name: [] for name in self.busy}
        self.waiting: dict[str, dict[str, int]] = {name: {} for name in self.busy}
        self.sequence = 0
        self.rounds = 0
        self.scaler.on_pool("account", account, 0.0)
        self.scaler.on_function("f", "account", reserved, 0.0)
        self.scaler.on_function("g", "account", None, 0.0)
        for revision in (V1, V2, OTHER):
            self.scaler.on_revision(revision, revision[0], 0.0)
        self.scaler.take_over(1, (), self.busy, 0.0)
        for name in self.busy:
            self.scaler.on_gateway_up(name, 0.0)

    def settle(self, effects: list[Effect], now: float) -> list[Effect]:
        """Answer collections until nothing more is asked; returns what else was wanted."""
        wanted: list[Effect] = []
        queue = list(effects)
        while queue:
            effect = queue.pop(0)
            if isinstance(effect, SendCollect):
                self.rounds += 1
                name, asked = effect.gateway, effect.collect
                answer = Collected(
                    asked.function_key, asked.number, list(self.busy[name]), list(self.idle[name]), dict(self.waiting[name])
                )
                queue += self.scaler.on_collected(name, answer, now)
            else:
                wanted.append(effect)
        return wanted

    def waits(self, waiting: int, now: float, *, revision: str = V1, gateway: str = HERE, oldest: float = 0.0) -> list[Effect]:
        self.sequence += 1
        self.waiting[gateway][revision] = waiting
        demand = Demand(revision, revision[0], waiting, int(oldest * 1000), len(self.busy[gateway]), self.sequence)
        return self.settle(self.scaler.on_demand(gateway, demand, now), now)

    def serves(self, *names: str, gateway: str = HERE, revision: str = V1) -> None:
        """The environments became ready, and serve the waiters of the gateway."""
        self.busy[gateway] = [(name, 1) for name in names]
        self.waiting[gateway] = {}
        self.ready(*names, revision=revision)
        self.waits(0, 0.6, gateway=gateway, revision=revision)
        self.rounds = 0

    def ready(self, *names: str, now: float = 0.5, revision: str = V1) -> list[Effect]:
        return [effect for name in names for effect in self.settle(self.scaler.on_environment(name, revision, "ready", now), now)]

    def gone(self, name: str, now: float, reason: str = "over") -> list[Effect]:
        return self.settle(self.scaler.on_environment_gone(name, reason, now), now)

    def tick(self, now: float) -> list[Effect]:
        return self.settle(self.scaler.on_tick(now), now)


def started(effects: list[Effect]) -> list[str]:
    return [name for effect in effects if isinstance(effect, StartEnvironments) for name in effect.environment_ids]


def denied(effects: list[Effect]) -> list[tuple[str, int, int, str]]:
    """(gateway, sequence, count, reason)."""
    return [(e.gateway, e.deny.sequence, e.deny.count, e.deny.reason) for e in effects if isinstance(e, SendDeny)]


def retired(effects: list[Effect]) -> list[tuple[str, str]]:
    return [(effect.environment_id, effect.when_busy) for effect in effects if isinstance(effect, RetireEnvironment)]


class TestStarting:
    def test_the_first_waiters_get_an_environment_each_without_a_question(self) -> None:
        shell = Shell(HERE, THERE)
        assert started(shell.waits(3, 0.0)) == ["e1", "e2", "e3"]
        assert shell.rounds == 0

    def test_what_is_being_started_is_not_started_again(self) -> None:
        shell = Shell()
        shell.waits(2, 0.0)
        assert started(shell.waits(3, 0.1)) == ["e3"]

    def test_busy_environments_do_not_keep_a_waiter_waiting(self) -> None:
        shell = Shell(HERE, THERE)
        shell.waits(1, 0.0, gateway=THERE)
        shell.serves("e1", gateway=THERE)
        assert started(shell.waits(1, 1.0)) == ["e2"]

    def test_an_idle_environment_elsewhere_gets_a_moment_to_come(self) -> None:
        shell = Shell(HERE, THERE)
        shell.waits(1, 0.0)
        shell.serves("e1")
        shell.busy[HERE], shell.idle[THERE] = [], [("e1", 1)]
        assert started(shell.waits(1, 1.0)) == []
        assert started(shell.tick(1.0 + GRACE_SECONDS)) == ["e2"]

    def test_a_policy_may_let_a_waiter_wait_and_is_asked_again(self) -> None:
        asked: list[Situation] = []

        def one_per_second(situation: Situation) -> int:
            asked.append(situation)
            return int(situation.oldest_seconds)

        shell = Shell(policy=one_per_second)
        assert started(shell.waits(2, 0.0)) == []
        assert [name for at in range(1, 5) for name in started(shell.tick(at / 4))] == ["e1"]
        assert asked[0].need == 2

    def test_starts_keep_to_the_scaling_rate(self) -> None:
        shell = Shell(account=100, burst=10)
        assert len(started(shell.waits(30, 0.0))) == 10
        assert len(started(shell.tick(1.0))) == 1
        assert len(started(shell.tick(3.0))) == 2

    def test_a_revision_of_an_unknown_function_is_left_alone(self) -> None:
        assert Shell().waits(1, 0.0, revision="unknown.1") == []

    def test_an_environment_that_nobody_ordered_is_ended_and_counts_until_then(self) -> None:
        shell = Shell(account=1)
        effects = shell.settle(shell.scaler.on_environment("stranger", V1, "idle", 1.0), 1.0)
        assert isinstance(effects[0], StopEnvironments)
        assert retired(effects) == [("stranger", "finish")]
        assert started(shell.waits(1, 1.1)) == []
        assert started(shell.gone("stranger", 1.2)) == ["e1"]

    def test_a_late_word_of_one_that_is_gone_changes_nothing(self) -> None:
        shell = Shell(account=1)
        shell.waits(1, 0.0)
        shell.ready("e1")
        shell.waits(0, 0.6)
        shell.gone("e1", 1.0)
        assert shell.scaler.on_environment("e1", V1, "idle", 1.1) == []
        assert shell.scaler.environments(V1) == {}

    def test_one_that_has_just_become_ready_is_left_to_the_waiter_it_was_started_for(self) -> None:
        shell = Shell()
        shell.waits(1, 0.0)
        assert started(shell.ready("e1", now=5.0)) == []

    def test_a_demand_that_is_older_than_what_it_led_to_starts_nothing_more(self) -> None:
        shell = Shell()
        shell.waits(2, 0.0)
        shell.busy[HERE], shell.waiting[HERE] = [("e1", 1)], {V1: 1}
        assert started(shell.ready("e1", now=5.0)) == []


class TestLimits:
    def test_no_more_are_started_than_the_account_permits(self) -> None:
        shell = Shell(account=4)
        assert len(started(shell.waits(9, 0.0))) == 4
        assert started(shell.waits(9, 0.1, revision=OTHER)) == []

    def test_a_reserved_function_has_its_share_and_no_more(self) -> None:
        shell = Shell(account=5, reserved=2)
        assert len(started(shell.waits(9, 0.0, revision=OTHER))) == 3
        assert len(started(shell.waits(9, 0.1))) == 2

    def test_what_drains_counts_until_it_is_gone(self) -> None:
        shell = Shell(account=1)
        shell.waits(1, 0.0)
        shell.ready("e1")
        shell.waits(0, 0.6)
        shell.scaler.on_environment("e1", V1, "draining", 1.0)
        assert started(shell.waits(1, 1.1)) == []
        assert started(shell.gone("e1", 1.2)) == ["e2"]

    def test_idle_environments_of_other_functions_make_room(self) -> None:
        shell = Shell(account=2)
        shell.waits(2, 0.0)
        shell.ready("e1", "e2")
        shell.waits(0, 0.6)
        shell.busy[HERE], shell.idle[HERE] = [("e1", 1)], [("e2", 1)]
        assert retired(shell.waits(1, 1.0, revision=OTHER)) == [("e2", "refuse")]
        assert started(shell.gone("e2", 1.1)) == ["e3"]

    def test_a_function_makes_no_room_for_one_with_a_share_of_its_own(self) -> None:
        shell = Shell(account=5, reserved=1)
        shell.waits(1, 0.0, revision=OTHER)
        shell.waits(1, 0.0)
        shell.ready("e1", revision=OTHER)
        shell.ready("e2")
        shell.waits(0, 0.6, revision=OTHER)
        shell.busy[HERE], shell.idle[HERE] = [("e2", 1)], [("e1", 1)]
        effects = shell.waits(1, 1.0)
        assert retired(effects) == []
        assert [reason for *_, reason in denied(effects)] == [RESERVED_REASON]

    def test_a_lowered_limit_sheds_what_is_idle_and_zero_sheds_everything(self) -> None:
        shell = Shell(account=10, reserved=3)
        shell.waits(3, 0.0)
        shell.ready("e1", "e2", "e3")
        shell.waits(0, 0.6)
        assert len(retired(shell.scaler.on_function("f", "account", 1, 1.0))) == 2
        finished = retired(shell.scaler.on_function("f", "account", 0, 1.1))
        assert sorted(finished) == [("e1", "finish"), ("e2", "finish"), ("e3", "finish")]

    def test_reserving_for_one_function_sheds_what_the_others_have_too_much_once(self) -> None:
        shell = Shell(account=4)
        shell.waits(4, 0.0, revision=OTHER)
        shell.ready("e1", "e2", "e3", "e4", revision=OTHER)
        shell.waits(0, 0.6, revision=OTHER)
        assert len(retired(shell.scaler.on_function("f", "account", 1, 1.0))) == 1


class TestDenying:
    def test_at_one_gateway_the_answer_is_immediate_and_exact(self) -> None:
        shell = Shell(account=1)
        shell.waits(1, 0.0)
        shell.serves("e1")
        assert denied(shell.waits(2, 1.0)) == [(HERE, shell.sequence, 2, ACCOUNT_REASON)]
        assert shell.rounds == 1

    def test_over_several_gateways_two_equal_rounds_are_needed(self) -> None:
        shell = Shell(HERE, THERE, account=2)
        shell.waits(2, 0.0)
        shell.serves("e1", "e2")
        shell.busy = {HERE: [("e1", 1)], THERE: [("e2", 1)]}
        assert denied(shell.waits(1, 1.0)) == [(HERE, shell.sequence, 1, ACCOUNT_REASON)]
        assert shell.rounds == 4

    def test_a_second_round_that_differs_denies_nobody(self) -> None:
        shell = Shell(HERE, THERE, account=2)
        shell.waits(2, 0.0)
        shell.ready("e1", "e2")
        demand = Demand(V1, "f", 1, 500, 0, 9)
        first = shell.scaler.on_demand(HERE, demand, 1.0)
        number = next(effect.collect.number for effect in first if isinstance(effect, SendCollect))
        shell.scaler.on_collected(HERE, Collected("", number, [("e1", 1)], []), 1.0)
        second = shell.scaler.on_collected(THERE, Collected("", number, [("e2", 1)], []), 1.0)
        shell.busy = {HERE: [("e1", 3)], THERE: [("e2", 1)]}
        assert denied(shell.settle(second, 1.1)) == []

    def test_a_limit_that_changes_during_a_collection_voids_its_proof(self) -> None:
        shell = Shell(HERE, THERE, account=3)
        shell.waits(1, 0.0)
        shell.serves("e1")
        shell.waits(2, 0.7, revision=OTHER)
        shell.ready("e2", "e3", revision=OTHER)
        first = shell.scaler.on_demand(HERE, Demand(V1, "f", 1, 500, 1, 9), 1.0)
        number = next(effect.collect.number for effect in first if isinstance(effect, SendCollect))
        shell.scaler.on_collected(HERE, Collected("", number, [("e1", 1)], [], {V1: 1}), 1.0)
        assert denied(shell.scaler.on_pool("account", 1, 1.1)) == []
        assert denied(shell.scaler.on_collected(THERE, Collected("", number, [], []), 1.2)) == []

    def test_who_waits_for_one_that_is_starting_is_not_denied(self) -> None:
        shell = Shell(account=1)
        shell.waits(1, 0.0)
        assert denied(shell.waits(2, 0.1)) == []

    def test_with_an_environment_that_is_neither_busy_nor_idle_nobody_is_denied(self) -> None:
        shell = Shell(account=2)
        shell.waits(2, 0.0)
        shell.ready("e1", "e2")
        shell.busy[HERE] = [("e1", 1)]
        assert denied(shell.waits(1, 1.0, oldest=1.0)) == []

    def test_with_nothing_reserved_at_all_the_answer_needs_no_proof(self) -> None:
        shell = Shell(reserved=0)
        assert denied(shell.waits(1, 0.0)) == [(HERE, 1, 1, RESERVED_REASON)]

    def test_a_demand_that_came_after_the_collection_began_waits_for_the_next_one(self) -> None:
        shell = Shell(HERE, THERE, account=1)
        shell.waits(1, 0.0)
        shell.ready("e1")
        shell.busy[THERE] = [("e1", 1)]
        first = shell.scaler.on_demand(HERE, Demand(V1, "f", 1, 0, 0, 7), 1.0)
        assert shell.scaler.on_demand(THERE, Demand(V1, "f", 3, 0, 0, 8), 1.0) == []
        answers = denied(shell.settle(first, 1.1))
        assert answers[0] == (HERE, 7, 1, ACCOUNT_REASON)
        assert (THERE, 8, 3, ACCOUNT_REASON) in answers[1:]

    def test_a_gateway_that_does_not_answer_holds_up_a_proof_without_it_for_a_second_only(self) -> None:
        shell = Shell(HERE, THERE, account=1)
        shell.waits(1, 0.0)
        shell.ready("e1")
        effects = shell.scaler.on_demand(HERE, Demand(V1, "f", 1, 500, 1, 7), 1.0)
        number = next(effect.collect.number for effect in effects if isinstance(effect, SendCollect))
        assert shell.scaler.on_collected(HERE, Collected("", number, [("e1", 1)], [], {V1: 1}), 1.0) == []
        assert denied(shell.tick(2.0)) == [(HERE, 7, 1, ACCOUNT_REASON)]

    def test_the_waiters_of_a_lost_gateway_no_longer_count(self) -> None:
        shell = Shell(HERE, THERE, account=1)
        shell.waits(1, 0.0, gateway=THERE)
        shell.scaler.on_gateway_down(THERE, 0.1)
        assert started(shell.gone("e1", 0.2)) == []


class TestFailingStarts:
    def test_a_start_that_fails_is_tried_again_and_said(self) -> None:
        shell = Shell()
        shell.waits(1, 0.0)
        effects = shell.gone("e1", 0.1, "exec format error")
        assert StartsFail(V1, "exec format error") in effects
        assert started(effects) == ["e2"]

    def test_after_some_failures_the_waiters_are_told_the_cause(self) -> None:
        shell = Shell()
        shell.waits(2, 0.0)
        answers: list[tuple[str, int, int, str]] = []
        now = 0.0
        while not answers:
            now += 0.25
            for name in list(shell.scaler.environments(V1)):
                answers += denied(shell.gone(name, now, "no such runtime"))
            shell.tick(now)
        assert answers == [(HERE, 1, 2, "capacity: no such runtime")]
        assert shell.scaler._books.revisions[V1].failures == FAILURES_BEFORE_DENIAL

    def test_what_was_ordered_together_fails_once(self) -> None:
        shell = Shell()
        shell.waits(3, 0.0)
        for name in ("e1", "e2", "e3"):
            shell.gone(name, 0.1, "disk full")
        assert shell.scaler._books.revisions[V1].failures == 1

    def test_the_pause_between_attempts_grows_and_ends_with_a_success(self) -> None:
        shell = Shell()
        shell.waits(1, 0.0)
        starts = []
        now = 0.0
        for _ in range(60):
            for name in list(shell.scaler.environments(V1)):
                starts.append(now)
                shell.gone(name, now, "no")
            now += 0.25
            shell.tick(now)
        pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
        assert pauses == sorted(pauses)
        assert pauses[-1] >= 4
        shell.tick(now + 15)
        (name,) = shell.scaler.environments(V1)
        assert StartsFail(V1, "") in shell.ready(name, now=now + 16)

    def test_waiters_that_other_environments_may_serve_are_not_told_of_failures(self) -> None:
        shell = Shell()
        shell.waits(1, 0.0)
        shell.ready("e1")
        shell.busy[HERE] = [("e1", 1)]
        for attempt in range(6):
            shell.waits(1, 1.0 + 20 * attempt)
            for name in set(shell.scaler.environments(V1)) - {"e1"}:
                assert denied(shell.gone(name, 2.0 + 20 * attempt, "no")) == []

    def test_one_that_misses_its_deadline_is_ended_replaced_and_counted_until_it_is_gone(self) -> None:
        shell = Shell(account=1, start_seconds=5.0)
        shell.waits(1, 0.0)
        effects = shell.tick(5.0)
        assert [effect.environment_ids for effect in effects if isinstance(effect, StopEnvironments)] == [["e1"]]
        assert started(effects) == []
        assert started(shell.gone("e1", 5.5)) == ["e2"]


class TestRetiring:
    def idle(self) -> Shell:
        shell = Shell(idle_seconds=10.0)
        shell.waits(1, 0.0)
        shell.ready("e1", now=1.0)
        shell.waits(0, 1.0)
        return shell

    def test_an_environment_is_asked_to_go_after_its_idle_window(self) -> None:
        shell = self.idle()
        assert retired(shell.tick(10.9)) == []
        (effect,) = shell.tick(11.0)
        assert effect == RetireEnvironment("e1", "idle", "refuse", 10_000)

    @pytest.mark.parametrize(
        ("reason", "idle_ms", "again"),
        [
            pytest.param("busy", 0, 21.0, id="busy: after a whole window"),
            pytest.param("fresh", 4000, 17.0, id="used lately: after the rest of it"),
        ],
    )
    def test_one_that_refuses_is_asked_again(self, reason: str, idle_ms: int, again: float) -> None:
        shell = self.idle()
        shell.tick(11.0)
        shell.scaler.on_retire_refused("e1", reason, idle_ms, 11.0)
        assert retired(shell.tick(again - 0.1)) == []
        assert retired(shell.tick(again)) == [("e1", "refuse")]

    def test_a_request_without_an_answer_is_made_again(self) -> None:
        shell = self.idle()
        shell.tick(11.0)
        assert retired(shell.tick(11.0 + RETIRE_SECONDS)) == [("e1", "refuse")]

    def test_an_update_drains_the_old_environments_after_what_they_run_until_they_do(self) -> None:
        shell = self.idle()
        assert retired(shell.scaler.on_revision_superseded(V1, 2.0)) == [("e1", "finish")]
        assert retired(shell.tick(2.0 + RETIRE_SECONDS)) == [("e1", "finish")]
        shell.scaler.on_environment("e1", V1, "draining", 4.5)
        assert retired(shell.tick(30.0)) == []

    def test_a_start_that_was_under_way_at_an_update_is_drained_when_it_arrives(self) -> None:
        shell = Shell()
        shell.waits(1, 0.0)
        shell.scaler.on_revision_superseded(V1, 0.1)
        assert retired(shell.ready("e1", now=0.2)) == [("e1", "finish")]

    def test_a_deleted_function_drains_its_waiters_are_told_and_nothing_is_kept(self) -> None:
        shell = Shell()
        shell.waits(2, 0.0)
        effects = shell.scaler.on_function_removed("f", 1.0)
        assert denied(effects)[0] == (HERE, 1, 2, "capacity: the function was deleted")
        assert {name for name, _ in retired(effects)} == {"e1", "e2"}
        shell.waits(0, 1.1)
        shell.gone("e1", 1.2)
        shell.gone("e2", 1.2)
        assert "f" not in shell.scaler._books.functions
        assert V1 not in shell.scaler._books.revisions


class TestTakingOver:
    def test_nothing_is_started_or_denied_before_the_gateways_are_up(self) -> None:
        shell = Shell(reserved=0)
        shell.scaler.take_over(2, (), [HERE, "unheard"], 5.0)
        assert shell.waits(1, 5.1) == []
        assert shell.waits(1, 5.1, revision=OTHER) == []
        effects = shell.settle(shell.scaler.on_gateway_up("unheard", 5.2), 5.2)
        assert started(effects) == ["e1"]
        assert [reason for *_, reason in denied(effects)] == [RESERVED_REASON]

    def test_a_gateway_that_stays_away_is_waited_for_a_few_seconds_only(self) -> None:
        shell = Shell()
        shell.scaler.take_over(2, (), ["unheard"], 5.0)
        shell.waits(1, 5.1)
        assert started(shell.tick(5.0 + REBUILD_SECONDS)) == ["e1"]

    def test_what_exists_and_what_was_ordered_counts_from_the_first_moment(self) -> None:
        shell = Shell(account=2)
        known = [Known("old1", V1, "starting"), Known("old2", "f.forgotten", "ready")]
        shell.scaler.take_over(2, known, [HERE], 5.0)
        assert started(shell.waits(2, 5.1)) == []

    def test_what_says_hello_before_the_first_decision_is_taken_on(self) -> None:
        shell = Shell(account=1, start_seconds=5.0, idle_seconds=30.0)
        shell.scaler.take_over(2, (), ["unheard"], 5.0)
        assert shell.scaler.on_environment("survivor", V1, "busy", 5.5) == []
        assert shell.tick(5.0 + REBUILD_SECONDS) == []
        assert started(shell.waits(1, 9.0)) == []
        assert shell.scaler.environments(V1) == {"survivor": "ready"}
        assert [effect for effect in shell.tick(20.0) if isinstance(effect, StopEnvironments)] == []

    def test_what_was_noted_before_and_is_not_in_the_inventory_counts_once_it_says_hello(self) -> None:
        shell = Shell(account=1)
        shell.scaler.stand_down()
        shell.scaler.on_environment("unlinked", V1, "ready", 1.0)
        shell.scaler.take_over(2, (), ["unheard"], 5.0)
        assert shell.scaler.environments(V1) == {}
        shell.scaler.on_environment("unlinked", V1, "busy", 5.5)
        shell.tick(5.0 + REBUILD_SECONDS)
        assert started(shell.waits(1, 9.0)) == []

    def test_orders_carry_the_epoch_of_the_lease(self) -> None:
        shell = Shell()
        shell.scaler.take_over(7, (), [HERE], 5.0)
        (start,) = shell.waits(1, 5.1)
        assert isinstance(start, StartEnvironments)
        assert start.epoch == 7

    def test_one_that_stood_down_decides_nothing(self) -> None:
        shell = Shell()
        shell.scaler.stand_down()
        shell.scaler.on_gateway_up(HERE, 1.0)
        assert shell.waits(1, 1.0) == []
        assert shell.scaler.next_deadline() is None

    def test_inherited_environments_are_reaped_like_one_s_own(self) -> None:
        shell = Shell(idle_seconds=10.0)
        shell.scaler.take_over(2, [Known("old", V1, "ready")], ["unheard"], 5.0)
        shell.tick(5.0 + REBUILD_SECONDS)
        assert retired(shell.tick(18.0)) == [("old", "refuse")]
