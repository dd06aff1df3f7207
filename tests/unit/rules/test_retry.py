"""Retries of asynchronous events: AWS's delays, counts and conditions."""

from __future__ import annotations

import pytest

from kappa_core.rules.retry import Attempts, End, Ended, Retry, Schedule, Terms, after_attempt, before_attempt

MINUTE = 60_000


def after(ended: Ended, attempts: Attempts, *, age_ms: int = 10, reserved: int | None = None, **terms: int) -> Retry | End:
    return after_attempt(ended, attempts, age_ms=age_ms, reserved=reserved, terms=Terms(**terms), schedule=Schedule())


def errors(count: int) -> Attempts:
    return Attempts(function_errors=count)


def troubles(count: int) -> Attempts:
    return Attempts(system_errors=count)


def test_a_function_error_is_repeated_after_one_and_after_two_minutes_and_then_given_up() -> None:
    assert after("function_error", errors(1)) == Retry(MINUTE)
    assert after("function_error", errors(2)) == Retry(2 * MINUTE)
    assert after("function_error", errors(3)) == End("RetriesExhausted")


@pytest.mark.parametrize("allowed", [0, 1])
def test_fewer_attempts_may_be_configured(allowed: int) -> None:
    assert after("function_error", errors(allowed + 1), maximum_retry_attempts=allowed) == End("RetriesExhausted")


def test_throttles_and_errors_of_the_platform_go_on_from_one_second_to_five_minutes() -> None:
    delays = [after("system_error", troubles(count)) for count in range(1, 12)]
    assert delays == [Retry(1000 * seconds) for seconds in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300)]
    assert after("system_error", troubles(100_000)) == Retry(300_000)


def test_throttles_do_not_use_up_the_attempts_of_the_function() -> None:
    attempts = Attempts()
    for ended in ("system_error", "function_error", "system_error", "system_error", "function_error"):
        attempts = attempts.after(ended)
    assert (attempts.function_errors, attempts.invoke_count) == (2, 2)
    assert after("function_error", attempts) == Retry(2 * MINUTE)
    assert after("function_error", attempts.after("function_error")) == End("RetriesExhausted")


def test_an_attempt_that_reached_the_function_ends_a_row_of_throttles() -> None:
    attempts = troubles(9).after("function_error").after("system_error")
    assert after("system_error", attempts) == Retry(1000)


@pytest.mark.parametrize(
    ("maximum_s", "invocations"), [pytest.param(60, 1, id="60 s: no retry"), pytest.param(90, 2, id="90 s: one retry")]
)
def test_a_retry_that_would_come_too_late_is_not_waited_for(maximum_s: int, invocations: int) -> None:
    age, attempts = 5, errors(1)
    while isinstance(outcome := after("function_error", attempts, age_ms=age, maximum_event_age_ms=maximum_s * 1000), Retry):
        age += outcome.after_ms + 5
        attempts = attempts.after("function_error")
    assert outcome == End("EventAgeExceeded")
    assert attempts.invoke_count == invocations


def test_throttles_end_with_the_maximum_age() -> None:
    assert after("system_error", troubles(1), age_ms=88_900, maximum_event_age_ms=90_000) == Retry(1000)
    assert after("system_error", troubles(1), age_ms=89_000, maximum_event_age_ms=90_000) == End("EventAgeExceeded")


def test_success_is_the_end_whatever_the_age() -> None:
    assert after("ok", errors(2), age_ms=10**9) == End("Success")


def test_attempts_that_are_used_up_are_named_before_the_age() -> None:
    assert after("function_error", errors(3), age_ms=10**9) == End("RetriesExhausted")


@pytest.mark.parametrize("ended", ["function_error", "system_error"])
def test_without_reserved_concurrency_nothing_is_repeated(ended: Ended) -> None:
    assert after(ended, Attempts().after(ended), reserved=0) == End("ZeroReservedConcurrency")


@pytest.mark.parametrize(
    ("age_ms", "reserved", "expected"),
    [
        pytest.param(0, None, None, id="young"),
        pytest.param(90_000, 5, None, id="at the maximum age"),
        pytest.param(90_001, 5, End("EventAgeExceeded"), id="too old"),
        pytest.param(0, 0, End("ZeroReservedConcurrency"), id="nothing reserved"),
        pytest.param(90_001, 0, End("ZeroReservedConcurrency"), id="both"),
    ],
)
def test_what_must_not_run_any_more_is_ended_before_it_runs(age_ms: int, reserved: int | None, expected: End | None) -> None:
    assert before_attempt(age_ms=age_ms, reserved=reserved, terms=Terms(maximum_event_age_ms=90_000)) == expected


def test_delays_can_be_shortened_down_to_none() -> None:
    short = Schedule(function_error_ms=(10,), system_error_first_ms=1, system_error_most_ms=2)

    def outcome(ended: Ended, attempts: Attempts, schedule: Schedule = short) -> Retry | End:
        return after_attempt(ended, attempts, age_ms=1, reserved=None, terms=Terms(), schedule=schedule)

    assert [outcome("function_error", errors(count)) for count in (1, 2)] == [Retry(10), Retry(10)]
    assert [outcome("system_error", troubles(count)) for count in (1, 2, 3)] == [Retry(1), Retry(2), Retry(2)]
    assert outcome("function_error", errors(1), Schedule(function_error_ms=())) == Retry(0)
