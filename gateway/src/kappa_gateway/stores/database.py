"""One SQLite file as asyncio code wants it: every write on one thread with group commit, every read on another, no lock on the loop.

Writers hand over a function. The writer thread takes all that wait, runs them in one transaction (each in a savepoint, so each has
an outcome of its own) and answers after the commit, so one fsync carries many writes. Readers have connections of their own and
see, in WAL mode, the last commit of any process. What SQLite cannot do (disk full, read-only, damaged, locked by another process
for too long) becomes one :class:`~kappa_core.ports.store.StoreUnavailable` with a line for people; nothing of it was written.

It knows neither resources nor logs, and it refuses files of a newer schema or of another application.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from kappa_core.ports.store import StoreUnavailable

T = TypeVar("T")

APPLICATION_ID = 0x4B617070
"""``Kapp``, in the header of each of our files (sqlite.org/fileformat2.html#application_id)."""
BUSY_SECONDS = 5.0
"""How long a write waits for another process's transaction."""
JOBS_PER_COMMIT = 512
READERS = 2


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds. Schema version n is made of version n-1 by the statements of ``migrations[n-1]``."""

    migrations: tuple[tuple[str, ...], ...]
    synchronous: Literal["FULL", "NORMAL"]
    """FULL: a commit survives power loss. NORMAL: it survives the process, and the file stays whole."""


class DatabaseDamaged(StoreUnavailable):
    """The file is not a database, or not a whole one."""


class _Job(NamedTuple):
    work: Callable[[sqlite3.Connection], Any]
    answer: asyncio.Future[Any]


class Database:
    """One file, open. Made by :func:`open_database`; belongs to the event loop that opened it."""

    def __init__(self, path: Path, writer: sqlite3.Connection, *, layout: Layout, on_commit: Callable[[], None]) -> None:
        self.path = path
        self._layout = layout
        self._on_commit = on_commit
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._writer = writer
        self._thread = threading.Thread(target=self._write_forever, name=f"kappa-write-{path.name}", daemon=True)
        self._thread.start()
        self._local = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix=f"kappa-read-{path.name}")

    async def write(self, work: Callable[[sqlite3.Connection], T], /) -> T:
        """Run ``work`` in a transaction; returns its result once that is durable. What it raises undoes only its own part."""
        self._check_open()
        answer: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, answer))
        return await answer

    async def read(self, work: Callable[[sqlite3.Connection], T], /) -> T:
        """Run ``work`` on one consistent state, the last commit of any process."""
        self._check_open()
        return await self._loop.run_in_executor(self._readers, self._read, work)

    def connect_reader(self) -> sqlite3.Connection:
        """A connection that cannot write; the caller closes it."""
        try:
            connection = _connect(self.path, layout=self._layout)
            connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise explain(self.path, error) from error
        return connection

    async def close(self) -> None:
        """Finish the writes that wait, then close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        self._thread.join()
        self._readers.shutdown()
        for connection in self._reader_connections:
            connection.close()
        self._writer.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.path} is closed")

    # -- reader threads --------------------------------------------------------------------------------------------
    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self.connect_reader()
            self._reader_connections.append(connection)
        try:
            connection.execute("BEGIN")
            return work(connection)
        except sqlite3.Error as error:
            raise explain(self.path, error) from error
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    # -- writer thread ---------------------------------------------------------------------------------------------
    def _write_forever(self) -> None:
        closing = False
        while not closing:
            taken = [self._jobs.get()]
            while len(taken) < JOBS_PER_COMMIT:
                try:
                    taken.append(self._jobs.get_nowait())
                except queue.Empty:
                    break
            jobs = [job for job in taken if job is not None]
            closing = len(jobs) < len(taken)
            if jobs:
                answers = self._commit(jobs)
                try:
                    self._loop.call_soon_threadsafe(self._settle, answers)
                except RuntimeError:
                    return  # the loop is closed: nobody is left to answer

    def _commit(self, jobs: Sequence[_Job]) -> list[tuple[asyncio.Future[Any], Any, BaseException | None]]:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            answers = [(job.answer, *self._run(job)) for job in jobs]
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            return [(job.answer, None, explain(self.path, error)) for job in jobs]
        return answers

    def _run(self, job: _Job) -> tuple[Any, BaseException | None]:
        self._writer.execute("SAVEPOINT job")
        try:
            result = job.work(self._writer)
        except Exception as error:
            # Whatever one job raises is its caller's, not the other jobs' of the batch.
            if isinstance(error, sqlite3.Error):
                if not self._writer.in_transaction:
                    raise  # SQLite has given up the whole transaction, as it does when the disk is full
                error = explain(self.path, error)
            self._writer.execute("ROLLBACK TO job")
            self._writer.execute("RELEASE job")
            return None, error
        self._writer.execute("RELEASE job")
        return result, None

    def _settle(self, answers: Sequence[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
        for answer, result, error in answers:
            if answer.done():
                continue  # its caller was cancelled
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)
        self._on_commit()


async def open_database(path: Path, *, layout: Layout, on_commit: Callable[[], None] = lambda: None) -> Database:
    """Open or create ``path`` and bring it to the newest schema. ``on_commit`` runs on the loop after own commits.

    Raises StoreUnavailable with one line that says what to do.
    """
    writer = await asyncio.to_thread(_prepare, path, layout)
    return Database(path, writer, layout=layout, on_commit=on_commit)


def _prepare(path: Path, layout: Layout) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"{path.parent} cannot be made: {error.strerror}") from error
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        connection: sqlite3.Connection | None = None
        try:
            connection = _connect(path, layout=layout)
            _migrate(connection, path, layout=layout)
            _sync_folder(path.parent)
            return connection
        except (sqlite3.Error, StoreUnavailable) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, StoreUnavailable):
                raise
            # Two processes that make the file at once: the change to WAL does not wait for its lock by itself.
            if not _is_locked(error) or time.monotonic() > deadline:
                raise explain(path, error) from error
            time.sleep(0.01)


def _connect(path: Path, *, layout: Layout) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise StoreUnavailable(f"{path} is on a file system without shared memory for SQLite's WAL: use a local disk")
        connection.execute(f"PRAGMA synchronous = {layout.synchronous}")
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, *, layout: Layout) -> None:
    newest = len(layout.migrations)
    if _schema_version(connection, path, newest=newest) == newest:
        return
    connection.execute("BEGIN IMMEDIATE")
    # Again under the lock: another process may have been first.
    for migration in layout.migrations[_schema_version(connection, path, newest=newest) :]:
        for statement in migration:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {newest}")
    connection.execute("COMMIT")


def _schema_version(connection: sqlite3.Connection, path: Path, *, newest: int) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application != APPLICATION_ID and (tables or version):
        raise StoreUnavailable(f"{path} is a database of another program: use another data directory")
    if version > newest:
        raise StoreUnavailable(
            f"{path} was written by a newer Kappa (schema {version}, this one knows {newest}): "
            "upgrade Kappa or use another data directory"
        )
    return version


def _sync_folder(folder: Path) -> None:
    """Make the name of a new file durable: SQLite syncs the folder for its journals, not for the database itself."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def pause(until: asyncio.Event, *, at_most: float | None) -> None:
    """Wait for ``until``, but no longer than ``at_most`` seconds."""
    try:
        async with asyncio.timeout(at_most):
            await until.wait()
    except TimeoutError:
        pass  # the pause is over


def _is_locked(error: sqlite3.Error) -> bool:
    return str(getattr(error, "sqlite_errorname", "")).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def explain(path: Path, error: sqlite3.Error) -> StoreUnavailable:
    """The line for people behind an error of SQLite (result codes: sqlite.org/rescode.html)."""
    name = str(getattr(error, "sqlite_errorname", ""))
    if name == "SQLITE_FULL":
        return StoreUnavailable(f"{path} cannot be written: no space left on the device")
    if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return StoreUnavailable(f"{path} cannot be written: it, its folder or its file system is read-only for this user")
    if name.startswith("SQLITE_CANTOPEN"):
        return StoreUnavailable(f"{path} cannot be opened: it must be a file in a folder that this user may write to")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return DatabaseDamaged(f"{path} is damaged ({error}): restore it, or move it away to begin anew")
    if _is_locked(error):
        return StoreUnavailable(f"{path} was locked by another process for more than {BUSY_SECONDS:g} s")
    if name.startswith("SQLITE_IOERR"):
        return StoreUnavailable(f"{path} cannot be read or written: {error} ({name})")
    return StoreUnavailable(f"{path}: {error}")
