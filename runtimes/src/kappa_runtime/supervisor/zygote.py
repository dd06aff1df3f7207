"""The supervisor's side of a Python zygote: boots it, orders forks, passes on how its children ended.

A zygote needs only the interpreter's command, so a spare supervisor boots one before it knows its function. Forks are ordered one at
a time. If the zygote dies (a handler may kill its parent), its children become the supervisor's own and live on; the next
environment gets a new zygote.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from kappa_runtime.supervisor import process
from kappa_runtime.supervisor.errors import ZygoteLost
from kappa_runtime.supervisor.launching import PYTHON_SCRIPTS
from kappa_runtime.supervisor.process import Ended, Launch, Watch
from kappa_runtime.supervisor.sandbox import as_dict
from kappa_runtime.supervisor.started import Started, zygote_arguments, zygote_variables

BOOT_SECONDS: Final = 10.0
_MESSAGE: Final = 64 * 1024

OnEnd = Callable[[Ended], None]


class Zygote:
    """One fork server. ``version`` and ``prefix`` (of the interpreter) are known after ``boot``."""

    def __init__(self, command: tuple[str, ...], *, started: Started | None = None) -> None:
        """``started``: its process is there already."""
        self.command = command
        self._started = started
        self.version = ""
        self.prefix = ""
        self.pid = 0
        self.alive = False
        self._control: socket.socket | None = None
        self._watch: Watch | None = None
        self._ready: asyncio.Future[None] | None = None
        self._forked: asyncio.Future[int] | None = None
        self._on_end: OnEnd | None = None
        self._children: dict[int, OnEnd] = {}
        self._turn = asyncio.Lock()

    async def boot(self) -> None:
        """Start it and wait until it can fork. Raises ZygoteLost; SpawnFailed."""
        loop = asyncio.get_running_loop()
        self.pid, ours = self._started or self._start()
        self._started = None
        self._control = ours
        self._ready = loop.create_future()
        self._watch = Watch(self.pid, lambda _: None)
        loop.add_reader(ours.fileno(), self._read)
        try:
            async with asyncio.timeout(BOOT_SECONDS):
                await self._ready
        except TimeoutError:
            self.close()
            raise ZygoteLost(f"{self.command[0]} did not start within {BOOT_SECONDS:.0f} s") from None
        self.alive = True

    def _start(self) -> Started:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            launch = Launch(
                argv=zygote_arguments(self.command, str(PYTHON_SCRIPTS), theirs.fileno()),
                variables=zygote_variables(),
                directory="/",
                outlives=True,  # it has environments to end when this process is gone
            )
            # What an interpreter says when it cannot start belongs into the supervisor's own output.
            pid, failure = process.spawn(launch, log=2, keep=(theirs.fileno(),))
            os.close(failure)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Started(pid, ours)

    async def fork(self, environment_id: str, launch: Launch, *, log: int, namespaces: tuple[int, ...], on_end: OnEnd) -> int:
        """An environment's process; its pid. ``on_end`` is called once. Raises ZygoteLost; nothing runs then."""
        order = {
            "environment": environment_id,
            "variables": launch.variables,
            "directory": launch.directory,
            "sandbox": None if launch.sandbox is None else as_dict(launch.sandbox),
            "namespaces": bool(namespaces),
            "files": process.FILES,
        }
        fds = array.array("i", (log, *namespaces))
        async with self._turn:
            if self._control is None or not self.alive:
                raise ZygoteLost("the zygote has ended")
            self._forked = asyncio.get_running_loop().create_future()
            self._on_end = on_end
            try:
                # One order under way at a time: the packet always fits the socket's empty buffer.
                self._control.sendmsg([msgspec.json.encode(order)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            except OSError as error:
                raise ZygoteLost(str(error)) from error
            return await asyncio.shield(self._forked)

    def _read(self) -> None:
        assert self._control is not None
        while self._control is not None:
            try:
                data = self._control.recv(_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._lost()
                return
            self._take(msgspec.json.decode(data))

    def _take(self, message: dict[str, object]) -> None:
        if "ended" in message:
            on_end = self._children.pop(int(str(message["ended"])), None)
            if on_end is not None:
                on_end(Ended(int(str(message["status"])), int(str(message["peak_kib"]))))
        elif "forked" in message:
            pid = int(str(message["forked"]))
            assert self._on_end is not None
            self._children[pid] = self._on_end
            if self._forked is not None and not self._forked.done():
                self._forked.set_result(pid)
        elif self._ready is not None and not self._ready.done():
            self.version, self.prefix = str(message["version"]), str(message["prefix"])
            self._ready.set_result(None)

    def _lost(self) -> None:
        self._release()
        children, self._children = self._children, {}
        for pid, on_end in children.items():
            Watch(pid, on_end)
        for waiting in (self._ready, self._forked):
            if waiting is not None and not waiting.done():
                waiting.set_exception(ZygoteLost(f"{self.command[0]} ended"))

    def _release(self) -> None:
        self.alive = False
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    def close(self) -> None:
        """End it. Its children are ended by their environments before this."""
        self._release()
        if self.pid:
            process.kill_group(self.pid)

    async def closed(self) -> None:
        """End it and wait until it is gone."""
        self.close()
        for _ in range(500):
            if self._watch is None or self._watch.done:
                return
            await asyncio.sleep(0.001)
