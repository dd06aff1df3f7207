"""Log lines on their way to a gateway: gathered for a moment, sent in batches, dropped and counted when nobody takes them.

Logs are best effort by design: they never delay an invocation and never fill the supervisor's memory. Back-pressure comes from the
link (one batch at a time, as the gateway grants room); what does not fit meanwhile is dropped, and the next batch says how much.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from kappa_core.link.frames import CHUNK, LogLine, Logs
from kappa_core.link.transport import Link

GATHER_SECONDS: Final = 0.02
PENDING_BYTES: Final = 16 * 1024 * 1024
"""Of messages that wait; beyond it new lines are dropped."""
LINE_BYTES: Final = 256 * 1024  # CloudWatch Logs takes no longer event
_OVERHEAD: Final = 64


class LogSender:
    """See the module. ``outlet`` is the link that takes logs now, if any does."""

    def __init__(self, *, outlet: Callable[[], Link | None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._outlet = outlet
        self._lines: deque[tuple[LogLine, int]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None
        self.names: dict[int, str] = {}
        """Log stream names by stream, of environments that live or whose lines may still be here."""

    def add(self, line: LogLine) -> None:
        size = _size(line.message)
        if size > LINE_BYTES:
            message = line.message.encode(errors="replace")[: LINE_BYTES - _OVERHEAD].decode(errors="ignore")
            line = LogLine(line.stream, line.timestamp_ms, line.request_id, message)
            size = LINE_BYTES
        if self._bytes + size > PENDING_BYTES:
            self._dropped += 1
            return
        self._lines.append((line, size))
        self._bytes += size
        if self._timer is None:
            self._timer = self._loop.call_later(GATHER_SECONDS, self._flush)

    @property
    def pending(self) -> bool:
        return bool(self._lines)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _flush(self) -> None:
        self._timer = None
        link = self._outlet()
        if link is not None:
            link.send_logs(self._next_batch())
        if self._lines:
            self._timer = self._loop.call_later(GATHER_SECONDS if link is None else 0, self._flush)

    def _next_batch(self) -> Logs:
        batch: list[LogLine] = []
        total = 0
        lines = self._lines
        while lines and (not batch or total + lines[0][1] <= CHUNK):
            line, size = lines.popleft()
            batch.append(line)
            total += size
        self._bytes -= total
        dropped, self._dropped = self._dropped, 0
        names = {stream: self.names[stream] for stream in {line.stream for line in batch} if stream in self.names}
        return Logs(lines=batch, dropped=dropped, names=names)


def _size(message: str) -> int:
    return (len(message) if message.isascii() else len(message.encode(errors="replace"))) + _OVERHEAD
