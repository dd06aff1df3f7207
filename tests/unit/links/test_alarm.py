"""The alarm of the shells: one ring, at the time that was set last, and told no earlier one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kappa_gateway.links.alarm import Alarm
from virtual_time import virtual


@virtual
async def test_it_rings_once_at_the_time_that_was_set_last() -> None:
    loop = asyncio.get_running_loop()
    began, rung = loop.time(), list[float]()
    alarm = Alarm(loop, rung.append)
    for seconds in (3.0, 5.0, 5.0):
        alarm.set(began + seconds)
    await asyncio.sleep(10)
    assert rung == [began + 5.0]


@virtual
async def test_it_does_not_ring_when_there_is_nothing_to_wait_for() -> None:
    loop = asyncio.get_running_loop()
    rung = list[float]()
    alarm = Alarm(loop, rung.append)
    alarm.set(loop.time() + 1)
    alarm.set(None)
    await asyncio.sleep(2)
    assert rung == []


class EarlyLoop:
    """Calls half a millisecond before the time."""

    def __init__(self) -> None:
        self.due: Callable[[], None] = lambda: None

    def time(self) -> float:
        return 4.9995

    def call_at(self, at: float, due: Callable[[], None]) -> Any:
        self.due = due
        return object()


def test_a_loop_that_calls_early_has_it_ring_at_its_time_all_the_same() -> None:
    loop, rung = EarlyLoop(), list[float]()
    Alarm(loop, rung.append).set(5.0)  # type: ignore[arg-type]
    loop.due()
    assert rung == [5.0]
