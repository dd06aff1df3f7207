"""What becomes of an asynchronous event after an attempt: done, once more after a while, or given up, and by which of AWS's conditions.

Pure: the worker says how the attempt ended and how old the event is, and does what comes back. Function errors (raised, timed out, exited)
have AWS's fixed delays and at most ``MaximumRetryAttempts`` repetitions; throttles and errors of the platform go on with growing delays,
under a count of their own, until the maximum age. A retry that would come too late is not waited for: the look-ahead rule (recorded:
with a maximum age of 60 s the first failure ends at once, with 90 s there is exactly one retry).
Source: docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Condition = Literal["Success", "RetriesExhausted", "EventAgeExceeded", "ZeroReservedConcurrency", "RecursiveInvocation"]
"""How an event ended, as destination records name it. How AWS spells the last one is not recorded: it is named like its error."""

Ended = Literal["ok", "function_error", "system_error"]
"""How an attempt ended; ``system_error`` is everything that is not the function's doing, throttles included."""

MAXIMUM_RETRY_ATTEMPTS: Final = 2
MAXIMUM_EVENT_AGE_SECONDS: Final = 21_600


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """The delays; a laptop or a test may shorten them."""

    function_error_ms: tuple[int, ...] = (60_000, 120_000)
    """Before the first, second … repetition; the last holds for all further ones."""
    system_error_first_ms: int = 1_000
    system_error_most_ms: int = 300_000
    """Doubled from the first on, up to the second."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a function's EventInvokeConfig says, with AWS's defaults."""

    maximum_retry_attempts: int = MAXIMUM_RETRY_ATTEMPTS
    maximum_event_age_ms: int = MAXIMUM_EVENT_AGE_SECONDS * 1000


class Attempts(msgspec.Struct, frozen=True, kw_only=True):
    """What an event has behind it, the attempt that just ended included."""

    function_errors: int = 0
    system_errors: int = 0

    @property
    def invoke_count(self) -> int:
        """approximateInvokeCount: how often the function itself has run in vain."""
        return self.function_errors

    def after(self, ended: Ended) -> Attempts:
        """With one more attempt."""
        if ended == "function_error":
            return Attempts(function_errors=self.function_errors + 1, system_errors=0)
        if ended == "system_error":
            return Attempts(function_errors=self.function_errors, system_errors=self.system_errors + 1)
        return self


class Retry(msgspec.Struct, frozen=True):
    """Once more after ``after_ms``."""

    after_ms: int


class End(msgspec.Struct, frozen=True):
    """No more attempts."""

    condition: Condition


def before_attempt(*, age_ms: int, reserved: int | None, terms: Terms) -> End | None:
    """Whether an event that is due is still to be run: None, or what it ends in without."""
    if reserved == 0:
        return End("ZeroReservedConcurrency")
    if age_ms > terms.maximum_event_age_ms:
        return End("EventAgeExceeded")
    return None


def after_attempt(
    ended: Ended, attempts: Attempts, *, age_ms: int, reserved: int | None, terms: Terms, schedule: Schedule
) -> Retry | End:
    """What follows an attempt. ``attempts`` includes it."""
    if ended == "ok":
        return End("Success")
    if reserved == 0:
        return End("ZeroReservedConcurrency")
    if ended == "function_error" and attempts.function_errors > terms.maximum_retry_attempts:
        return End("RetriesExhausted")
    delay = delay_ms(ended, attempts, schedule=schedule)
    # Not "<=": an attempt always takes a moment, and with a delay of exactly the maximum age none was recorded.
    if age_ms + delay >= terms.maximum_event_age_ms:
        return End("EventAgeExceeded")
    return Retry(delay)


def delay_ms(ended: Ended, attempts: Attempts, *, schedule: Schedule) -> int:
    """How long to wait before the next attempt."""
    if ended == "function_error":
        delays = schedule.function_error_ms
        return delays[min(attempts.function_errors, len(delays)) - 1] if delays else 0
    doublings = min(attempts.system_errors - 1, 62)
    return min(schedule.system_error_first_ms << doublings, schedule.system_error_most_ms)
