"""A watch on the SQLite ResourceStore: a cursor into its change log and the memory of what was told.

The log is bounded. A watcher whose cursor has fallen out of it is told the difference between what it was told and what there is:
superseded states are left out, deletions and re-creations are not. Runs on a reader thread, one call at a time; when to read again
is decided in :mod:`kappa_gateway.stores.sqlite`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from kappa_core.ports.store import Change
from kappa_core.resources import Key, Resource
from kappa_gateway.stores import rows

_CHANGES_PER_READ = 256


class Watcher:
    """State of one watch from change number ``cursor`` on."""

    def __init__(self, *, cursor: int, replay: bool) -> None:
        self._cursor = cursor
        self._replay = replay
        self._told: dict[Key, Resource] | None = None

    def read(self, connection: sqlite3.Connection, /) -> list[Change]:
        """What is new; empty when nothing is. ``connection`` must be in one transaction."""
        if self._told is None:
            self._told = {resource.key: resource for resource in rows.snapshot(connection)}
            if self._replay:
                self._cursor = rows.head(connection)
                return [Change("PUT", key, resource) for key, resource in self._told.items()]
        if self._cursor < rows.pruned(connection):
            found = difference(self._told, rows.snapshot(connection), since=self._cursor)
            self._cursor = rows.head(connection)
        else:
            found = []
            for sequence, type_, resource in rows.changes(connection, after=self._cursor, limit=_CHANGES_PER_READ):
                self._cursor = sequence
                found.append(Change(type_, resource.key, resource))
        for change in found:
            if change.type == "PUT":
                self._told[change.key] = change.resource
            else:
                self._told.pop(change.key, None)
        return found


def difference(told: Mapping[Key, Resource], present: Iterable[Resource], *, since: int) -> list[Change]:
    """What a watcher that was told ``told``, up to change ``since``, must be told so that it knows ``present``."""
    there = {resource.key: resource for resource in present}
    gone = [
        Change("DELETE", key, resource)
        for key, resource in told.items()
        if key not in there or there[key].meta.uid != resource.meta.uid
    ]
    newer = [Change("PUT", key, resource) for key, resource in there.items() if int(resource.meta.resource_version) > since]
    return gone + newer
