"""Runtime processes: starting one in a session of its own, learning of its end, and ending it with all its descendants.

A runtime leads its own session and process group, has one pipe for what it prints, and nothing open but that. Its descendants may
detach (double fork, ``setsid``); they are found by kinship, by their mount namespace, or by the log stream name in the variables
they were started with, because the supervisor is a child subreaper and inherits orphans. Commands are executed as given, never
through a shell.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from kappa_runtime.nursery import descent
from kappa_runtime.supervisor.errors import SpawnFailed
from kappa_runtime.supervisor.sandbox import Plan, as_dict

if sys.platform == "linux":
    from kappa_runtime.bootstrap.python import enter_sandbox

FILES: Final = 1024
"""RLIMIT_NOFILE, recorded on AWS."""
_ENDING_ROUNDS: Final = 200
_ENDING_PAUSE: Final = 0.002

# The Go names of signals: AWS's texts come from a supervisor written in Go.
_SIGNALS: Final = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
}


def exit_text(status: int) -> str:
    """The sentence of AWS's error for a wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return "Runtime exited without providing a reason"
    if code > 0:
        return f"Runtime exited with error: exit status {code}"
    return f"Runtime exited with error: signal: {_SIGNALS.get(-code, f'signal {-code}')}"


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How to execute a runtime."""

    argv: tuple[str, ...]
    variables: dict[str, str]
    directory: str
    sandbox: Plan | None = None
    outlives: bool = False
    """A zygote: it notices itself that this process ends, where the kernel kills a runtime; a runtime's limits are not its own."""


class Ended(msgspec.Struct, frozen=True):
    status: int
    """Wait status."""
    peak_kib: int = 0


def spawn(launch: Launch, *, log: int, namespaces: tuple[int, ...] = (), keep: tuple[int, ...] = ()) -> tuple[int, int]:
    """Fork and execute. Returns the pid and a pipe that holds an errno if the execution itself failed (else: end of file).

    ``namespaces``: mount (and user) namespace of an earlier runtime of the environment. Raises SpawnFailed.
    """
    try:
        reading, writing = os.pipe()
    except OSError as error:
        raise SpawnFailed(f"no pipe: {error.strerror}") from error
    try:
        pid = os.fork()
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise SpawnFailed(f"no process: {error.strerror}") from error
    if pid == 0:
        _execute(launch, log, namespaces, keep, writing)
    os.close(writing)
    return pid, reading


def _execute(launch: Launch, log: int, namespaces: tuple[int, ...], keep: tuple[int, ...], failure: int) -> NoReturn:
    """In the child: everything between fork and exec."""
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        for fd in keep:
            os.set_inheritable(fd, True)
        if sys.platform == "linux":
            if launch.sandbox is not None and namespaces:
                user = namespaces[1] if len(namespaces) > 1 else None
                enter_sandbox.reenter(namespaces[0], user, list(launch.sandbox.capabilities))
            elif launch.sandbox is not None:
                enter_sandbox.enter(as_dict(launch.sandbox))
            if not launch.outlives:
                enter_sandbox.end_with_parent(signal.SIGKILL)
        os.chdir(launch.directory)
        _close_others({0, 1, 2, failure, *keep})
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if not launch.outlives:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            files = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        try:
            os.execve(launch.argv[0], launch.argv, launch.variables)  # noqa: S606 - no shell is the point
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script without "#!": a shell would run it, and so does AWS's start script.
            os.execve("/bin/sh", ("/bin/sh", *launch.argv), launch.variables)  # noqa: S606
    except OSError as error:
        os.write(failure, f"{error.errno or 0} {error.filename or ''}".encode())
        os._exit(127 if error.errno == errno.ENOENT else 126)
    except BaseException as error:  # noqa: BLE001 - a forked child must never return into the event loop
        os.write(failure, f"0 {type(error).__name__}: {error}".encode())
        os._exit(70)


def _close_others(kept: set[int]) -> None:
    """Descriptors that whoever started this process let through, such as the nursery's lifeline, are no function's business."""
    lowest = 0
    for fd in sorted(kept):
        if lowest < fd:  # CPython 3.11 takes closerange(0, 0) for "all"
            os.closerange(lowest, fd)
        lowest = fd + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def launch_failure(reading: int) -> tuple[int, str] | None:
    """What ``spawn``'s pipe says once the process has ended: errno and path, or None if it was executed."""
    os.set_blocking(reading, False)
    try:
        number, _, path = os.read(reading, 4096).decode(errors="replace").partition(" ")
    except BlockingIOError:
        return None
    return (int(number), path) if number else None


def executed(reading: int) -> bool:
    """Whether ``spawn``'s child has left this program behind: its end of the pipe closes with the execution (or with its end)."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    return bool(poll.poll(0))


class Watch:
    """Calls back once when a child of this process has ended, and reaps it."""

    def __init__(self, pid: int, on_end: Callable[[Ended], None]) -> None:
        self._pid = pid
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self.done = False
        if hasattr(os, "pidfd_open"):
            try:
                self._fd = os.pidfd_open(pid)
            except ProcessLookupError:
                self._loop.call_soon(self._finish, Ended(signal.SIGKILL))
                return
            self._loop.add_reader(self._fd, self._reap)
        else:
            threading.Thread(target=self._wait_in_thread, name=f"wait-{pid}", daemon=True).start()

    def _reap(self) -> None:
        try:
            pid, status, usage = os.wait4(self._pid, os.WNOHANG)
        except ChildProcessError:
            # Reaped elsewhere: a grandchild whose parent had been faster. How it ended is lost, that it ended is not.
            self._finish(Ended(signal.SIGKILL))
            return
        if pid:
            self._finish(Ended(status, usage.ru_maxrss if sys.platform == "linux" else usage.ru_maxrss // 1024))

    def _wait_in_thread(self) -> None:
        try:
            _, status, usage = os.wait4(self._pid, 0)
        except ChildProcessError:
            status, peak = int(signal.SIGKILL), 0
        else:
            peak = usage.ru_maxrss // 1024
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile: nobody waits any more
            self._loop.call_soon_threadsafe(self._finish, Ended(status, peak))

    def _finish(self, ended: Ended) -> None:
        self.done = True
        self.cancel()
        self._on_end(ended)

    def cancel(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def kill_group(pid: int) -> None:
    """SIGKILL to the runtime and its process group, at once."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def mount_namespace(pid: int) -> int:
    """Inode of its mount namespace; 0 if that cannot be seen."""
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino  # noqa: PTH116 - a magic link
    except OSError:
        return 0


def own_orphans(*, marker: bytes, namespace: int, spared: set[int]) -> set[int]:
    """Children of this process that are an environment's orphans: by mount namespace, or by ``marker`` in their variables."""
    found = set()
    for pid in descent.children(os.getpid()) - spared:
        if namespace and mount_namespace(pid) == namespace:
            found.add(pid)
            continue
        with contextlib.suppress(OSError):
            if marker in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(pid)
    return found


async def end_tree(pid: int, *, gone: Callable[[], bool], marker: bytes, namespace: int, spared: Callable[[], set[int]]) -> None:
    """SIGKILL a runtime and every descendant of it, detached ones included, until none is left.

    ``gone``: whether the runtime itself has been reaped; only then are all of its orphans in sight. ``spared``: this process's
    other children. Gives up after 0.4 s on what hangs in the kernel.
    """
    targets = descent.descendants(pid)
    kill_group(pid)
    for _ in range(_ENDING_ROUNDS):
        last = gone()
        if sys.platform == "linux":
            targets |= own_orphans(marker=marker, namespace=namespace, spared=spared() | {pid})
            targets |= {below for target in targets for below in descent.descendants(target)}
            targets = {target for target in targets if _lives(target)}
            descent.kill_all(targets)
        if last and not targets:
            return
        await asyncio.sleep(_ENDING_PAUSE)


def _lives(pid: int) -> bool:
    """Whether it still runs. Reaps it if it is an orphan that became a child of this process."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    if state[0] != "Z":
        return True
    if int(state[1]) == os.getpid():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return False
