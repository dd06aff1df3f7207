"""A SQLite file that cannot be used: one line that says what to do, nothing half-written, and work goes on once it can."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores import database, rows
from kappa_gateway.stores.sqlite import SqliteResourceStore
from store_samples import function


async def reopen(path: Path) -> None:
    store = await SqliteResourceStore.open(path)
    await store.close()


def refusal(path: Path) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        asyncio.run(reopen(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_no_database_is_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database" * 100)
    assert refusal(path) == f"{path} is damaged (file is not a database): restore it, or move it away to begin anew"
    assert path.read_bytes() == b"not a database" * 100


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    asyncio.run(reopen(path))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")
    assert refusal(path) == (
        f"{path} was written by a newer Kappa (schema 7, this one knows 1): upgrade Kappa or use another data directory"
    )


def test_an_older_schema_is_brought_forward_once(tmp_path: Path) -> None:
    async def scenario() -> list[tuple[str, int]]:
        path = tmp_path / "x.db"
        old = database.Layout(synchronous="FULL", migrations=(("CREATE TABLE t (a TEXT)", "INSERT INTO t VALUES ('kept')"),))
        new = database.Layout(synchronous="FULL", migrations=(*old.migrations, ("ALTER TABLE t ADD COLUMN b INT DEFAULT 7",)))
        found: list[tuple[str, int]] = []
        for layout in (old, new, new):
            opened = await database.open_database(path, layout=layout)
            found = await opened.read(lambda connection: connection.execute("SELECT * FROM t").fetchall())
            await opened.close()
        return found

    assert asyncio.run(scenario()) == [("kept", 7)]


def test_a_failed_migration_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    asyncio.run(reopen(path))
    broken = database.Layout(
        synchronous="FULL", migrations=(*rows.LAYOUT.migrations, ("CREATE TABLE half (a)", "INSERT INTO nowhere VALUES (1)"))
    )
    with pytest.raises(StoreUnavailable, match="no such table: nowhere"):
        asyncio.run(database.open_database(path, layout=broken))
    asyncio.run(reopen(path))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'half'").fetchall() == []


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    assert "is a database of another program" in refusal(path)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    assert "cannot be opened" in refusal(tmp_path / "state.db")


def test_a_damaged_page_is_reported_when_it_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "state.db"
        store = await SqliteResourceStore.open(path)
        for number in range(50):
            await store.create(function(f"f{number}"))
        await store.close()
        content = bytearray(path.read_bytes())
        content[4096:] = os.urandom(len(content) - 4096)
        path.write_bytes(content)
        store = await SqliteResourceStore.open(path)
        try:
            with pytest.raises(StoreUnavailable, match="is damaged"):
                await store.list("Function")
            with pytest.raises(StoreUnavailable, match="is damaged"):
                await store.create(function("another"))
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_write_waits_for_another_process_and_then_says_who_is_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)

    async def scenario() -> None:
        path = tmp_path / "state.db"
        store = await SqliteResourceStore.open(path)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="was locked by another process"):
                await store.create(function())
            assert await store.list("Function") == []
            other.execute("ROLLBACK")
        await store.create(function())
        await store.close()

    asyncio.run(scenario())


def test_one_bad_write_of_a_batch_fails_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteResourceStore.open(tmp_path / "state.db")
        unencodable = function("bad", description="\ud800")
        answers = await asyncio.gather(
            *(store.create(each) for each in (function("a"), unencodable, function("b"))), return_exceptions=True
        )
        assert isinstance(answers[1], UnicodeEncodeError)
        assert [resource.key.name for resource in await store.list("Function")] == ["a", "b"]
        assert answers[2] == await store.get(function("b").key)
        await store.close()

    asyncio.run(scenario())


def run_script(script: str, *arguments: object) -> str:
    """Run ``script`` in a process of its own, for what would change the test process for good."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path(sys.modules["store_samples"].__file__ or "").parent)}
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environment).stdout


def test_a_full_disk_refuses_the_write_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    said = run_script(
        """
        import asyncio, resource, sys
        from pathlib import Path
        from kappa_core.ports.store import StoreUnavailable
        from kappa_gateway.stores.sqlite import SqliteResourceStore
        from store_samples import function

        async def main():
            store = await SqliteResourceStore.open(Path(sys.argv[1]))
            acknowledged = []
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
            try:
                for number in range(10_000):
                    await store.create(function(f"f{number}", description="x" * 5_000))
                    acknowledged.append(f"f{number}")
            except StoreUnavailable as error:
                print(str(error).count("\\n"))
            there = {found.name for found in await store.list("Function")}
            print(there == set(acknowledged), len(there) > 3)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await store.create(function("later"))
            print((await store.get(function("later").key)).name)
            await store.close()

        asyncio.run(main())
        """,
        tmp_path / "state.db",
    )
    assert said.split() == ["0", "True", "True", "later"]


READ_ONLY = """
import asyncio, os, sys
from pathlib import Path
from kappa_core.ports.store import StoreUnavailable
from kappa_gateway.stores.sqlite import SqliteResourceStore
from store_samples import function

if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)

async def main():
    store = await SqliteResourceStore.open(Path(sys.argv[1]))
    try:
        await store.create(function())
    finally:
        await store.close()

try:
    asyncio.run(main())
except StoreUnavailable as error:
    print(error)
"""


def test_a_read_only_file_refuses_with_one_line() -> None:
    # Not tmp_path, which another user (root has to become one, to be refused anything) may not enter.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.db")
        asyncio.run(reopen(path))
        path.chmod(0o444)
        path.parent.chmod(0o555)
        said = run_script(READ_ONLY, path)
        path.parent.chmod(0o755)
    assert said == f"{path} cannot be written: it, its folder or its file system is read-only for this user\n"
