"""Keys are taken one at a time each, and come back until they succeed. In virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_operator.workqueue import LONGEST_DELAY, Later, WorkQueue, WriteBudget, backoff
from virtual_time import virtual


@asynccontextmanager
async def working(reconcile: Callable[[str], Awaitable[float | None]], **options: Any) -> AsyncIterator[WorkQueue[str]]:
    queue = WorkQueue(reconcile, workers=options.pop("workers", 3), jitter=lambda: 1.0, **options)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.wait([task])


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_a_key_that_waits_is_there_once() -> None:
    seen: list[str] = []

    async def reconcile(key: str) -> None:
        seen.append(key)

    queue = WorkQueue(reconcile, workers=1)
    for _ in range(5):
        queue.add("a")
    queue.add("b")
    assert queue.depth == 2
    task = asyncio.create_task(queue.run())
    await queue.until_settled()
    assert seen == ["a", "b"]
    task.cancel()
    await asyncio.wait([task])


@virtual
async def test_a_key_is_never_in_hand_twice_and_what_comes_meanwhile_is_seen_to_afterwards() -> None:
    in_hand: Counter[str] = Counter()
    taken: Counter[str] = Counter()

    async def reconcile(key: str) -> None:
        in_hand[key] += 1
        taken[key] += 1
        assert in_hand[key] == 1
        await asyncio.sleep(1)
        in_hand[key] -= 1

    async with working(reconcile) as queue:
        queue.add("a")
        await asyncio.sleep(0.5)
        queue.add("a")
        queue.add("a")
        queue.add("b")
        await queue.until_settled()
        assert taken == {"a": 2, "b": 1}
        assert now() == 2.0


@virtual
async def test_different_keys_are_in_hand_side_by_side_up_to_the_number_of_workers() -> None:
    async def reconcile(key: str) -> None:
        await asyncio.sleep(1)

    async with working(reconcile, workers=3) as queue:
        for key in "abcdef":
            queue.add(key)
        await queue.until_settled()
        assert now() == 2.0


@virtual
async def test_a_failure_comes_back_ever_later_and_a_success_ends_that() -> None:
    times: list[float] = []

    async def reconcile(key: str) -> None:
        times.append(now())
        if len(times) not in {5, 7}:
            raise RuntimeError("not yet")

    async with working(reconcile) as queue:
        queue.add("a")
        await asyncio.sleep(100)
        assert [round(later - earlier, 3) for earlier, later in pairwise(times)] == [0.2, 0.4, 0.8, 1.6]
        queue.add("a")
        await asyncio.sleep(100)
        assert round(times[6] - times[5], 3) == 0.2


@virtual
async def test_one_key_that_always_fails_does_not_hold_up_the_others() -> None:
    done: list[str] = []

    async def reconcile(key: str) -> None:
        if key == "bad":
            raise RuntimeError("always")
        done.append(key)

    async with working(reconcile, workers=1) as queue:
        queue.add("bad")
        for number in range(20):
            queue.add(f"good-{number}")
        await asyncio.sleep(0.01)
        assert len(done) == 20


@virtual
async def test_a_change_is_seen_to_at_once_although_the_key_waits_for_its_next_attempt() -> None:
    times: list[float] = []

    async def reconcile(key: str) -> None:
        times.append(now())
        if len(times) == 1:
            raise Later("in a minute", seconds=60)

    async with working(reconcile) as queue:
        queue.add("a")
        await asyncio.sleep(5)
        queue.add("a")
        await asyncio.sleep(120)
        assert times == [0.0, 5.0]


@virtual
async def test_a_key_is_seen_again_when_it_asked_for_that() -> None:
    times: list[float] = []

    async def reconcile(key: str) -> float | None:
        times.append(now())
        return 10.0 if len(times) < 3 else None

    async with working(reconcile) as queue:
        queue.add("a")
        await asyncio.sleep(100)
        assert times == [0.0, 10.0, 20.0]


@virtual
async def test_how_every_reconcile_ended_is_told() -> None:
    ends: list[tuple[object, str]] = []

    async def reconcile(key: str) -> None:
        if key == "later":
            raise Later("x", seconds=1000)
        if key == "failed":
            raise RuntimeError

    async with working(reconcile, observe=lambda key, result, seconds: ends.append((key, result))) as queue:
        for key in ("done", "later", "failed"):
            queue.add(key)
        await asyncio.sleep(0.1)
    assert ends == [("done", "done"), ("later", "later"), ("failed", "failed")]


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_the_delay_after_failures_is_bounded(failures: int, jitter: float) -> None:
    assert 0.1 <= backoff(failures, jitter=jitter) <= LONGEST_DELAY


@virtual
async def test_writes_come_in_a_burst_and_then_at_their_rate() -> None:
    budget = WriteBudget(per_second=50, burst=100)

    async def writer() -> None:
        for _ in range(40):
            await budget.take()

    await asyncio.gather(*(writer() for _ in range(5)))
    assert now() == pytest.approx((200 - 100) / 50)
    await asyncio.sleep(60)
    began = now()
    for _ in range(100):
        await budget.take()
    assert now() == began
    assert budget.taken == 300
