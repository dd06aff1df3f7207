"""Recursive loops: how often a function runs in one chain of invocations, and what the trace header says of it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from itertools import chain, cycle, islice, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_core.errors import RecursiveInvocationException
from kappa_core.rules.lineage import LOOPS, beginning, is_over, mark_of, reached, refused

TRACE = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"
FORM = re.compile(re.escape(TRACE) + r";Lineage=(\d{1,3}):[0-9a-f]{8}:(\d{1,5})")


def runs(functions: Iterable[str], *, at_most: int = 2_000) -> list[str]:
    """Those of the functions, each invoked by the one before it, that ran before one was refused."""
    trace_id = TRACE
    ran: list[str] = []
    for function in islice(functions, at_most):
        try:
            trace_id = reached(trace_id, mark=mark_of(function))
        except RecursiveInvocationException:
            break
        found = FORM.fullmatch(trace_id)
        assert found is not None
        assert 1 <= int(found[1]) <= 255
        ran.append(function)
    return ran


def test_a_function_that_invokes_itself_runs_sixteen_times() -> None:
    assert runs(repeat("a")) == ["a"] * LOOPS


@pytest.mark.parametrize("before", ["x", "xy", "xyz", "xxy", "xyxyx"])
def test_what_led_to_a_loop_does_not_prolong_it_by_more_than_two_rounds(before: str) -> None:
    ran = runs(chain(before, repeat("a")))
    assert LOOPS <= ran.count("a") <= LOOPS + 2 * len(before)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 16, 31, 100, 128])
def test_a_loop_of_several_functions_is_stopped_after_about_sixteen_rounds(size: int) -> None:
    functions = [f"f{number}" for number in range(size)]
    ran = runs(cycle(functions), at_most=size * 30)
    rounds = len(ran) / size
    assert LOOPS <= rounds <= LOOPS + 3


def test_a_chain_without_a_loop_is_never_stopped() -> None:
    assert len(runs(f"f{number}" for number in range(1_000))) == 1_000


def test_functions_that_call_each_other_at_random_are_stopped_in_the_end() -> None:
    dice = random.Random(7)
    for _ in range(50):
        assert len(runs(dice.choice("abcde") for _ in range(2_000))) < 2_000


def test_a_function_that_allows_loops_hands_the_header_on_as_it_came() -> None:
    at_the_end = f"{TRACE};Lineage=1:{mark_of('a')}:15"
    for trace_id in (TRACE, at_the_end, f"{TRACE};Lineage=1:{mark_of('a')}:40"):
        assert reached(trace_id, mark="") == trace_id
    with pytest.raises(RecursiveInvocationException):
        reached(at_the_end, mark=mark_of("a"))


def test_a_loop_through_a_function_that_allows_it_is_counted_at_the_other() -> None:
    trace_id = TRACE
    for _ in range(LOOPS):
        trace_id = reached(reached(trace_id, mark=mark_of("a")), mark="")
    with pytest.raises(RecursiveInvocationException):
        reached(trace_id, mark=mark_of("a"))


@pytest.mark.parametrize(
    "nonsense", ["", "x", "1:abc:0", "0:0123abcd:0", "256:0123abcd:0", "1:0123abcd:40000", "1:0123ABCD:0", "-1:0123abcd:0"]
)
def test_a_lineage_that_means_nothing_is_replaced(nonsense: str) -> None:
    mark = mark_of("a")
    for trace_id in (f"{TRACE};Lineage={nonsense}", f"Lineage={nonsense};{TRACE}"):
        assert reached(trace_id, mark=mark) == TRACE + beginning(mark)


def test_the_lineage_is_found_wherever_it_stands() -> None:
    mark = mark_of("a")
    first, rest = TRACE.split(";", 1)
    assert reached(f"{first};Lineage=1:{mark}:3;{rest}", mark=mark) == f"{TRACE};Lineage=1:{mark}:4"
    assert reached(f"Lineage=1:{mark}:3", mark=mark) == f"Lineage=1:{mark}:4"


def test_who_is_told_of_a_stopped_chain_may_run_but_not_begin_it_again() -> None:
    trace_id = TRACE
    for _ in range(LOOPS):
        trace_id = reached(trace_id, mark=mark_of("a"))
    with pytest.raises(RecursiveInvocationException):
        reached(trace_id, mark=mark_of("a"))
    told = refused(trace_id, mark=mark_of("a"))
    assert not is_over(told)
    at_b = reached(told, mark=mark_of("b"))
    with pytest.raises(RecursiveInvocationException):
        reached(at_b, mark=mark_of("a"))
    told_again = refused(at_b, mark=mark_of("a"))
    assert is_over(told_again)
    with pytest.raises(RecursiveInvocationException):
        reached(told_again, mark=mark_of("b"))


def test_a_header_without_a_lineage_is_no_chain() -> None:
    assert not is_over(TRACE)
    assert refused(TRACE, mark=mark_of("a")) == TRACE


def test_of_several_lineages_the_first_counts_and_one_is_left() -> None:
    mark = mark_of("a")
    sent = f"Root=1-0;Lineage=1:{mark}:3;Sampled=0;Lineage=1:{mark}:0"
    assert reached(sent, mark=mark) == f"Root=1-0;Sampled=0;Lineage=1:{mark}:4"


@given(st.text(max_size=60) | st.from_regex(r";? ?Lineage=\d{0,4}:[0-9a-fA-F]{6,9}:\d{0,6}(;.{0,9})?"))
def test_whatever_a_client_sends_the_function_gets_one_lineage_that_means_something(sent: str) -> None:
    mark = mark_of("a")
    try:
        trace_id = reached(sent, mark=mark)
    except RecursiveInvocationException:
        return
    found = re.search(r"(?:^|;)Lineage=(\d{1,3}):[0-9a-f]{8}:(\d{1,5})$", trace_id)
    assert found is not None
    assert 1 <= int(found[1]) <= 255
    assert int(found[2]) <= LOOPS
