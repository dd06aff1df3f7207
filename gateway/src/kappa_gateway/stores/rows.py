"""The tables of the ResourceStore and the statements on them, each a function of a connection that is in a transaction.

Each resource is a row with its JSON (``resources``). Each write takes the next number of one ``sequence``, which is its
``resource_version``, and appends the new state to ``changes``, of which the newest are kept. No I/O policy here: who runs these,
on which thread and in which transaction, is decided in :mod:`kappa_gateway.stores.sqlite`.
"""

from __future__ import annotations

import sqlite3
from typing import Literal

import msgspec

from kappa_core.ports.store import AlreadyExists, Conflict, NotFound
from kappa_core.resources import RESOURCE_TYPES, AccountId, Key, Kind, Region, Resource
from kappa_gateway.stores.database import DatabaseDamaged, Layout

LAYOUT = Layout(
    synchronous="FULL",
    migrations=(
        (
            # sub_order makes digits sort by number: '0', their count, the digits; '1' for everything else.
            """CREATE TABLE resources (
                kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
                sub_order TEXT NOT NULL, sub TEXT NOT NULL, data BLOB NOT NULL,
                PRIMARY KEY (kind, account, region, name, sub_order, sub))""",
            """CREATE TABLE changes (
                sequence INTEGER PRIMARY KEY, type TEXT NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL)""",
            # pruned: the highest number that is no longer in the change log.
            "CREATE TABLE sequence (head INTEGER NOT NULL, pruned INTEGER NOT NULL)",
            "INSERT INTO sequence VALUES (0, 0)",
            "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        ),
    ),
)

_SELECT = (
    "SELECT kind, data FROM resources WHERE kind = ? AND account = ? AND region = ? AND name = ? AND sub_order = ? AND sub = ?"
)
_DELETE = "DELETE FROM resources WHERE kind = ? AND account = ? AND region = ? AND name = ? AND sub_order = ? AND sub = ?"
_PRUNE_EVERY = 256
_DECODERS = {kind: msgspec.json.Decoder(type_) for kind, type_ in RESOURCE_TYPES.items()}
_encode = msgspec.json.Encoder().encode


def stored(connection: sqlite3.Connection, key: Key, /) -> Resource | None:
    """The resource under ``key``."""
    row = connection.execute(_SELECT, _columns(key)).fetchone()
    return None if row is None else decode(*row)


def absent(connection: sqlite3.Connection, key: Key, /) -> None:
    """Raise AlreadyExists if ``key`` is taken."""
    if connection.execute(_SELECT, _columns(key)).fetchone() is not None:
        raise AlreadyExists(f"{_name(key)} exists")


def current(connection: sqlite3.Connection, key: Key, /, *, resource_version: str | None) -> Resource:
    """The resource under ``key``, which is at ``resource_version`` if one is named. Raises NotFound, Conflict."""
    found = stored(connection, key)
    if found is None:
        raise NotFound(f"{_name(key)} does not exist")
    if resource_version is not None and found.meta.resource_version != resource_version:
        raise Conflict(f"{_name(key)} changed: it is at {found.meta.resource_version}, not at {resource_version}")
    return found


def next_sequence(connection: sqlite3.Connection, /) -> int:
    """The number of the change being made."""
    return int(connection.execute("UPDATE sequence SET head = head + 1 RETURNING head").fetchall()[0][0])


def put(connection: sqlite3.Connection, resource: Resource, /, *, changes_kept: int) -> None:
    """Store ``resource`` as change number ``resource_version``."""
    data = _encode(resource)
    connection.execute("INSERT OR REPLACE INTO resources VALUES (?, ?, ?, ?, ?, ?, ?)", (*_columns(resource.key), data))
    _record(connection, "PUT", resource.key.kind, data, sequence=int(resource.meta.resource_version), kept=changes_kept)


def remove(connection: sqlite3.Connection, resource: Resource, /, *, sequence: int, changes_kept: int) -> None:
    """Remove ``resource``, which is the stored state, as change number ``sequence``."""
    connection.execute(_DELETE, _columns(resource.key))
    _record(connection, "DELETE", resource.key.kind, _encode(resource), sequence=sequence, kept=changes_kept)


def allocate(connection: sqlite3.Connection, counter: str, /) -> int:
    """Raise ``counter`` by one and return it."""
    rows = connection.execute(
        "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value", (counter,)
    ).fetchall()
    return int(rows[0][0])


def select(
    connection: sqlite3.Connection,
    kind: Kind,
    /,
    *,
    account: AccountId | None,
    region: Region | None,
    name: str | None,
    after: Key | None,
    limit: int | None,
) -> list[Resource]:
    """What :meth:`kappa_core.ports.store.ResourceStore.list` returns."""
    conditions, values = ["kind = ?"], [str(kind)]
    for column, value in (("account", account), ("region", region), ("name", name)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if after is not None:
        conditions.append("(account, region, name, sub_order, sub) > (?, ?, ?, ?, ?)")
        values.extend(_columns(after)[1:])
    query = (
        f"SELECT kind, data FROM resources WHERE {' AND '.join(conditions)} "  # noqa: S608 - the conditions are the ones above
        f"ORDER BY account, region, name, sub_order, sub LIMIT {-1 if limit is None else int(limit)}"
    )
    return [decode(*row) for row in connection.execute(query, values)]


def snapshot(connection: sqlite3.Connection, /) -> list[Resource]:
    """Everything, in key order."""
    rows = connection.execute("SELECT kind, data FROM resources ORDER BY kind, account, region, name, sub_order, sub")
    return [decode(*row) for row in rows]


def head(connection: sqlite3.Connection, /) -> int:
    """The number of the last change."""
    return int(connection.execute("SELECT head FROM sequence").fetchone()[0])


def pruned(connection: sqlite3.Connection, /) -> int:
    """The number of the last change that is no longer in the log."""
    return int(connection.execute("SELECT pruned FROM sequence").fetchone()[0])


def changes(connection: sqlite3.Connection, /, *, after: int, limit: int) -> list[tuple[int, Literal["PUT", "DELETE"], Resource]]:
    """Entries of the change log behind number ``after``, oldest first."""
    rows = connection.execute(
        "SELECT sequence, type, kind, data FROM changes WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit)
    )
    return [(sequence, type_, decode(kind, data)) for sequence, type_, kind, data in rows]


def decode(kind: Kind, data: bytes) -> Resource:
    """The resource in a row. Raises DatabaseDamaged."""
    try:
        return _DECODERS[kind].decode(data)
    except (KeyError, msgspec.DecodeError) as error:
        raise DatabaseDamaged(f"a stored {kind} cannot be read by this version of Kappa: {error}") from error


def _record(
    connection: sqlite3.Connection, type_: Literal["PUT", "DELETE"], kind: Kind, data: bytes, *, sequence: int, kept: int
) -> None:
    connection.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", (sequence, type_, kind, data))
    if sequence % min(_PRUNE_EVERY, kept) == 0 and sequence > kept:
        connection.execute("DELETE FROM changes WHERE sequence <= ?", (sequence - kept,))
        connection.execute("UPDATE sequence SET pruned = max(pruned, ?)", (sequence - kept,))


def _columns(key: Key) -> tuple[str, str, str, str, str, str]:
    order = "1"
    if key.sub.isascii() and key.sub.isdigit():
        digits = key.sub.lstrip("0")
        order = f"0{len(digits):04d}{digits}"
    return key.kind, key.account, key.region, key.name, order, key.sub


def _name(key: Key) -> str:
    return f"{key.kind} {key.name}{':' + key.sub if key.sub else ''} of {key.account} in {key.region}"
