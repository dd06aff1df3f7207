"""A PostgreSQL server for tests and benchmarks: of its own, in a temporary folder, on a Unix socket, and gone at the end.

A pytest plugin, loaded by `tests/conftest.py`: the fixture `postgres_server` is one server for the whole run, `postgres_dsn` a database
of the test's own on it. Where no server is installed the tests that ask for it are skipped. PostgreSQL refuses to run as root, so a root
user's server runs as `postgres` or `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import process_tree

USER = "kappa"
_READY_SECONDS = 60.0


class PostgresServer:
    """One running server. Its clients need no password."""

    def __init__(self, binaries: Path, folder: Path, *, durable: bool) -> None:
        self._binaries = binaries
        self._folder = folder
        self._settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "log_destination": "stderr"}
        if not durable:
            # A killed server loses nothing without it, only a machine without power does.
            self._settings["fsync"] = "off"
        self._user = _other_user() if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", str(folder / "data"), "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self._process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str = "postgres") -> str:
        """How to connect to a database."""
        return f"postgresql://{USER}@/{database}?host={self._folder}"

    def create_database(self, name: str) -> str:
        """Make an empty one; its DSN."""
        self.execute(f"CREATE DATABASE {name}")
        return self.dsn(name)

    def empty(self, dsn: str) -> None:
        """Take everything of Kappa's out of a database, whoever is still connected to it."""
        self.execute(
            "SET client_min_messages = error; SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid(); DROP SCHEMA IF EXISTS kappa CASCADE",
            dsn=dsn,
        )

    def execute(self, statement: str, *, dsn: str | None = None) -> str:
        """Run SQL; what psql prints without decoration."""
        return self._run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", dsn or self.dsn(), "-c", statement).strip()

    def start(self) -> None:
        """Start, and wait until it accepts connections."""
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self._folder / "data"), *settings],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=None if self._user is None else self._user.pw_uid,
                group=None if self._user is None else self._user.pw_gid,
                extra_groups=None if self._user is None else [],
            )
        deadline = time.monotonic() + _READY_SECONDS
        status = self._folder / "data" / "postmaster.pid"
        while True:
            with suppress(OSError):
                lines = status.read_text().splitlines()
                if lines[:1] == [str(self._process.pid)] and lines[-1].strip() == "ready":
                    return
            alive = self._process.poll() is None and time.monotonic() < deadline
            assert alive, (self._folder / "log").read_text()
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT as an administrator would, SIGQUIT without any preparation (`-m immediate`)."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Crash it and start it again: it recovers from its log."""
        self.stop(signal.SIGQUIT)
        self.start()

    def kill(self) -> None:
        """SIGKILL every process of it, as the kernel's memory killer would."""
        processes = [self.pid, *(process.pid for process in process_tree.descendants(self.pid))]
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)
        # One that outlives its parent for a moment would keep the server from starting again.
        deadline = time.monotonic() + _READY_SECONDS
        while any(pid in (alive := process_tree.table()) and alive[pid].state != "Z" for pid in processes):
            assert time.monotonic() < deadline, "a process of PostgreSQL does not end"
            time.sleep(0.01)

    def kill_connections(self, dsn: str) -> None:
        """End every connection to a database, in the middle of whatever it does."""
        name = dsn.partition("?")[0].rpartition("/")[2]
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        assert self._process is not None
        return self._process.pid

    def _run(self, program: str, *arguments: str) -> str:
        ran = subprocess.run(
            [str(self._binaries / program), *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=None if self._user is None else self._user.pw_uid,
            group=None if self._user is None else self._user.pw_gid,
            extra_groups=None if self._user is None else [],
        )
        assert ran.returncode == 0, f"{program}: {ran.stderr}"
        return ran.stdout


def binaries() -> Path | None:
    """The folder with `postgres`, `initdb` and `psql`; of several versions the newest. None: no server is installed."""
    beside = [Path(found).resolve().parent for name in ("postgres", "initdb") if (found := shutil.which(name)) is not None]
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for folder in [*packaged, *beside]:
        if all((folder / name).exists() for name in ("postgres", "initdb", "psql")):
            return folder
    return None


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server for the duration of the block. ``durable``: as in production, with every commit on the disk."""
    found = binaries()
    assert found is not None, "no PostgreSQL server is installed"
    folder = Path(tempfile.mkdtemp(prefix="kappa-postgres-"))
    try:
        server = PostgresServer(found, folder, durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _other_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests of this process."""
    if binaries() is None:
        pytest.skip("no PostgreSQL server installed")
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def _postgres_database(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database("kappa")


@pytest.fixture
def postgres_dsn(postgres_server: PostgresServer, _postgres_database: str) -> str:
    """An empty database."""
    postgres_server.empty(_postgres_database)
    return _postgres_database
