"""One runtime process of an environment, from its start to its end: process, pipe, memory. An environment has one after the other.

It starts the process by fork of the zygote or by execution, captures what it prints and says once how it ended. What that means is
the lifecycle's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from kappa_runtime.supervisor import process
from kappa_runtime.supervisor.errors import SpawnFailed, ZygoteLost
from kappa_runtime.supervisor.log_capture import LogBudget, LogCapture
from kappa_runtime.supervisor.memory import MemoryMeter, resident_kib
from kappa_runtime.supervisor.process import Ended, Launch, Watch
from kappa_runtime.supervisor.zygote import Zygote


class RuntimeSession:
    """``on_end`` is called from the event loop, once, when the process has ended and its output has been read."""

    def __init__(
        self,
        *,
        budget: LogBudget,
        clock: Callable[[], float],
        on_lines: Callable[[list[str]], None],
        on_end: Callable[[RuntimeSession, Ended], None],
    ) -> None:
        self.pid = 0
        self.dismissed = False
        """Its environment has given it up; how it ends concerns nobody."""
        self.ended: Ended | None = None
        self.launch_failure: tuple[int, str] | None = None
        self.meter: MemoryMeter | None = None
        self._budget = budget
        self._clock = clock
        self._on_lines = on_lines
        self._on_end = on_end
        self._failure = -1
        self._executed = True
        self._inherited_kib = 0
        self._watch: Watch | None = None
        self._capture: LogCapture | None = None
        self._reading = False

    async def start(self, environment_id: str, launch: Launch, *, zygote: Zygote | None, namespaces: tuple[int, ...]) -> None:
        """Raises SpawnFailed or ZygoteLost; nothing runs then."""
        loop = asyncio.get_running_loop()
        try:
            reading, writing = os.pipe()
        except OSError as error:
            raise SpawnFailed(f"no pipe: {error.strerror}") from error
        self._capture = LogCapture(reading, budget=self._budget, clock=self._clock, on_lines=self._on_lines)
        loop.add_reader(reading, self._read)
        self._reading = True
        try:
            if zygote is not None:
                self.pid = await zygote.fork(environment_id, launch, log=writing, namespaces=namespaces, on_end=self._finish)
            else:
                self._executed = False
                self._inherited_kib = resident_kib(os.getpid())
                self.pid, self._failure = process.spawn(launch, log=writing, namespaces=namespaces)
                self._watch = Watch(self.pid, self._finish)
        except (SpawnFailed, ZygoteLost):
            self.close()
            raise
        finally:
            os.close(writing)
        self.meter = MemoryMeter(self.pid)

    def _read(self) -> None:
        if self._capture is not None and not self._capture.read():
            self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reading and self._capture is not None:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._capture.fd)

    def memory_kib(self) -> int:
        """What it and its descendants hold now. Nothing until it is executed: before, its pages are the supervisor's."""
        if not self._executed and self._failure >= 0:
            self._executed = process.executed(self._failure)
        return self.meter.usage() if self.meter is not None and self._executed else 0

    def flush(self) -> None:
        """Take over all that has been printed until now."""
        if self._capture is not None:
            self._capture.flush()

    def _finish(self, ended: Ended) -> None:
        self.ended = ended
        # Linux carries the peak of before the execution over into ru_maxrss; only what lies above it is the function's own.
        if self.meter is not None and ended.peak_kib > self._inherited_kib:
            self.meter.peak_kib = max(self.meter.peak_kib, ended.peak_kib)
        if self._failure >= 0:
            self.launch_failure = process.launch_failure(self._failure)
        self.flush()
        self._on_end(self, ended)

    async def end(self, *, marker: bytes, namespace: int, spared: Callable[[], set[int]]) -> None:
        """Kill it and everything that came from it; return when that is done."""
        if self.pid:
            gone = lambda: self.ended is not None  # noqa: E731 - one question
            await process.end_tree(self.pid, gone=gone, marker=marker, namespace=namespace, spared=spared)
        self.flush()
        self.close()

    def close(self) -> None:
        self._stop_reading()
        if self._capture is not None:
            os.close(self._capture.fd)
            self._capture = None
        if self._failure >= 0:
            os.close(self._failure)
            self._failure = -1
        if self._watch is not None:
            self._watch.cancel()
        if self.meter is not None:
            self.meter.close()
