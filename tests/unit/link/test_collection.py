"""Collections: the proof that so many environments were in flight at one instant."""

import pytest

from kappa_core.link.collection import Collection, View, proves
from kappa_core.link.frames import Collected


def view(**answers: tuple[list[tuple[str, int]], list[tuple[str, int]]]) -> View:
    collection = Collection(1, answers, asked_at=0.0, askers=(), covers={})
    for gateway, (busy, idle) in answers.items():
        assert collection.add(gateway, Collected("f", 1, busy, idle))
    assert not collection.pending
    return collection.view()


def test_an_answer_of_another_round_or_of_an_unasked_gateway_is_not_taken() -> None:
    collection = Collection(2, ["a"], asked_at=0.0, askers=(), covers={})
    assert not collection.add("a", Collected("f", 1, [], []))
    assert not collection.add("b", Collected("f", 2, [], []))
    assert collection.add("a", Collected("f", 2, [], []))
    assert not collection.add("a", Collected("f", 2, [], []))


def test_the_highest_epoch_says_where_an_environment_is() -> None:
    merged = view(a=([("e1", 4), ("e2", 2)], []), b=([("e2", 7)], [("e1", 5)]))
    assert merged.busy == {"e2": ("b", 7)}
    assert merged.idle == {"e1": 5}


def test_an_idle_word_of_an_older_epoch_does_not_count() -> None:
    merged = view(a=([("e1", 4)], []), b=([], [("e1", 3)]))
    assert merged.busy == {"e1": ("a", 4)}
    assert merged.idle == {}


BOTH = view(a=([("e1", 1)], []), b=([("e2", 1)], []))


@pytest.mark.parametrize(
    ("limit", "second", "first", "proven"),
    [
        pytest.param(2, view(a=([("e1", 1), ("e2", 1)], [])), None, True, id="one gateway's answer is of one instant"),
        pytest.param(2, BOTH, None, False, id="two gateways answer at two instants"),
        pytest.param(2, BOTH, BOTH, True, id="two equal rounds"),
        pytest.param(2, BOTH, view(a=([("e1", 1)], []), b=([], [])), False, id="one was not busy in the first round"),
        pytest.param(2, BOTH, view(a=([("e1", 1)], []), b=([("e2", 0)], [])), False, id="one has run something else since"),
        pytest.param(2, BOTH, view(a=([("e1", 1), ("e2", 1)], []), b=([], [])), False, id="one has moved since"),
        pytest.param(3, BOTH, BOTH, False, id="fewer than are permitted"),
        pytest.param(0, view(a=([], [])), None, True, id="nothing is permitted"),
    ],
)
def test_the_proof(limit: int, second: View, first: View | None, proven: bool) -> None:
    assert proves([(limit, ["e1", "e2"])], view=second, first=first) is proven


def test_environments_of_others_prove_nothing() -> None:
    assert not proves([(2, ["e1"])], view=view(a=([("e1", 1), ("x", 1)], [])), first=None)
