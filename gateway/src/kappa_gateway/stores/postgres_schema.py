"""The schema that PostgreSQL's stores share: numbered SQL files, each applied once, by whichever gateway comes first.

Migrations run in one transaction under an advisory lock, so that two gateways starting at once make one schema. They expand first and
contract a release later: every file names in its first line the oldest code that can work with what it makes, as the number of the newest
migration which that code knows. A gateway that finds a newer schema than its own works on with it while it is not too old for it, as during
a rolling upgrade and after its rollback; otherwise it refuses. No migration is ever undone.
"""

from __future__ import annotations

import functools
import re
from importlib import resources
from typing import Any, Final, NamedTuple

from kappa_core.ports.store import StoreUnavailable

LOCK: Final = 0x4B61707061
"""``Kappa``: the advisory lock that whoever migrates holds."""
SECONDS: Final = 600.0
"""For one migration at most."""
_LOCK_WAIT: Final = "10s"
"""How long a migration waits for a table that is in use. What it would hold up meanwhile waits too, so it rather tries again later."""
_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_OLDEST: Final = re.compile(r"-- oldest code: (\d+)\n")


class Migration(NamedTuple):
    number: int
    name: str
    oldest_code: int
    """Number of the newest migration that code must know to work with a schema that has this one."""
    statements: str


@functools.cache
def migrations() -> tuple[Migration, ...]:
    """All of this version, in order."""
    found = []
    for file in resources.files("kappa_gateway.stores").joinpath("postgres_migrations").iterdir():
        name = _NAME.fullmatch(file.name)
        if name is not None:
            statements = file.read_text()
            oldest = _OLDEST.match(statements)
            assert oldest is not None, f"{file.name} does not name the oldest code"
            found.append(Migration(int(name[1]), name[2], int(oldest[1]), statements))
    found.sort()
    assert [one.number for one in found] == list(range(1, len(found) + 1)), "migrations are numbered from 1 on"
    return tuple(found)


async def migrate(connection: Any, known: tuple[Migration, ...]) -> list[Migration]:
    """Bring the schema to the newest of ``known``; returns what was applied. Raises StoreUnavailable where the schema is too new."""
    if not _missing(await _applied(connection), known):
        return []
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK, timeout=SECONDS)
        await connection.execute("CREATE SCHEMA IF NOT EXISTS kappa")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS kappa.migrations (number integer PRIMARY KEY, name text NOT NULL,"
            " oldest_code integer NOT NULL, applied timestamptz NOT NULL DEFAULT now())"
        )
        # Again under the lock: another gateway may have been first.
        missing = _missing(await _applied(connection), known)
        for migration in missing:
            await connection.execute(migration.statements, timeout=SECONDS)
            await connection.execute(
                "INSERT INTO kappa.migrations (number, name, oldest_code) VALUES ($1, $2, $3)", *migration[:3]
            )
    return missing


async def _applied(connection: Any) -> list[tuple[int, int]]:
    """Number and oldest code of each migration that the database has."""
    if await connection.fetchval("SELECT to_regclass('kappa.migrations')") is None:
        return []
    return [
        (row["number"], row["oldest_code"]) for row in await connection.fetch("SELECT number, oldest_code FROM kappa.migrations")
    ]


def _missing(applied: list[tuple[int, int]], known: tuple[Migration, ...]) -> list[Migration]:
    newest = len(known)
    needed = max((oldest for _, oldest in applied), default=0)
    if needed > newest:
        raise StoreUnavailable(
            f"the PostgreSQL schema is of a newer Kappa (it needs code of migration {needed}, this one knows {newest}): upgrade Kappa"
        )
    there = {number for number, _ in applied}
    return [migration for migration in known if migration.number not in there]
