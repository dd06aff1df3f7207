"""The nursery's loop: takes commands from the gateway, makes supervisors, reaps them and everything that they leave behind.

Single-threaded and blocking on purpose, with no event loop: a process that forks must hold neither threads nor an event loop's
file descriptors. A supervisor is forked where that is safe (Linux) and spawned elsewhere or when asked. The nursery refuses to
know what a supervisor does; it learns of its end only by waiting for it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final

import msgspec

from kappa_core.nursery import (
    Command,
    ControlError,
    Ended,
    Fork,
    Forked,
    Kill,
    MessageReader,
    Ready,
    Report,
    SupervisorOptions,
    pack,
)
from kappa_runtime.nursery import descent

RunSupervisor = Callable[[SupervisorOptions, int], int]
"""Runs a supervisor to its end in this process, given its options and the lifeline's descriptor; returns the exit code."""

Prepare = Callable[[SupervisorOptions], None]
"""Called in the nursery before each fork; what it leaves in memory, every later supervisor has."""

ENDING_SECONDS: Final = 0.7
"""What supervisors have to end by themselves once the gateway is gone."""
BURYING_SECONDS: Final = 1.0
"""How long to wait for killed orphans to be gone before their supervisor's end is reported anyway."""
_READ: Final = 65536


class Nursery:
    """See the module. ``forks`` False spawns every supervisor as a process of its own."""

    def __init__(self, control: socket.socket, *, run: RunSupervisor, prepare: Prepare, forks: bool) -> None:
        self._control = control
        self._run = run
        self._prepare = prepare
        self._forks = forks
        self._reader = MessageReader()
        self._supervisors: dict[int, str] = {}
        self._spawned: dict[int, subprocess.Popen[bytes]] = {}
        # Supervisors hold the reading end; only this process holds the writing end, so that its death is seen by all of them.
        self._lifeline, self._lifeline_end = os.pipe()
        self._wakeup, self._wakeup_end = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._ending = False

    def serve(self) -> None:
        """Serve until the gateway closes the control socket or SIGTERM comes; leave no process behind."""
        descent.adopt_orphans()
        for end in (self._wakeup, self._wakeup_end):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_terminate)
        # Ctrl-C reaches a whole terminal; the gateway alone decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with self._selector as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wakeup, selectors.EVENT_READ)
            self._report(Ready(pid=os.getpid(), forks=self._forks))
            while not self._ending:
                for key, _ in selector.select():
                    if key.fileobj is self._control:
                        self._read_commands()
                    else:
                        self._drain_wakeup()
                self._reap()
        self._end_all()

    def _on_terminate(self, _number: int, _frame: object) -> None:
        self._ending = True

    def _drain_wakeup(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wakeup.recv(4096):
                pass

    # -- commands -----------------------------------------------------------------------------------------------------
    def _read_commands(self) -> None:
        try:
            data = self._control.recv(_READ)
        except ConnectionResetError:
            data = b""
        if not data:
            self._ending = True
            return
        try:
            for command in self._reader.commands(data):
                self._obey(command)
        except ControlError as error:
            print(f"kappa nursery: ends, for the gateway sent what is no command: {error}", file=sys.stderr)
            self._ending = True

    def _obey(self, command: Command) -> None:
        if isinstance(command, Kill):
            for pid, supervisor_id in self._supervisors.items():
                if supervisor_id == command.supervisor_id:
                    self._kill(pid)
            return
        try:
            pid = self._fork(command) if self._forks else self._spawn(command)
        except OSError as error:
            # EAGAIN or ENOMEM: the machine is full. The gateway tells its waiters why.
            self._report(Ended(supervisor_id=command.options.supervisor_id, pid=0, reason=f"could not be started: {error}"))
            return
        self._supervisors[pid] = command.options.supervisor_id
        self._report(Forked(supervisor_id=command.options.supervisor_id, pid=pid))

    def _report(self, report: Report) -> None:
        try:
            self._control.sendall(pack(report))
        except OSError:
            # The gateway is gone; reading says so as well, but a nursery that only writes must notice too.
            self._ending = True

    # -- making -------------------------------------------------------------------------------------------------------
    def _fork(self, command: Fork) -> int:
        self._prepare(command.options)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 70  # EX_SOFTWARE
        try:
            self._become_child()
            code = self._run(command.options, self._lifeline)
        except BaseException:  # noqa: BLE001 - whatever it is, a forked child must never return into the nursery's loop
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _become_child(self) -> None:
        """What must not be shared with the nursery: its signals, its sockets, its process group, its randomness."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        os.close(self._lifeline_end)
        for end in (self._control, self._wakeup, self._wakeup_end, self._selector):
            end.close()
        random.seed()
        gc.enable()

    def _spawn(self, command: Fork) -> int:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kappa_runtime.supervisor", "--options", "-", "--lifeline", str(self._lifeline)],
            stdin=subprocess.PIPE,
            pass_fds=(self._lifeline,),
            process_group=0,
        )
        assert process.stdin is not None
        # A child that dies at once closes the pipe; its exit code says more than this error.
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(msgspec.json.encode(command.options))
        self._spawned[process.pid] = process
        return process.pid

    # -- ending -------------------------------------------------------------------------------------------------------
    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            supervisor_id = self._supervisors.pop(pid, None)
            process = self._spawned.pop(pid, None)
            if process is not None:
                process.returncode = os.waitstatus_to_exitcode(status)
            if supervisor_id is not None:
                self._bury_orphans()
                code = os.waitstatus_to_exitcode(status)
                reason = f"exit {code}" if code >= 0 else f"signal {-code}"
                self._report(Ended(supervisor_id=supervisor_id, pid=pid, reason=reason))

    def _bury_orphans(self) -> None:
        """Kill every child that is no supervisor: it was a descendant of one that has died."""
        deadline = time.monotonic() + BURYING_SECONDS
        while orphans := descent.children(os.getpid()) - self._supervisors.keys():
            descent.kill_all(orphans)
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            # Their own children are handed to us and seen in the next turn. One that hangs in the kernel must not hang us.
            if time.monotonic() > deadline:
                return
            time.sleep(0.001)

    def _kill(self, pid: int) -> None:
        # Below first: a supervisor that dies before them would hand them over while the list is being walked.
        descent.kill_all(descent.descendants(pid))
        descent.kill_all({pid})

    def _end_all(self) -> None:
        self._control.close()
        os.close(self._lifeline_end)
        deadline = time.monotonic() + ENDING_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            while self._supervisors and (left := deadline - time.monotonic()) > 0:
                selector.select(left)
                self._drain_wakeup()
                self._reap()
        for pid in list(self._supervisors):
            self._kill(pid)
        self._supervisors.clear()  # from here on they are orphans like any other
        self._bury_orphans()
        signal.set_wakeup_fd(-1)
        os.close(self._lifeline)
        self._wakeup.close()
        self._wakeup_end.close()
