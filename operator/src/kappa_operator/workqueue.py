"""The queue between what was seen and what is done: keys, each of them in hand at most once, repeated until it succeeds.

Watch handlers only :meth:`WorkQueue.add` keys; a fixed number of workers takes them out and reconciles. A key that is added while it
waits is there once; one that is added while it is in hand is taken again afterwards, never beside. A failure brings the key back
after a delay that doubles with jitter up to five minutes; :class:`Later` is the same without being a failure. Nothing is persisted:
whoever starts lists everything and so adds every key again. :class:`WriteBudget` bounds what all workers together write.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

FIRST_DELAY: Final = 0.2
"""Seconds before the first repetition after a failure; doubles."""
LONGEST_DELAY: Final = 300.0
"""Seconds."""

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Later(Exception):
    """Raised by a reconcile that can go on only later; the delay in seconds is its own or, with None, that of a failure."""

    def __init__(self, reason: str, *, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Observer(Protocol):
    """Is told how every reconcile ended: ``done``, ``later`` or ``failed``, and how long it took."""

    def __call__(self, key: object, result: str, seconds: float, /) -> None: ...


class _Waiting(NamedTuple):
    due: float
    timer: asyncio.TimerHandle


def backoff(failures: int, *, jitter: float) -> float:
    """Seconds to wait after so many failures in a row; ``jitter`` is a random number in [0, 1)."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 20))
    return longest * (0.5 + 0.5 * jitter)


class WorkQueue(Generic[K]):
    """All on one event loop; its clock is that loop's."""

    def __init__(
        self,
        reconcile: Callable[[K], Awaitable[float | None]],
        *,
        workers: int,
        observe: Observer = lambda key, result, seconds: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``reconcile`` returns the seconds after which the key is to be looked at again even if nothing happens; None: never."""
        self._reconcile = reconcile
        self._workers = workers
        self._observe = observe
        self._jitter = jitter
        self._ready: dict[K, None] = {}
        """In the order they came; a dict because membership is asked for with every event."""
        self._in_hand: set[K] = set()
        self._again: set[K] = set()
        self._waiting: dict[K, _Waiting] = {}
        self._failures: dict[K, int] = {}
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def depth(self) -> int:
        """Keys that could be taken now and are not."""
        return len(self._ready)

    @property
    def settled(self) -> bool:
        """Nothing waits for a worker and nothing is in hand."""
        return self._idle.is_set()

    def add(self, key: K) -> None:
        """See to this key as soon as a worker is free."""
        if key in self._in_hand:
            self._again.add(key)
            return
        self._forget_timer(key)
        self._ready[key] = None
        self._idle.clear()
        self._some.set()

    def add_after(self, key: K, seconds: float) -> None:
        """See to this key then, or earlier where it is asked for earlier."""
        due = asyncio.get_running_loop().time() + seconds
        waiting = self._waiting.get(key)
        if key in self._ready or (waiting is not None and waiting.due <= due):
            return
        self._forget_timer(key)
        self._waiting[key] = _Waiting(due, asyncio.get_running_loop().call_at(due, self.add, key))

    async def until_settled(self) -> None:
        """Wait until nothing is ready or in hand; what waits for its time does not count."""
        await self._idle.wait()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"reconcile-{number}")
        finally:
            for waiting in self._waiting.values():
                waiting.timer.cancel()
            self._waiting.clear()

    async def _work(self) -> None:
        while True:
            while not self._ready:
                self._some.clear()
                await self._some.wait()
            key = next(iter(self._ready))
            del self._ready[key]
            self._in_hand.add(key)
            try:
                await asyncio.sleep(0)  # a reconcile with nothing to do never waits: thousands in a row would stop the loop
                await self._take(key)
            finally:
                self._in_hand.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
                if not self._ready and not self._in_hand:
                    self._idle.set()

    async def _take(self, key: K) -> None:
        began = time.monotonic()
        result = "done"
        try:
            again = await self._reconcile(key)
        except Later as reason:
            result = "later"
            log.debug("%s: %s", key, reason)
            self._repeat(key, reason.seconds)
        except Exception:  # one object that cannot be reconciled must not end the work on all others
            result = "failed"
            log.exception("reconcile of %s failed", key)
            self._repeat(key, None)
        else:
            self._failures.pop(key, None)
            if again is not None:
                self.add_after(key, again)
        self._observe(key, result, time.monotonic() - began)

    def _repeat(self, key: K, seconds: float | None) -> None:
        if seconds is None:
            self._failures[key] = failures = self._failures.get(key, 0) + 1
            seconds = backoff(failures, jitter=self._jitter())
        self.add_after(key, seconds)

    def _forget_timer(self, key: K) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting.timer.cancel()


class WriteBudget:
    """A token bucket in front of every write to the API server, so that a storm here is none there."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._at: float | None = None
        self.taken = 0
        """Writes so far."""

    async def take(self) -> None:
        """Return when one more write is due; first come, first served."""
        now = asyncio.get_running_loop().time()
        if self._at is not None:
            self._tokens = min(float(self._burst), self._tokens + (now - self._at) * self._per_second)
        self._at = now
        self._tokens -= 1
        self.taken += 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._per_second)
