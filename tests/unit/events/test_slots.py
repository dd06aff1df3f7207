"""Slots of the worker: who may take how many."""

from __future__ import annotations

from kappa_gateway.events.slots import FIRST_WINDOW, REMEMBERED, Slots


def fill(slots: Slots, function: str) -> int:
    """Run the function as much as it may, everything going through; how many it holds in the end."""
    held = 0
    while True:
        room = slots.room(function)
        assert room == slots.rooms().get(function, slots.share)
        if room <= 0:
            return held
        slots.take(function)
        held += 1
        slots.went_through(function, reserved=None)


def test_a_function_alone_uses_half_and_others_always_find_a_part() -> None:
    slots = Slots(64)
    assert fill(slots, "a") == 32
    assert fill(slots, "b") == 16
    assert fill(slots, "c") == 8
    assert slots.free == 8
    assert slots.share > 0


def test_a_function_begins_with_a_few_and_gets_more_for_every_event_that_goes_through() -> None:
    slots = Slots(64)
    assert slots.share == FIRST_WINDOW
    for _ in range(FIRST_WINDOW):
        slots.take("a")
    assert slots.rooms() == {"a": 0}
    slots.went_through("a", reserved=None)
    assert slots.rooms() == {"a": 1}


def test_reserved_concurrency_is_not_run_against_twice() -> None:
    slots = Slots(64)
    for _ in range(3):
        slots.take("a")
    slots.went_through("a", reserved=2)
    slots.release("a")
    assert slots.rooms() == {"a": 0}
    slots.release("a")
    assert slots.rooms() == {"a": 1}
    slots.release("a")
    assert slots.rooms() == {"a": 2}


def test_a_throttled_function_gets_half_of_what_it_had_and_at_least_one() -> None:
    slots = Slots(64)
    fill(slots, "a")
    slots.throttled("a")
    for _ in range(16):
        slots.release("a")
    assert slots.rooms() == {"a": 0}
    slots.release("a")
    assert slots.rooms() == {"a": 1}
    for _ in range(14):
        slots.release("a")
    for _ in range(5):
        slots.throttled("a")
    slots.release("a")
    assert slots.rooms() == {"a": 1}
    assert slots.free == 64


def test_only_so_many_idle_functions_are_remembered() -> None:
    slots = Slots(64)
    for number in range(REMEMBERED + 10):
        slots.take(f"f{number}")
        slots.throttled(f"f{number}")
        slots.release(f"f{number}")
    rooms = slots.rooms()
    assert len(rooms) == REMEMBERED
    assert "f9" not in rooms
    assert rooms["f10"] == 1


def test_nothing_is_shared_out_when_nothing_is_free() -> None:
    slots = Slots(1)
    assert slots.share == 1
    slots.take("a")
    assert (slots.free, slots.share, slots.rooms()) == (0, 0, {"a": 0})
