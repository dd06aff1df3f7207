"""What a runtime prints: read from its pipe, cut into lines, tagged with the request that runs, bounded.

The pipe is always read, as fast as the handler writes, so that printing never blocks it; what exceeds the budget is counted and
dropped, and one line says so. Standard output and standard error share one pipe, which keeps their order. A handler that closes
them changes nothing here; the end of the pipe is not the end of the process.
"""

from __future__ import annotations

import fcntl
import os
import termios
from collections.abc import Callable
from typing import Final

_NOTHING: Final = bytes(4)
READ_BYTES: Final = 64 * 1024
READS_PER_TURN: Final = 16
"""At most 1 MiB per turn of the event loop, so that one printing handler leaves the others their share."""
FLUSH_READS: Final = 4
"""A pipe holds 64 KiB: more than this is printed by something that runs on after its request."""
EVENT_BYTES: Final = 256 * 1024
"""A longer line is cut: the size limit of one CloudWatch Logs event."""
BURST_BYTES: Final = 8 * 1024 * 1024
BYTES_PER_SECOND: Final = 4 * 1024 * 1024


class LogBudget:
    """A token bucket over bytes. Pure: time is given, in seconds of any monotonic clock."""

    __slots__ = ("_at", "_left", "dropped_bytes", "dropped_lines")

    def __init__(self, now: float) -> None:
        self._left = float(BURST_BYTES)
        self._at = now
        self.dropped_lines = 0
        self.dropped_bytes = 0

    def take(self, size: int, now: float) -> bool:
        """Whether a line of ``size`` bytes may pass."""
        if size <= self._left:
            self._left -= size
            return True
        self._left = min(float(BURST_BYTES), self._left + (now - self._at) * BYTES_PER_SECOND)
        self._at = now
        if size <= self._left:
            self._left -= size
            return True
        self.dropped_lines += 1
        self.dropped_bytes += size
        return False

    def refill(self, now: float) -> None:
        self._left = min(float(BURST_BYTES), self._left + (now - self._at) * BYTES_PER_SECOND)
        self._at = now

    def settle(self) -> tuple[int, int]:
        """Lines and bytes dropped since the last call."""
        dropped = self.dropped_lines, self.dropped_bytes
        self.dropped_lines = self.dropped_bytes = 0
        return dropped


class LogCapture:
    """The reading end of one runtime's pipe. ``on_lines`` gets complete lines, line breaks included, in order."""

    def __init__(self, fd: int, *, budget: LogBudget, clock: Callable[[], float], on_lines: Callable[[list[str]], None]) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._budget = budget
        self._clock = clock
        self._on_lines = on_lines
        self._partial = b""
        self._available = bytearray(4)
        self._open = True

    def read(self) -> bool:
        """Take what is there. False once nothing can come any more."""
        fd = self.fd
        for _ in range(READS_PER_TURN):
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                self._open = False
                return False
            self._cut(data)
            if len(data) < READ_BYTES:
                return True  # a pipe gives all it has; asking once more would only cost a system call
        return True

    def flush(self) -> None:
        """Read to the end of what is there and let an unfinished line go: a request ends here."""
        if self._open and not self._partial:
            # Most requests print nothing, and a failing read(2) costs more than this question.
            fcntl.ioctl(self.fd, termios.FIONREAD, self._available)
            if self._available == _NOTHING:
                return
        for _ in range(FLUSH_READS if self._open else 0):
            try:
                data = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                self._open = False
                break
            self._cut(data)
            if len(data) < READ_BYTES:
                break
        if self._partial:
            rest, self._partial = self._partial, b""
            self._pass_on([rest + b"\n"])

    def _cut(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
            self._partial = b""
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        pieces = data[:end].splitlines(keepends=True) if b"\r" not in data else _split_at_newlines(data[:end])
        while len(rest) > EVENT_BYTES:
            pieces.append(rest[:EVENT_BYTES] + b"\n")
            rest = rest[EVENT_BYTES:]
        self._partial = rest
        if pieces:
            self._pass_on(pieces)

    def _pass_on(self, pieces: list[bytes]) -> None:
        now = self._clock()
        take = self._budget.take
        lines: list[str] = []
        for piece in pieces:
            if not take(len(piece), now):
                continue
            if len(piece) <= EVENT_BYTES + 1:
                lines.append(piece.decode("utf-8", "replace"))
            else:
                cuts = range(0, len(piece), EVENT_BYTES)
                lines.extend(piece[start : start + EVENT_BYTES].decode("utf-8", "replace") for start in cuts)
        if lines:
            self._on_lines(lines)


def _split_at_newlines(data: bytes) -> list[bytes]:
    """Only ``\\n`` ends a line: runtimes use ``\\r`` inside one event. ``data`` ends with a line break, or is empty."""
    return [piece + b"\n" for piece in data.split(b"\n")[:-1]]
