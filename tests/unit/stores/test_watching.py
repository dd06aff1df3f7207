"""A watcher that fell out of the change log is told the difference, and nothing it must know is missing from it."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator

import msgspec
import pytest

from kappa_core.ports.store import Change
from kappa_core.resources import Function, Key, Meta, Resource
from kappa_gateway.stores import rows
from kappa_gateway.stores.watching import Watcher, difference
from store_samples import function

KEPT = 4


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in rows.LAYOUT.migrations[0]:
        connection.execute(statement)
    yield connection
    connection.close()


def stamped(name: str, uid: str, sequence: int) -> Function:
    return msgspec.structs.replace(function(name), meta=Meta(uid=uid, resource_version=str(sequence), generation=1))


def put(connection: sqlite3.Connection, name: str, uid: str) -> Function:
    resource = stamped(name, uid, rows.next_sequence(connection))
    rows.put(connection, resource, changes_kept=KEPT)
    return resource


def remove(connection: sqlite3.Connection, resource: Resource) -> None:
    rows.remove(connection, resource, sequence=rows.next_sequence(connection), changes_kept=KEPT)


def apply(known: dict[Key, Resource], changes: list[Change]) -> None:
    for change in changes:
        if change.type == "PUT":
            known[change.key] = change.resource
        else:
            assert change.key in known, "a DELETE of what was never told"
            del known[change.key]


def test_the_change_log_is_bounded(connection: sqlite3.Connection) -> None:
    for _ in range(100):
        put(connection, "f", "uid")
    assert connection.execute("SELECT count(*) FROM changes").fetchone()[0] <= 2 * KEPT
    assert rows.pruned(connection) >= 100 - 2 * KEPT


def test_a_watcher_behind_the_log_is_told_the_newest_state_once(connection: sqlite3.Connection) -> None:
    put(connection, "f", "uid")
    watcher = Watcher(cursor=0, replay=True)
    watcher.read(connection)
    newest = [put(connection, "f", "uid") for _ in range(50)][-1]
    assert watcher.read(connection) == [Change("PUT", newest.key, newest)]
    assert watcher.read(connection) == []


def test_a_watcher_behind_the_log_is_told_of_a_deletion(connection: sqlite3.Connection) -> None:
    gone = put(connection, "gone", "uid")
    watcher = Watcher(cursor=0, replay=True)
    watcher.read(connection)
    remove(connection, gone)
    newest = [put(connection, "f", "uid-f") for _ in range(50)][-1]
    assert watcher.read(connection) == [Change("DELETE", gone.key, gone), Change("PUT", newest.key, newest)]


def test_a_resource_replaced_by_one_of_its_name_is_told_as_deleted_and_put() -> None:
    old, new = stamped("f", "old", 1), stamped("f", "new", 9)
    assert difference({old.key: old}, [new], since=5) == [Change("DELETE", old.key, old), Change("PUT", new.key, new)]


def test_what_was_told_already_is_not_told_again() -> None:
    same = stamped("f", "uid", 3)
    assert difference({same.key: same}, [same], since=5) == []


def test_without_replay_the_log_is_followed_from_the_cursor(connection: sqlite3.Connection) -> None:
    put(connection, "before", "a")
    watcher = Watcher(cursor=rows.head(connection), replay=False)
    after = put(connection, "after", "b")
    assert watcher.read(connection) == [Change("PUT", after.key, after)]


@pytest.mark.parametrize("seed", range(40))
def test_however_late_a_watcher_reads_it_ends_up_knowing_what_is_there(connection: sqlite3.Connection, seed: int) -> None:
    dice = random.Random(seed)
    watcher, known, present = Watcher(cursor=0, replay=True), dict[Key, Resource](), dict[str, Function]()
    for step in range(300):
        name = dice.choice("abcde")
        if name in present and dice.random() < 0.4:
            remove(connection, present.pop(name))
        else:
            uid = present[name].meta.uid if name in present else f"{name}-{step}"
            present[name] = put(connection, name, uid)
        if dice.random() < 0.1:
            apply(known, watcher.read(connection))
    while changes := watcher.read(connection):
        apply(known, changes)
    assert known == {resource.key: resource for resource in present.values()}
