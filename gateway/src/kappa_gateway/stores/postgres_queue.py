"""EventQueue in PostgreSQL, for any number of gateways: an enqueue is answered after the commit that carried it, and many share one.

What is stored how is in :mod:`.postgres_queue_rows`; connections and the words for a server that is away come from :mod:`.postgres`.
Gateways lease side by side and skip what another holds; a lease ends by time, or seconds after its gateway is gone
(:mod:`.postgres_presence`). :meth:`PostgresEventQueue.listen` carries the news of an enqueue to the workers of the other gateways.

Back-pressure goes by what the queue held a second ago and what this gateway has added since: gateways together may overshoot by what
they take in within that second. Nothing is refused for want of room before the books have been read again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self, TypeVar

import asyncpg

from kappa_core.ports.queue import Bounds, Dead, Event, FunctionStats, Lease, Leased, QueueFull, Waiting, unqualified
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.clock import epoch_ms
from kappa_gateway.stores import postgres_queue_rows as rows
from kappa_gateway.stores.gathering import Gathering
from kappa_gateway.stores.postgres import Postgres
from kappa_gateway.stores.postgres_presence import GONE_SECONDS, LOOK_SECONDS, Presence
from kappa_gateway.stores.postgres_wakes import Wakes

T = TypeVar("T")
A = TypeVar("A")

SLICE: Final = 2_000
"""Rows that a purge or redrive touches in one transaction."""
BATCH_BYTES: Final = 8 * 1024 * 1024
"""Payloads that one statement carries, where there is more than one."""
BOOKS_SECONDS: Final = 1.0
LOOKING: Final = 2
"""Connections for what people and metrics ask, which may take long; the five others are for events."""
_CONTENDED_MS: Final = 5
"""After which a gateway looks again that found everything due in the hands of others."""
_ATTEMPTS: Final = 5
"""Of a statement that PostgreSQL has ended for the sake of another one: it has done nothing."""
_ENDED_FOR_ANOTHER: Final = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class PostgresEventQueue:
    """See the module. Use :meth:`open`; belongs to the event loop it was opened on."""

    def __init__(
        self, postgres: Postgres, *, bounds: Bounds, clock_ms: Callable[[], int] | None, gone_seconds: float, look_seconds: float
    ) -> None:
        self._postgres = postgres
        self._room = _Room(bounds)
        self._clock = clock_ms
        self._offset_ms = 0
        """Of the database's clock from this machine's."""
        self._turn = ""
        presence = self._presence = Presence(self._freed, gone_seconds=gone_seconds, look_seconds=look_seconds)
        self._wakes = Wakes(
            postgres, look=self._look_around, leave=presence.leave, lost=presence.lost, heartbeat=presence.look_seconds
        )
        self._wake: Callable[[str], None] | None = None
        self._longest_ms = 0
        """The longest lease that was asked for here."""
        self._enqueues = Gathering[rows.Arrival, str](self._enqueue)
        self._acks = Gathering[Lease, None](self._ack)
        self._words = Gathering[rows.Word, None](self._say)
        self._deaths = Gathering[rows.Death, None](self._kill)
        self._looking = asyncio.Semaphore(LOOKING)
        self._closed = False

    @classmethod
    async def open(
        cls,
        postgres: Postgres,
        /,
        *,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        clock_ms: Callable[[], int] | None = None,
        gone_seconds: float = GONE_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> Self:
        """The queue over connections that stay the caller's. ``clock_ms`` is the database's clock where none is given; the others are
        those of :mod:`.postgres_presence`."""
        return cls(postgres, bounds=bounds, clock_ms=clock_ms, gone_seconds=gone_seconds, look_seconds=look_seconds)

    def clock_ms(self) -> int:
        """The queue's time as of the last lease, epoch milliseconds: what its worker must go by."""
        return self._clock() if self._clock is not None else epoch_ms() + self._offset_ms

    @property
    def holder(self) -> int | None:
        """The number under which this gateway holds leases, while others can know that it is there."""
        return self._presence.holder

    @property
    def looks(self) -> int:
        """How often it has looked whether others are there."""
        return self._presence.looks

    def listen(self, wake: Callable[[str], None]) -> None:
        """Until :meth:`close`: call ``wake`` with the uid of a function, or "" for any, when another gateway has put something into the
        queue, and tell the others of what this one puts in. Without it workers find such events when they next look, and leases end by time
        alone."""
        self._wake = wake
        self._wakes.start(wake)

    # -- the port --------------------------------------------------------------------------------------------------
    async def enqueue(self, event: Event, /, *, delay_ms: int = 0, dedupe: str = "") -> str:
        self._check_open()
        event_id = await self._enqueues(rows.Arrival(event, delay_ms, dedupe))
        if delay_ms == 0:
            self._wakes.tell(event.function_uid)
        return event_id

    async def lease(self, limit: int, /, *, lease_ms: int, share: int, rooms: Mapping[str, int]) -> Leased:
        self._check_open()
        self._longest_ms = max(self._longest_ms, lease_ms)

        async def work(connection: Any) -> Leased:
            found = await rows.lease(
                connection,
                limit,
                now=self._now(),
                lease_ms=lease_ms,
                share=share,
                rooms=rooms,
                turn=self._turn,
                holder=self._presence.holder,
            )
            self._offset_ms = found.now - epoch_ms()
            if found.leases:
                self._turn = found.leases[-1].event.function_uid
            next_due_ms = self.clock_ms() + _CONTENDED_MS if found.contended else found.next_due_ms
            return Leased(leases=found.leases, next_due_ms=next_due_ms)

        return await self._run(work)

    async def extend(self, lease: Lease, /, *, lease_ms: int, note: bytes | None = None) -> None:
        self._check_open()
        await self._words(rows.Word(lease, lease_ms, note, keep=True))

    async def ack(self, lease: Lease, /) -> None:
        self._check_open()
        await self._acks(lease)

    async def nack(self, lease: Lease, /, *, after_ms: int, note: bytes | None = None) -> None:
        self._check_open()
        await self._words(rows.Word(lease, after_ms, note, keep=False))
        if after_ms == 0:
            self._wakes.tell(lease.event.function_uid)

    async def kill(self, lease: Lease, /, *, reason: str, detail: str = "") -> None:
        self._check_open()
        await self._deaths(rows.Death(lease, reason, detail))

    async def find(self, event_id: str, /) -> Waiting | Dead | None:
        return await self._look(lambda connection: rows.find(connection, event_id))

    async def dead_letters(self, function_uid: str, /, *, after: str = "", limit: int = 100) -> list[Dead]:
        return await self._look(lambda connection: rows.dead_letters(connection, function_uid, after=after, limit=limit))

    async def redrive(self, function_uid: str, /, *, event_id: str = "") -> int:
        redriven = await self._sliced(
            lambda connection: rows.redrive(connection, function_uid, event_id=event_id, now=self._now(), limit=SLICE)
        )
        if redriven:
            self._room.read_again()
            self._wakes.tell(function_uid)
        return redriven

    async def purge(self, function_uid: str, /, *, dead: bool, event_id: str = "") -> int:
        return await self._sliced(
            lambda connection: rows.purge(connection, function_uid, dead=dead, event_id=event_id, now=self._now(), limit=SLICE)
        )

    async def expire(self, before_ms: int, /) -> int:
        return await self._sliced(lambda connection: rows.expire(connection, before_ms, now=self._now(), limit=SLICE))

    async def stats(self) -> list[FunctionStats]:
        async def work(connection: Any) -> list[FunctionStats]:
            await rows.add_up(connection)
            return await rows.stats(connection)

        return await self._look(work)

    async def close(self) -> None:
        """Finish what is under way; the connections stay open. Idempotent."""
        self._closed = True
        for gathering in (self._enqueues, self._acks, self._words, self._deaths):
            await gathering.idle()
        await self._wakes.close()

    # -- batches ---------------------------------------------------------------------------------------------------
    async def _enqueue(self, arrivals: Sequence[rows.Arrival]) -> Sequence[str | Exception]:
        answers: list[str | Exception] = []
        for batch in _weighed(arrivals):
            try:
                answers += await self._run(lambda connection, batch=batch: self._store(connection, batch))  # type: ignore[misc]
            except StoreUnavailable as error:
                answers += [error] * len(batch)
        return answers

    async def _store(self, connection: Any, arrivals: Sequence[rows.Arrival]) -> list[str | Exception]:
        if self._room.is_old:
            await rows.add_up(connection)
            self._room.know(await rows.held_bytes(connection))
        refused = self._room.refused(arrivals)
        if refused and not self._room.is_new:
            self._room.know(await rows.held_bytes(connection))
            refused = self._room.refused(arrivals)
        accepted = [one for place, one in enumerate(arrivals) if place not in refused]
        ids = iter(await rows.enqueue(connection, accepted, now=self._now()))
        self._room.take(accepted)
        return [refused[place] if place in refused else next(ids) for place in range(len(arrivals))]

    async def _ack(self, leases: Sequence[Lease]) -> Sequence[Exception | None]:
        return await self._run(lambda connection: rows.ack(connection, leases, now=self._now()))

    async def _kill(self, deaths: Sequence[rows.Death]) -> Sequence[Exception | None]:
        return await self._run(lambda connection: rows.kill(connection, deaths, now=self._now()))

    async def _say(self, words: Sequence[rows.Word]) -> Sequence[Exception | None]:
        answers: list[Exception | None] = []
        for batch in _distinct(words):
            try:
                answers += await self._run(lambda connection, batch=batch: rows.say(connection, batch, now=self._now()))  # type: ignore[misc]
            except StoreUnavailable as error:
                answers += [error] * len(batch)
        return answers

    async def _sliced(self, work: Callable[[Any], Awaitable[int]]) -> int:
        total = 0
        while True:
            done = await self._look(work)
            total += done
            if done < SLICE:
                return total

    async def _look(self, work: Callable[[Any], Awaitable[T]]) -> T:
        self._check_open()
        async with self._looking:
            return await self._run(work)

    async def _run(self, work: Callable[[Any], Awaitable[T]]) -> T:
        async with self._postgres.connection() as connection:
            for _ in range(_ATTEMPTS - 1):
                try:
                    return await work(connection)
                except _ENDED_FOR_ANOTHER:
                    continue
            return await work(connection)

    # -- other gateways ----------------------------------------------------------------------------------------------
    async def _look_around(self, connection: Any) -> None:
        await self._presence.look(connection, now=self._now(), lease_ms=self._longest_ms)

    def _freed(self, function_uids: set[str]) -> None:
        for function_uid in function_uids:
            self._wakes.tell(function_uid)
            if self._wake is not None:
                self._wake(function_uid)

    # -- time ------------------------------------------------------------------------------------------------------
    def _now(self) -> int | None:
        return None if self._clock is None else self._clock()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the queue is closed")


class _Room:
    """What the queue holds as far as this gateway knows, and what therefore still fits."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._bytes: dict[str, int] = {}
        self._total = 0
        self._known_at: float | None = None
        self.is_new = False
        """Nothing was taken since it was read."""

    @property
    def is_old(self) -> bool:
        return self._known_at is None or time.monotonic() >= self._known_at + BOOKS_SECONDS

    def know(self, held: dict[str, int]) -> None:
        self._bytes, self._total = held, sum(held.values())
        self._known_at = time.monotonic()
        self.is_new = True

    def read_again(self) -> None:
        """More waits than was taken in here."""
        self._known_at = None

    def refused(self, arrivals: Sequence[rows.Arrival]) -> dict[int, QueueFull]:
        """Which of them do not fit, by their place."""
        total, functions = self._total, dict[str, int]()
        refused = {}
        for place, (event, _, _) in enumerate(arrivals):
            size = arrivals[place].size
            held = functions.get(event.function_uid, self._bytes.get(event.function_uid, 0))
            if held + size > self._bounds.total_bytes - total:
                refused[place] = QueueFull(f"the queue has no room for another event of {unqualified(event.function_arn)}")
            else:
                functions[event.function_uid] = held + size
                total += size
        return refused

    def take(self, arrivals: Sequence[rows.Arrival]) -> None:
        for one in arrivals:
            self._bytes[one.event.function_uid] = self._bytes.get(one.event.function_uid, 0) + one.size
            self._total += one.size
        self.is_new = self.is_new and not arrivals


def _weighed(arrivals: Sequence[rows.Arrival]) -> Iterator[Sequence[rows.Arrival]]:
    """Parts of up to BATCH_BYTES, or of one event."""
    begin = weight = 0
    for place, one in enumerate(arrivals):
        if weight and weight + one.size > BATCH_BYTES:
            yield arrivals[begin:place]
            begin, weight = place, 0
        weight += one.size
    yield arrivals[begin:]


def _distinct(words: Sequence[rows.Word]) -> Iterator[Sequence[rows.Word]]:
    """Parts in which no event comes up twice: what is said of one is heard in its order."""
    begin = 0
    seen: set[int] = set()
    for place, word in enumerate(words):
        if word.lease.number in seen:
            yield words[begin:place]
            begin, seen = place, set()
        seen.add(word.lease.number)
    yield words[begin:]
