"""The gateway's end of the nursery: starts the process, sends commands, hands on reports, starts a new one when it has died.

Nothing is started before the first command, so that a gateway without functions is one process. It refuses to know what the
supervisors are for (:mod:`kappa_gateway.embedded.provider`) and never imports the runtime package: the nursery is a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final, cast

from kappa_core.nursery import Command, ControlError, MessageReader, Ready, Report, pack
from kappa_core.ports.environments import ProviderError

logger = logging.getLogger("kappa.nursery")

READY_SECONDS: Final = 10.0
ENDING_SECONDS: Final = 2.5
"""What a nursery has to bury its children before it is killed."""
RESTART_SECONDS: Final = 1.0
"""Least time between two starts of a nursery: one that dies at once must not become a loop."""


class _Control(asyncio.Protocol):
    def __init__(self, *, on_report: Callable[[Report], None], on_lost: Callable[[], None]) -> None:
        self._reader = MessageReader()
        self._on_report = on_report
        self._on_lost = on_lost
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class

    def data_received(self, data: bytes) -> None:
        try:
            for report in self._reader.reports(data):
                self._on_report(report)
        except ControlError as error:
            logger.warning("the nursery sent what is no report (%s); a new one is started", error)
            assert self.transport is not None
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._on_lost()


class NurseryProcess:
    """See the module. ``on_report`` gets every report but Ready; ``on_lost`` is called when a nursery died unasked."""

    def __init__(
        self,
        *,
        on_report: Callable[[Report], None],
        on_lost: Callable[[], None],
        spawn: bool = False,
        environment: dict[str, str],
    ) -> None:
        self._on_report = on_report
        self._on_lost = on_lost
        self._spawn = spawn
        self._environment = environment
        self._control: _Control | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._started_at = -RESTART_SECONDS
        self._closing = False

    @property
    def pid(self) -> int | None:
        """Of the running nursery."""
        return self._process.pid if self._process is not None else None

    async def send(self, command: Command) -> None:
        """Send a command, starting a nursery if none runs. Raises ProviderError."""
        if self._control is None or self._ready is None or not self._ready.done():
            await self._start_once()
        self.send_if_running(command)

    def send_if_running(self, command: Command) -> None:
        if self._control is not None and self._control.transport is not None:
            self._control.transport.write(pack(command))

    async def _start_once(self) -> None:
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._start_ended)
        await asyncio.shield(self._starting)

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # retrieved: whoever waited has got it

    async def _start(self) -> None:
        if self._closing:
            raise ProviderError("The gateway is stopping.")
        wait = self._started_at + RESTART_SECONDS - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        self._started_at = time.monotonic()
        await self._bury()
        ours = self._spawn_process()
        loop = asyncio.get_running_loop()
        ready = self._ready = loop.create_future()
        _, control = await loop.create_connection(lambda: _Control(on_report=self._reported, on_lost=self._lost), sock=ours)
        self._control = control
        try:
            await asyncio.wait_for(asyncio.shield(ready), READY_SECONDS)
        except TimeoutError:
            if self._process is not None:
                self._process.kill()
            raise ProviderError(f"The process that starts environments was not ready within {READY_SECONDS:g} s.") from None

    def _spawn_process(self) -> socket.socket:
        """Start the process; our end of its control socket. Takes a millisecond or two."""
        ours, theirs = socket.socketpair()
        arguments = [sys.executable, "-P", "-m", "kappa_runtime.nursery", "--control", str(theirs.fileno())]
        if self._spawn:
            arguments.append("--spawn")
        try:
            self._process = subprocess.Popen(
                arguments, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, env=self._environment, start_new_session=True
            )
        except OSError as error:
            ours.close()
            raise ProviderError(f"The process that starts environments does not start: {error}") from error
        finally:
            theirs.close()
        return ours

    def _reported(self, report: Report) -> None:
        if isinstance(report, Ready):
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        else:
            self._on_report(report)

    def _lost(self) -> None:
        self._control = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(ProviderError("The process that starts environments ended while it started."))
            self._ready.exception()
        self._ready = None
        if not self._closing:
            logger.warning("the nursery has died; a new one is started when it is needed")
            self._on_lost()

    async def _bury(self) -> None:
        """Wait for a nursery that has closed its socket; kill it if it does not end."""
        process, self._process = self._process, None
        if process is None:
            return
        deadline = time.monotonic() + ENDING_SECONDS
        while process.poll() is None:
            if time.monotonic() > deadline:
                logger.warning("the nursery does not end and is killed")
                process.kill()
                process.wait()
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """End the nursery and with it every supervisor. Idempotent."""
        self._closing = True
        if self._starting is not None:
            with contextlib.suppress(ProviderError):
                await self._starting
        if self._control is not None and self._control.transport is not None:
            self._control.transport.close()
        await self._bury()


def nursery_environment(source: dict[str, str] | None = None) -> dict[str, str]:
    """What the nursery's process environment is: the gateway's own without what functions and supervisors must never see."""
    given = dict(os.environ) if source is None else source
    return {name: value for name, value in given.items() if not name.startswith(("AWS_", "KAPPA_"))}
