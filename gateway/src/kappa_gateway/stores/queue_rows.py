"""The tables of the EventQueue and the statements on them, each a function of a connection that is in a transaction.

An event is one row of ``events`` from its enqueue to its acknowledgement; a dead letter is the same row with ``killed_ms`` set, which
takes it out of the partial index that leases read. Payloads and notes over 64 KiB lie in ``large``, so that what touches the row does
not rewrite them. ``functions`` counts what belongs to each function, so that neither back-pressure nor metrics have to count rows. No
I/O policy here: who runs these, and in which transaction, is decided in :mod:`kappa_gateway.stores.queue`.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, Literal, NamedTuple

from kappa_core.ports.queue import (
    DEDUPE_MS,
    EVENT_OVERHEAD,
    HOT_BYTES,
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
from kappa_gateway.stores.database import Layout

LAYOUT: Final = Layout(
    synchronous="FULL",
    migrations=(
        (
            """CREATE TABLE functions (
                id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, arn TEXT NOT NULL,
                depth INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
                done INTEGER NOT NULL DEFAULT 0, killed INTEGER NOT NULL DEFAULT 0, touched_ms INTEGER NOT NULL)""",
            # payload and note are NULL where they lie in large. AUTOINCREMENT: the order of arrival, never given twice.
            """CREATE TABLE events (
                id INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, function INTEGER NOT NULL, arn TEXT NOT NULL,
                trace_id TEXT NOT NULL, size INTEGER NOT NULL, enqueued_ms INTEGER NOT NULL, due_ms INTEGER NOT NULL,
                epoch INTEGER NOT NULL, leases INTEGER NOT NULL DEFAULT 0, killed_ms INTEGER, reason TEXT NOT NULL DEFAULT '',
                detail TEXT NOT NULL DEFAULT '', note BLOB, payload BLOB)""",
            "CREATE INDEX due ON events (function, due_ms) WHERE killed_ms IS NULL",
            # Of dead letters only: an index over random ids would cost every enqueue a page of its own.
            "CREATE INDEX dead_ids ON events (event_id) WHERE killed_ms IS NOT NULL",
            "CREATE INDEX arrival ON events (function, killed_ms)",
            "CREATE TABLE large (event INTEGER NOT NULL, part TEXT NOT NULL, data BLOB NOT NULL, PRIMARY KEY (event, part))",
            """CREATE TABLE dedupe (
                function INTEGER NOT NULL, key TEXT NOT NULL, event_id TEXT NOT NULL, until_ms INTEGER NOT NULL,
                PRIMARY KEY (function, key)) WITHOUT ROWID""",
            # epoch: the highest that was given to a lease. bytes: of everything that waits.
            "CREATE TABLE queue (epoch INTEGER NOT NULL, bytes INTEGER NOT NULL)",
            "INSERT INTO queue VALUES (0, 0)",
        ),
    ),
)

_ROWS_PER_INSERT: Final = 64
Part = Literal["payload", "note"]
_EVENT = "e.id, e.event_id, f.uid, e.arn, e.trace_id, e.payload, e.enqueued_ms"
_FROM = "FROM events e JOIN functions f ON f.id = e.function"


# -- in ------------------------------------------------------------------------------------------------------------
class Arrival(NamedTuple):
    """One enqueue."""

    event: Event
    now: int
    due_ms: int
    dedupe: str


class _Books:
    """What a batch of enqueues or acknowledgements adds to the counts, written once at its end."""

    __slots__ = ("_connection", "_functions", "total")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._functions: dict[str, list[int]] = {}
        """By uid: row, bytes before, events added, bytes added, and when."""
        (self.total,) = connection.execute("SELECT bytes FROM queue").fetchone()

    def function(self, event: Event, *, now: int) -> list[int]:
        """The books of an event's function, begun where there are none."""
        books = self._functions.get(event.function_uid)
        if books is None:
            found = self._connection.execute("SELECT id, bytes FROM functions WHERE uid = ?", (event.function_uid,)).fetchone()
            if found is None:
                made = self._connection.execute(
                    "INSERT INTO functions (uid, arn, touched_ms) VALUES (?, ?, ?)",
                    (event.function_uid, unqualified(event.function_arn), now),
                )
                found = (made.lastrowid, 0)
            books = self._functions[event.function_uid] = [*found, 0, 0, now]
        return books

    def write(self) -> None:
        added = 0
        for function, _, depth, size, now in self._functions.values():
            added += size
            self._connection.execute(
                "UPDATE functions SET depth = depth + ?, bytes = bytes + ?, touched_ms = ? WHERE id = ?",
                (depth, size, now, function),
            )
        self._connection.execute("UPDATE queue SET bytes = bytes + ?", (added,))


def enqueue(connection: sqlite3.Connection, arrivals: Sequence[Arrival], *, bounds: Bounds) -> list[str | Exception]:
    """See the port; each gets its id or QueueFull."""
    books = _Books(connection)
    answers: list[str | Exception] = []
    rows: list[_Row] = []
    for event, now, due_ms, dedupe in arrivals:
        function = books.function(event, now=now)
        known = _known(connection, event, function[0], dedupe=dedupe, now=now)
        if known is not None:
            answers.append(known)
            continue
        size = len(event.payload) + EVENT_OVERHEAD
        if function[1] + function[3] + size > bounds.total_bytes - books.total:
            answers.append(QueueFull(f"the queue has no room for another event of {unqualified(event.function_arn)}"))
            continue
        hot = event.payload if len(event.payload) <= HOT_BYTES else None
        row = (event.event_id, function[0], event.function_arn, event.trace_id, size, now, due_ms, NOBODY, hot)
        if hot is None:
            _put_large(connection, _insert(connection, [row]), "payload", event.payload)
        else:
            rows.append(row)
        if dedupe:
            connection.execute(
                "INSERT OR REPLACE INTO dedupe VALUES (?, ?, ?, ?)", (function[0], dedupe, event.event_id, now + DEDUPE_MS)
            )
        function[2] += 1
        function[3] += size
        books.total += size
        answers.append(event.event_id)
    _insert(connection, rows)
    books.write()
    return answers


_Row = tuple[str, int, str, str, int, int, int, int, bytes | None]


def _insert(connection: sqlite3.Connection, rows: Sequence[_Row]) -> int:
    """Insert rows, many by one statement; the number of the last. Between statements the thread lets go of the interpreter, and
    under load waits for it longer than the statement took."""
    at = number = 0
    while at < len(rows):
        size = min(_ROWS_PER_INSERT, 1 << (len(rows) - at).bit_length() - 1)  # powers of two: few statements to prepare
        values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, x'', ?)"] * size)
        stored = connection.execute(
            "INSERT INTO events (event_id, function, arn, trace_id, size, enqueued_ms, due_ms, epoch, note, payload)"  # noqa: S608 - only ?
            f" VALUES {values}",
            list(chain.from_iterable(rows[at : at + size])),
        )
        number = stored.lastrowid or 0
        at += size
    return number


def _known(connection: sqlite3.Connection, event: Event, function: int, *, dedupe: str, now: int) -> str | None:
    if not dedupe:
        return None
    known = connection.execute(
        "SELECT event_id FROM dedupe WHERE function = ? AND key = ? AND until_ms > ?", (function, dedupe, now)
    ).fetchone()
    return None if known is None else str(known[0])


# -- leases --------------------------------------------------------------------------------------------------------
def lease(
    connection: sqlite3.Connection, limit: int, *, now: int, lease_ms: int, share: int, rooms: Mapping[str, int], turn: int
) -> tuple[Leased, int]:
    """See the port. ``turn`` is the function that the last lease ended with; returned anew."""
    sources, next_due = _due(connection, limit, now=now, share=share, rooms=rooms, turn=turn)
    chosen: list[int] = []
    while sources and len(chosen) < limit:
        function, ids = sources.popleft()
        row = next(ids, None)
        if row is not None:
            chosen.append(row[0])
            turn = function
            sources.append((function, ids))
    for _, ids in sources:
        ids.close()
    if not chosen:
        return Leased(leases=[], next_due_ms=next_due), turn
    (epoch,) = connection.execute("UPDATE queue SET epoch = epoch + ? RETURNING epoch", (len(chosen),)).fetchone()
    epoch -= len(chosen)
    leases = []
    for row_id in chosen:
        epoch += 1
        connection.execute(
            "UPDATE events SET due_ms = ?, epoch = ?, leases = leases + 1 WHERE id = ?", (now + lease_ms, epoch, row_id)
        )
        row = connection.execute(f"SELECT {_EVENT}, e.leases, e.note {_FROM} WHERE e.id = ?", (row_id,)).fetchone()
        leases.append(
            Lease(
                event=_event(connection, row),
                number=row_id,
                epoch=epoch,
                enqueued_ms=row[6],
                leases=row[7],
                note=_part(connection, row_id, "note", row[8]),
            )
        )
    return Leased(leases=leases, next_due_ms=next_due), turn


def _due(
    connection: sqlite3.Connection, limit: int, *, now: int, share: int, rooms: Mapping[str, int], turn: int
) -> tuple[deque[tuple[int, sqlite3.Cursor]], int | None]:
    """The due events of up to ``limit`` functions behind ``turn``, and the earliest time at which another function has one.

    Steps from function to function through the index, so that what it costs is their number and not that of their events.
    """
    sources: deque[tuple[int, sqlite3.Cursor]] = deque()
    next_due: int | None = None
    skipped = {uid for uid, room in rooms.items() if room <= 0}
    for bottom, top in ((turn, 1 << 62), (-1, turn)):
        at = bottom
        while len(sources) < limit:
            found = connection.execute(
                "SELECT function, due_ms FROM events INDEXED BY due WHERE killed_ms IS NULL AND function > ?"
                " ORDER BY function, due_ms LIMIT 1",
                (at,),
            ).fetchone()
            if found is None or found[0] > top:
                break
            at, due_ms = found
            room = share
            if rooms:
                (uid,) = connection.execute("SELECT uid FROM functions WHERE id = ?", (at,)).fetchone()
                if uid in skipped:
                    continue
                room = rooms.get(uid, share)
            if due_ms <= now:
                ids = connection.execute(
                    "SELECT id FROM events INDEXED BY due WHERE killed_ms IS NULL AND function = ? AND due_ms <= ?"
                    " ORDER BY due_ms, id LIMIT ?",
                    (at, now, room),
                )
                sources.append((at, ids))
            else:
                next_due = due_ms if next_due is None else min(next_due, due_ms)
    return sources, next_due


def extend(connection: sqlite3.Connection, lease: Lease, *, due_ms: int, note: bytes | None) -> None:
    """See the port."""
    row_id, _, _ = _held(connection, lease)
    connection.execute("UPDATE events SET due_ms = ? WHERE id = ?", (due_ms, row_id))
    _put_note(connection, row_id, note)


def nack(connection: sqlite3.Connection, lease: Lease, *, due_ms: int, note: bytes | None) -> None:
    """See the port."""
    row_id, _, _ = _held(connection, lease)
    connection.execute("UPDATE events SET due_ms = ?, epoch = ? WHERE id = ?", (due_ms, NOBODY, row_id))
    _put_note(connection, row_id, note)


def ack(connection: sqlite3.Connection, leases: Sequence[Lease], *, now: int) -> list[Exception | None]:
    """See the port; each gets None or LeaseLost."""
    answers: list[Exception | None] = []
    gone: dict[int, list[int]] = {}
    for lease in leases:
        row = connection.execute(
            "DELETE FROM events WHERE id = ? AND epoch = ? AND killed_ms IS NULL"
            " RETURNING function, size, payload IS NULL OR note IS NULL",
            (lease.number, lease.epoch),
        ).fetchone()
        if row is None:
            answers.append(_lost(lease))
            continue
        function, size, large = row
        if large:
            connection.execute("DELETE FROM large WHERE event = ?", (lease.number,))
        counts = gone.setdefault(function, [0, 0])
        counts[0] += 1
        counts[1] += size
        answers.append(None)
    for function, (count, size) in gone.items():
        _count_out(connection, function, depth=count, size=size, done=count, now=now)
    return answers


def kill(connection: sqlite3.Connection, lease: Lease, *, reason: str, detail: str, now: int) -> None:
    """See the port."""
    row_id, function, size = _held(connection, lease)
    connection.execute(
        "UPDATE events SET killed_ms = ?, reason = ?, detail = ?, epoch = ? WHERE id = ?", (now, reason, detail, NOBODY, row_id)
    )
    _count_out(connection, function, depth=1, size=size, killed=1, now=now)


def release(connection: sqlite3.Connection, *, now: int) -> None:
    """End all leases: whoever had them is known to be gone."""
    connection.execute(
        "UPDATE events SET due_ms = min(due_ms, ?), epoch = ? WHERE epoch <> ? AND killed_ms IS NULL", (now, NOBODY, NOBODY)
    )


def _held(connection: sqlite3.Connection, lease: Lease) -> tuple[int, int, int]:
    """Row, function and size of a leased event. Raises LeaseLost."""
    row = connection.execute(
        "SELECT id, function, size FROM events WHERE id = ? AND epoch = ? AND killed_ms IS NULL", (lease.number, lease.epoch)
    ).fetchone()
    if row is None:
        raise _lost(lease)
    return row[0], row[1], row[2]


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"event {lease.event.event_id} is no longer leased with epoch {lease.epoch}")


# -- for people ----------------------------------------------------------------------------------------------------
def find(connection: sqlite3.Connection, event_id: str) -> Waiting | Dead | None:
    """See the port. A dead letter is looked up, what waits is searched for: only people ask."""
    for state in ("IS NOT NULL", "IS NULL"):
        row = connection.execute(
            f"SELECT {_EVENT}, e.leases, e.due_ms, e.killed_ms, e.reason, e.detail {_FROM}"
            f" WHERE e.event_id = ? AND e.killed_ms {state}",
            (event_id,),
        ).fetchone()
        if row is not None:
            break
    else:
        return None
    event = _event(connection, row)
    if row[9] is None:
        return Waiting(event=event, enqueued_ms=row[6], due_ms=row[8], leases=row[7])
    return Dead(event=event, enqueued_ms=row[6], killed_ms=row[9], reason=row[10], detail=row[11])


def dead_letters(connection: sqlite3.Connection, function_uid: str, *, after: str, limit: int) -> list[Dead]:
    """See the port."""
    behind = connection.execute(
        "SELECT killed_ms, id FROM events WHERE event_id = ? AND killed_ms IS NOT NULL", (after,)
    ).fetchone()
    rows = connection.execute(
        f"SELECT {_EVENT}, e.killed_ms, e.reason, e.detail {_FROM}"
        " WHERE f.uid = ? AND e.killed_ms IS NOT NULL AND (e.killed_ms, e.id) > (?, ?) ORDER BY e.killed_ms, e.id LIMIT ?",
        (function_uid, *(behind or (-1, -1)), limit),
    ).fetchall()
    return [
        Dead(event=_event(connection, row), enqueued_ms=row[6], killed_ms=row[7], reason=row[8], detail=row[9]) for row in rows
    ]


def redrive(connection: sqlite3.Connection, function_uid: str, *, event_id: str, now: int, limit: int) -> int:
    """Up to ``limit`` of the dead letters that the port's ``redrive`` means."""
    ids, function, size = _chosen(connection, function_uid, dead=True, event_id=event_id, limit=limit)
    connection.executemany(
        "UPDATE events SET killed_ms = NULL, reason = '', detail = '', note = x'', leases = 0, epoch = ?, enqueued_ms = ?, due_ms = ?"
        " WHERE id = ?",
        [(NOBODY, now, now, row_id) for row_id in ids],
    )
    connection.executemany("DELETE FROM large WHERE event = ? AND part = 'note'", [(row_id,) for row_id in ids])
    if ids:
        _count_out(connection, function, depth=-len(ids), size=-size, dead=-len(ids), now=now)
    return len(ids)


def purge(connection: sqlite3.Connection, function_uid: str, *, dead: bool, event_id: str, now: int, limit: int) -> int:
    """Up to ``limit`` of the events that the port's ``purge`` means."""
    ids, function, size = _chosen(connection, function_uid, dead=dead, event_id=event_id, limit=limit)
    _delete(connection, ids)
    if ids and dead:
        _count_out(connection, function, dead=-len(ids), now=now)
    elif ids:
        _count_out(connection, function, depth=len(ids), size=size, now=now)
    return len(ids)


def expire(connection: sqlite3.Connection, before_ms: int, *, now: int, limit: int) -> int:
    """Up to ``limit`` of the dead letters that the port's ``expire`` means, and the rest of what it drops."""
    rows = connection.execute(
        "SELECT e.id, e.function FROM functions f CROSS JOIN events e INDEXED BY arrival ON e.function = f.id AND e.killed_ms < ?"
        " WHERE f.dead > 0 LIMIT ?",
        (before_ms, limit),
    ).fetchall()
    _delete(connection, [row_id for row_id, _ in rows])
    connection.executemany("UPDATE functions SET dead = dead - 1 WHERE id = ?", [(function,) for _, function in rows])
    connection.execute("DELETE FROM functions WHERE depth = 0 AND dead = 0 AND touched_ms < ?", (before_ms,))
    connection.execute("DELETE FROM dedupe WHERE until_ms <= ?", (now,))
    return len(rows)


def stats(connection: sqlite3.Connection) -> list[FunctionStats]:
    """See the port."""
    return [
        FunctionStats(
            function_uid=uid,
            function_arn=arn,
            depth=depth,
            depth_bytes=size,
            oldest_ms=oldest,
            dead=dead,
            done=done,
            killed=killed,
        )
        for uid, arn, depth, size, oldest, dead, done, killed in connection.execute(
            "SELECT uid, arn, depth, bytes, (SELECT e.enqueued_ms FROM events e INDEXED BY arrival WHERE e.function = f.id"
            " AND e.killed_ms IS NULL ORDER BY e.id LIMIT 1), dead, done, killed FROM functions f ORDER BY uid"
        )
    ]


def _chosen(
    connection: sqlite3.Connection, function_uid: str, *, dead: bool, event_id: str, limit: int
) -> tuple[list[int], int, int]:
    """Rows of a function, its own row, and what the rows count in bytes."""
    state = "e.killed_ms IS NOT NULL" if dead else "e.killed_ms IS NULL"
    which, arguments = ("e.event_id = ?", (event_id, limit)) if event_id else ("TRUE", (limit,))
    rows = connection.execute(
        "SELECT e.id, e.function, e.size FROM functions f JOIN events e ON e.function = f.id"  # noqa: S608 - constants from above
        f" WHERE f.uid = ? AND {state} AND {which} LIMIT ?",
        (function_uid, *arguments),
    ).fetchall()
    return [row[0] for row in rows], rows[0][1] if rows else 0, sum(row[2] for row in rows)


def _delete(connection: sqlite3.Connection, ids: Iterable[int]) -> None:
    gone = [(row_id,) for row_id in ids]
    connection.executemany("DELETE FROM large WHERE event = ?", gone)
    connection.executemany("DELETE FROM events WHERE id = ?", gone)


def _count_out(
    connection: sqlite3.Connection,
    function: int,
    *,
    now: int,
    depth: int = 0,
    size: int = 0,
    dead: int = 0,
    done: int = 0,
    killed: int = 0,
) -> None:
    """Take waiting events out of the books (in, where negative), and count how they ended."""
    connection.execute(
        "UPDATE functions SET depth = depth - ?, bytes = bytes - ?, dead = dead + ?, done = done + ?, killed = killed + ?,"
        " touched_ms = ? WHERE id = ?",
        (depth, size, dead + killed, done, killed, now, function),
    )
    if size:
        connection.execute("UPDATE queue SET bytes = bytes - ?", (size,))


def _event(connection: sqlite3.Connection, row: tuple[int, str, str, str, str, bytes | None, int]) -> Event:
    row_id, event_id, uid, arn, trace_id, payload = row[:6]
    return Event(
        event_id=event_id,
        function_uid=uid,
        function_arn=arn,
        trace_id=trace_id,
        payload=_part(connection, row_id, "payload", payload),
    )


def _part(connection: sqlite3.Connection, row_id: int, part: Part, stored: bytes | None) -> bytes:
    if stored is not None:
        return stored
    (data,) = connection.execute("SELECT data FROM large WHERE event = ? AND part = ?", (row_id, part)).fetchone()
    return bytes(data)


def _put_note(connection: sqlite3.Connection, row_id: int, note: bytes | None) -> None:
    if note is None:
        return
    if len(note) > HOT_BYTES:
        _put_large(connection, row_id, "note", note)
    connection.execute("UPDATE events SET note = ? WHERE id = ?", (None if len(note) > HOT_BYTES else note, row_id))


def _put_large(connection: sqlite3.Connection, row_id: int, part: Part, data: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO large VALUES (?, ?, ?)", (row_id, part, data))
