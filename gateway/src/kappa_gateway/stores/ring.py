"""The tables of the LogStore's ring and the statements on them, each a function of a connection that is in a transaction.

Events of one group are packed into *batches* of about 64 KB, one row each. A batch's number and an event's place in it make the
event's id. Every store of new batches evicts the oldest ones over the bounds: of the group, of the whole, and by age.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from kappa_core.ports.logs import LogEvent, LogGroup, event_id
from kappa_core.resources import AccountId, Region
from kappa_gateway.stores.database import Layout

TOTAL_BYTES = 256 * 1024 * 1024
GROUP_BYTES = 64 * 1024 * 1024
AGE_SECONDS = 14 * 24 * 3600
EVENT_OVERHEAD = 100
"""Counted for each event beside its message: stream name and request id."""
_BATCH_BYTES = 64 * 1024

LAYOUT = Layout(
    synchronous="NORMAL",
    migrations=(
        (
            """CREATE TABLE log_groups (
                id INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
                bytes INTEGER NOT NULL DEFAULT 0, UNIQUE (account, region, name))""",
            """CREATE TABLE batches (
                id INTEGER PRIMARY KEY AUTOINCREMENT, group_id INTEGER NOT NULL, first_ms INTEGER NOT NULL,
                last_ms INTEGER NOT NULL, ingestion_ms INTEGER NOT NULL, bytes INTEGER NOT NULL, events BLOB NOT NULL)""",
            "CREATE INDEX batches_by_group ON batches (group_id, id)",
        ),
    ),
)

_Row = tuple[int, str, str, str]
"""Timestamp, message, stream, request id."""
_OLDEST_FIRST = """
    SELECT batches.id, ingestion_ms, events FROM log_groups JOIN batches ON group_id = log_groups.id
    WHERE account = ? AND region = ? AND name = ? AND batches.id >= ?
    AND (? IS NULL OR last_ms >= ?) AND (? IS NULL OR first_ms < ?) ORDER BY batches.id"""
_NEWEST_FIRST = f"{_OLDEST_FIRST} DESC"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Row]).decode


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept: bytes of batches on disk, and seconds since they were written."""

    total_bytes: int = TOTAL_BYTES
    group_bytes: int = GROUP_BYTES
    age_seconds: float = AGE_SECONDS


def store(
    connection: sqlite3.Connection, buffer: Mapping[LogGroup, Sequence[LogEvent]], /, *, now_ms: int, bounds: Bounds
) -> None:
    """Add the events and evict what is over the bounds."""
    for group, arrived in buffer.items():
        identity = (group.account, group.region, group.name)
        connection.execute("INSERT OR IGNORE INTO log_groups (account, region, name) VALUES (?, ?, ?)", identity)
        group_id, size = connection.execute(
            "SELECT id, bytes FROM log_groups WHERE account = ? AND region = ? AND name = ?", identity
        ).fetchone()
        for batch in _batches(arrived):
            data = _packed(batch)
            size += len(data)
            times = [event.timestamp_ms for event in batch]
            connection.execute(
                "INSERT INTO batches (group_id, first_ms, last_ms, ingestion_ms, bytes, events) VALUES (?, ?, ?, ?, ?, ?)",
                (group_id, min(times), max(times), now_ms, len(data), data),
            )
        if size > bounds.group_bytes:
            size -= _evict_group(connection, group_id, excess=size - bounds.group_bytes)
        connection.execute("UPDATE log_groups SET bytes = ? WHERE id = ?", (size, group_id))
    total = int(connection.execute("SELECT sum(bytes) FROM log_groups").fetchone()[0])
    _evict_oldest(connection, excess=total - bounds.total_bytes, before_ms=now_ms - int(bounds.age_seconds * 1000))


def _batches(events: Sequence[LogEvent]) -> Iterator[Sequence[LogEvent]]:
    first, size = 0, 0
    for index, event in enumerate(events):
        size += len(event.message) + EVENT_OVERHEAD
        if size > _BATCH_BYTES and index > first:
            yield events[first:index]
            first, size = index, len(event.message) + EVENT_OVERHEAD
    yield events[first:]


def _packed(events: Iterable[LogEvent]) -> bytes:
    try:
        return _encode([(event.timestamp_ms, event.message, event.stream, event.request_id) for event in events])
    except UnicodeEncodeError:  # half a surrogate pair, which JSON log lines can smuggle in
        return _encode(
            [
                (event.timestamp_ms, event.message.encode(errors="replace").decode(), event.stream, event.request_id)
                for event in events
            ]
        )


def _evict_group(connection: sqlite3.Connection, group_id: int, *, excess: int) -> int:
    """Delete the group's oldest batches of at least ``excess`` bytes, and return how many went."""
    freed, last = 0, 0
    for id_, size in connection.execute("SELECT id, bytes FROM batches WHERE group_id = ? ORDER BY id", (group_id,)):
        freed, last = freed + size, id_
        if freed >= excess:
            break
    connection.execute("DELETE FROM batches WHERE group_id = ? AND id <= ?", (group_id, last))
    return freed


def _evict_oldest(connection: sqlite3.Connection, *, excess: int, before_ms: int) -> None:
    """Delete the oldest batches of all groups: at least ``excess`` bytes, and all that were written before ``before_ms``."""
    freed: dict[int, int] = {}
    last = total = 0
    for id_, group_id, size, ingestion_ms in connection.execute(
        "SELECT id, group_id, bytes, ingestion_ms FROM batches ORDER BY id"
    ):
        if total >= excess and ingestion_ms >= before_ms:
            break
        freed[group_id] = freed.get(group_id, 0) + size
        last, total = id_, total + size
    if freed:
        connection.execute("DELETE FROM batches WHERE id <= ?", (last,))
        connection.executemany(
            "UPDATE log_groups SET bytes = bytes - ? WHERE id = ?", [(size, group_id) for group_id, size in freed.items()]
        )


def events(
    connection: sqlite3.Connection,
    group: LogGroup,
    *,
    start_ms: int | None,
    end_ms: int | None,
    after_event_id: str | None,
    newest_first: bool,
) -> Iterator[LogEvent]:
    """Events of the batches that may hold what is asked for, a superset of it."""
    first_batch = 0 if after_event_id is None else int(after_event_id[:40])
    found = connection.execute(
        _NEWEST_FIRST if newest_first else _OLDEST_FIRST,
        (group.account, group.region, group.name, first_batch, start_ms, start_ms, end_ms, end_ms),
    )
    for batch, ingestion_ms, data in found:
        rows = list(enumerate(_decode(data)))
        for index, (timestamp_ms, message, stream, request_id) in reversed(rows) if newest_first else rows:
            yield LogEvent(
                timestamp_ms=timestamp_ms,
                message=message,
                stream=stream,
                request_id=request_id,
                event_id=event_id(batch, index),
                ingestion_ms=ingestion_ms,
            )


def newest_event_id(connection: sqlite3.Connection) -> str:
    """An id that no stored event is behind, and every later one is."""
    newest = connection.execute("SELECT coalesce(max(id), 0) FROM batches").fetchone()[0]
    return event_id(int(newest), 10**16 - 1)


def groups(connection: sqlite3.Connection, account: AccountId, region: Region, /, *, prefix: str) -> list[LogGroup]:
    """Groups whose name begins with ``prefix``, by name."""
    names = connection.execute(
        "SELECT name FROM log_groups WHERE account = ? AND region = ? AND substr(name, 1, ?) = ? ORDER BY name",
        (account, region, len(prefix), prefix),
    )
    return [LogGroup(account, region, name) for (name,) in names]


def delete_group(connection: sqlite3.Connection, group: LogGroup, /) -> None:
    """Delete the group and its events, if it is there."""
    for (group_id,) in connection.execute(
        "DELETE FROM log_groups WHERE account = ? AND region = ? AND name = ? RETURNING id",
        (group.account, group.region, group.name),
    ).fetchall():
        connection.execute("DELETE FROM batches WHERE group_id = ?", (group_id,))
