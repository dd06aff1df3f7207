"""EventQueue in dictionaries: leases, epochs, fairness and bounds exactly as the durable drivers have them.

Every operation is one step without an await in it, so that tasks of one event loop see them in one order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping

from kappa_core.ports.queue import (
    DEDUPE_MS,
    EVENT_OVERHEAD,
    NOBODY,
    Bounds,
    Dead,
    Event,
    FunctionStats,
    Lease,
    Leased,
    LeaseLost,
    QueueFull,
    Waiting,
    unqualified,
)
from kappa_core.ports.store import StoreUnavailable


class _Row:
    """One event; dead once ``killed_ms`` is set."""

    __slots__ = ("due_ms", "enqueued_ms", "epoch", "event", "killed_ms", "leases", "note", "number", "reason")

    def __init__(self, event: Event, *, number: int, now: int, due_ms: int) -> None:
        self.event = event
        self.number = number
        self.enqueued_ms = now
        self.due_ms = due_ms
        self.epoch = NOBODY
        self.leases = 0
        self.note = b""
        self.killed_ms: int | None = None
        self.reason = ("", "")

    def lease(self) -> Lease:
        return Lease(
            event=self.event,
            number=self.number,
            epoch=self.epoch,
            enqueued_ms=self.enqueued_ms,
            leases=self.leases,
            note=self.note,
        )

    def dead(self) -> Dead:
        assert self.killed_ms is not None
        reason, detail = self.reason
        return Dead(event=self.event, enqueued_ms=self.enqueued_ms, killed_ms=self.killed_ms, reason=reason, detail=detail)

    @property
    def size(self) -> int:
        return len(self.event.payload) + EVENT_OVERHEAD


class _Function:
    __slots__ = ("arn", "dead", "done", "killed", "live", "live_bytes", "touched_ms")

    def __init__(self, arn: str) -> None:
        self.arn = arn
        self.live: dict[str, _Row] = {}
        self.live_bytes = 0
        self.dead: dict[str, _Row] = {}
        self.done = 0
        self.killed = 0
        self.touched_ms = 0


class MemoryEventQueue:
    """The twin of every durable EventQueue."""

    def __init__(self, *, clock_ms: Callable[[], int], bounds: Bounds = Bounds()) -> None:  # noqa: B008 - frozen
        self._clock_ms = clock_ms
        self._bounds = bounds
        self._functions: dict[str, _Function] = {}
        self._rows: dict[str, _Row] = {}
        self._dedupe: dict[tuple[str, str], tuple[str, int]] = {}
        self._number = 0
        self._epoch = 0
        self._turn = ""
        """Uid of the function that the last lease ended with."""
        self._closed = False

    async def enqueue(self, event: Event, /, *, delay_ms: int = 0, dedupe: str = "") -> str:
        self._check_open()
        now = self._clock_ms()
        if dedupe:
            known, until = self._dedupe.get((event.function_uid, dedupe), ("", 0))
            if until > now:
                return known
        function = self._functions.setdefault(event.function_uid, _Function(unqualified(event.function_arn)))
        size = len(event.payload) + EVENT_OVERHEAD
        total = sum(each.live_bytes for each in self._functions.values())
        if function.live_bytes + size > self._bounds.total_bytes - total:
            raise QueueFull(f"the queue has no room for another event of {function.arn}")
        if dedupe:
            self._dedupe[event.function_uid, dedupe] = (event.event_id, now + DEDUPE_MS)
        self._number += 1
        self._enter(_Row(event, number=self._number, now=now, due_ms=now + delay_ms), now=now)
        return event.event_id

    async def lease(self, limit: int, /, *, lease_ms: int, share: int, rooms: Mapping[str, int]) -> Leased:
        self._check_open()
        now = self._clock_ms()
        queues, next_due = self._due(limit, now=now, share=share, rooms=rooms)
        taken: list[_Row] = []
        while queues and len(taken) < limit:
            queue = queues.popleft()
            row = queue.popleft()
            taken.append(row)
            self._turn = row.event.function_uid
            if queue:
                queues.append(queue)
        for row in taken:
            self._epoch += 1
            row.due_ms = now + lease_ms
            row.epoch = self._epoch
            row.leases += 1
        return Leased(leases=[row.lease() for row in taken], next_due_ms=next_due)

    def _due(self, limit: int, *, now: int, share: int, rooms: Mapping[str, int]) -> tuple[deque[deque[_Row]], int | None]:
        uids = sorted(self._functions)
        turn = bisect_right(uids, self._turn)
        queues: deque[deque[_Row]] = deque()
        next_due: int | None = None
        for uid in uids[turn:] + uids[:turn]:
            room = rooms.get(uid, share)
            if len(queues) >= limit:
                break
            if room <= 0:
                continue
            rows = sorted(self._functions[uid].live.values(), key=lambda row: (row.due_ms, row.number))
            due = [row for row in rows if row.due_ms <= now]
            if due:
                queues.append(deque(due[:room]))
            elif rows:
                next_due = rows[0].due_ms if next_due is None else min(next_due, rows[0].due_ms)
        return queues, next_due

    async def extend(self, lease: Lease, /, *, lease_ms: int, note: bytes | None = None) -> None:
        row = self._held(lease)
        row.due_ms = self._clock_ms() + lease_ms
        row.note = row.note if note is None else note

    async def ack(self, lease: Lease, /) -> None:
        row = self._held(lease)
        self._leave(row).done += 1

    async def nack(self, lease: Lease, /, *, after_ms: int, note: bytes | None = None) -> None:
        row = self._held(lease)
        row.epoch = NOBODY  # this lease is over although nobody has the next one yet
        row.due_ms = self._clock_ms() + after_ms
        row.note = row.note if note is None else note

    async def kill(self, lease: Lease, /, *, reason: str, detail: str = "") -> None:
        row = self._held(lease)
        function = self._leave(row)
        function.killed += 1
        row.killed_ms, row.reason = self._clock_ms(), (reason, detail)
        function.dead[row.event.event_id] = row
        self._rows[row.event.event_id] = row

    async def find(self, event_id: str, /) -> Waiting | Dead | None:
        self._check_open()
        row = self._rows.get(event_id)
        if row is None:
            return None
        if row.killed_ms is not None:
            return row.dead()
        return Waiting(event=row.event, enqueued_ms=row.enqueued_ms, due_ms=row.due_ms, leases=row.leases)

    async def dead_letters(self, function_uid: str, /, *, after: str = "", limit: int = 100) -> list[Dead]:
        self._check_open()
        function = self._functions.get(function_uid)
        rows = [] if function is None else sorted(function.dead.values(), key=_death)
        behind = self._rows.get(after)
        if after and behind is not None and behind.killed_ms is not None:
            rows = [row for row in rows if _death(row) > _death(behind)]
        return [row.dead() for row in rows[:limit]]

    async def redrive(self, function_uid: str, /, *, event_id: str = "") -> int:
        self._check_open()
        function = self._functions.get(function_uid)
        rows = [] if function is None else [row for row in function.dead.values() if event_id in ("", row.event.event_id)]
        now = self._clock_ms()
        for row in rows:
            assert function is not None
            del function.dead[row.event.event_id]
            row.killed_ms, row.reason, row.note, row.leases = None, ("", ""), b"", 0
            row.epoch = NOBODY
            row.enqueued_ms = row.due_ms = now
            self._enter(row, now=now)
        return len(rows)

    async def purge(self, function_uid: str, /, *, dead: bool, event_id: str = "") -> int:
        self._check_open()
        function = self._functions.get(function_uid)
        if function is None:
            return 0
        rows = function.dead if dead else function.live
        gone = [row for row in rows.values() if event_id in ("", row.event.event_id)]
        for row in gone:
            if dead:
                del function.dead[row.event.event_id], self._rows[row.event.event_id]
            else:
                self._leave(row)
        return len(gone)

    async def expire(self, before_ms: int, /) -> int:
        self._check_open()
        expired = 0
        for uid, function in list(self._functions.items()):
            for event_id, row in list(function.dead.items()):
                if row.killed_ms is not None and row.killed_ms < before_ms:
                    del function.dead[event_id], self._rows[event_id]
                    expired += 1
            if not function.live and not function.dead and function.touched_ms < before_ms:
                del self._functions[uid]
        now = self._clock_ms()
        self._dedupe = {key: value for key, value in self._dedupe.items() if value[1] > now}
        return expired

    async def stats(self) -> list[FunctionStats]:
        self._check_open()
        return [
            FunctionStats(
                function_uid=uid,
                function_arn=function.arn,
                depth=len(function.live),
                depth_bytes=function.live_bytes,
                oldest_ms=min((row.enqueued_ms for row in function.live.values()), default=None),
                dead=len(function.dead),
                done=function.done,
                killed=function.killed,
            )
            for uid, function in sorted(self._functions.items())
        ]

    async def close(self) -> None:
        self._closed = True

    # -- rows ------------------------------------------------------------------------------------------------------
    def _enter(self, row: _Row, *, now: int) -> None:
        function = self._functions[row.event.function_uid]
        function.live[row.event.event_id] = self._rows[row.event.event_id] = row
        function.live_bytes += row.size
        function.touched_ms = now

    def _leave(self, row: _Row) -> _Function:
        function = self._functions[row.event.function_uid]
        del function.live[row.event.event_id], self._rows[row.event.event_id]
        function.live_bytes -= row.size
        function.touched_ms = self._clock_ms()
        return function

    def _held(self, lease: Lease) -> _Row:
        self._check_open()
        row = self._rows.get(lease.event.event_id)
        if row is None or row.number != lease.number or row.killed_ms is not None or row.epoch != lease.epoch:
            raise LeaseLost(f"event {lease.event.event_id} is no longer leased with epoch {lease.epoch}")
        return row

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the queue is closed")


def _death(row: _Row) -> tuple[int, int]:
    return (row.killed_ms or 0, row.number)
