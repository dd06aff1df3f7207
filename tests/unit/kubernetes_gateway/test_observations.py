"""Edits that ask for nothing are recorded, once, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from kappa_core.memory import MemoryResourceStore
from kappa_core.ports.store import Conflict, R
from kappa_core.resources import Function, Key
from kappa_core.rules import states
from kappa_gateway.kubernetes.observations import Observations
from store_samples import function


class Store(MemoryResourceStore):
    """Counts what is written, and lets somebody else be faster."""

    def __init__(self) -> None:
        super().__init__(clock_ms=lambda: 0)
        self.written: list[Key] = []
        self.conflicts = 0

    async def update(self, resource: R, /) -> R:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("somebody else was faster")
        self.written.append(resource.key)
        return await super().update(resource)


def observed(store: Store, looks: list[Callable[[], list[Key]]]) -> list[Key]:
    """What is written when each look finds what it says."""
    store.written.clear()
    left = iter(looks)
    found: list[list[Key]] = []

    async def sleep(_: float) -> None:
        look = next(left, None)
        if look is None:
            raise asyncio.CancelledError
        found.append(look())

    async def scenario() -> None:
        try:
            await Observations(store, lagging=lambda: found[-1], sleep=sleep).run()
        except asyncio.CancelledError:
            return

    asyncio.run(scenario())
    return store.written


def settled(name: str) -> Function:
    made = function(name)
    return msgspec.structs.replace(made, status=states.settled(made.configuration))


def test_what_lags_at_two_looks_in_a_row_is_written_and_what_caught_up_itself_is_not() -> None:
    store = Store()
    slow, quick = (asyncio.run(store.create(settled(name))).key for name in ("slow", "quick"))
    looks: list[Callable[[], list[Key]]] = [lambda: [quick], lambda: [slow], lambda: [slow], list]
    assert observed(store, looks) == [slow]


def test_a_function_that_is_being_updated_is_left_to_the_settler() -> None:
    store = Store()
    made = asyncio.run(store.create(function("pending")))
    assert not states.is_settled(made.status)
    assert observed(store, [lambda: [made.key]] * 3) == []


def test_who_is_slower_than_somebody_else_looks_again() -> None:
    store = Store()
    key = asyncio.run(store.create(settled("f"))).key
    store.conflicts = 1
    assert observed(store, [lambda: [key]] * 3) == [key]


def test_a_function_that_has_gone_is_nothing_to_speak_of() -> None:
    store = Store()
    assert observed(store, [lambda: [function("gone").key]] * 3) == []
