"""The data directory of an embedded gateway: its layout, its lock and its secret.

    functions.db    resources (SQLite, with -wal and -shm beside it)
    events.db       asynchronous events that wait, and dead letters
    logs.db         function logs
    blobs/          archives by content
    trees/          unpacked archives and merged layers, made again when missing
    run/            sockets and working directories; worthless after a stop
    cache/          what was found out about this machine
    secret          32 random bytes: session keys and code links are signed with them
    lock            held by the gateway that runs

Only the owner can read it: it holds code and environment variables.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

_SOCKET_PATH_BYTES: Final = 90


class DataDirError(Exception):
    """The directory cannot be used; the message is one line for the terminal."""


class DataDir:
    """An open data directory. ``shared`` lets several gateways that know of each other use it at once."""

    def __init__(self, root: Path, *, shared: bool) -> None:
        self.root = root.absolute()
        self._temporary: Path | None = None
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("blobs", "trees", "run", "cache"):
                (self.root / name).mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataDirError(f"the data directory {self.root} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise DataDirError(f"another kappa dev uses {self.root}: stop it, or give this one another --data-dir") from None
        self.secret = self._secret()

    @property
    def resources(self) -> Path:
        return self.root / "functions.db"

    @property
    def events(self) -> Path:
        return self.root / "events.db"

    @property
    def logs(self) -> Path:
        return self.root / "logs.db"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def work_dir(self) -> Path:
        """A fresh directory for one run of the gateway; what dead runs left is removed."""
        run = self.root / "run"
        for old in run.iterdir():
            if not _is_alive(old.name):
                shutil.rmtree(old, ignore_errors=True)
        mine = run / str(os.getpid())
        mine.mkdir(mode=0o700, exist_ok=True)
        return mine

    def socket(self, work_dir: Path) -> Path:
        """Where the link's Unix socket goes: beside the rest, or in a short temporary directory where that path is too long."""
        path = work_dir / "link.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
            return path
        self._temporary = Path(tempfile.mkdtemp(prefix="kappa-"))
        return self._temporary / "link.sock"

    def close(self) -> None:
        """Release the lock and remove what this run made. Idempotent."""
        if self._lock < 0:
            return
        shutil.rmtree(self.root / "run" / str(os.getpid()), ignore_errors=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    def _secret(self) -> bytes:
        path = self.root / "secret"
        try:
            found = path.read_bytes()
            if len(found) < 32:
                raise DataDirError(f"{path} is damaged: remove it, a new one is made")
            return found
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DataDirError(f"{path} cannot be read: {error.strerror}") from None
        made = secrets.token_bytes(32)
        temporary = path.with_name(f"secret.{os.getpid()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(made)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)  # unlike a rename it does not replace what another gateway made meanwhile
            except FileExistsError:
                return path.read_bytes()
            finally:
                temporary.unlink()
        except OSError as error:
            raise DataDirError(f"{path} cannot be written: {error.strerror}") from None
        return made


def _is_alive(name: str) -> bool:
    if not name.isdigit():
        return False
    try:
        os.kill(int(name), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
