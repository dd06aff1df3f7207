"""Access lines: one JSON object per request on standard output, when asked for.

Written from the outer ASGI callable for every request alike. Lines are handed to the stream in one piece; a reader that does not
keep up blocks the process as any program that prints would, which is why they are off by default.
"""

from __future__ import annotations

import time
from typing import TextIO

import msgspec

_encode = msgspec.json.Encoder().encode


class AccessLine(msgspec.Struct, frozen=True):
    time: str
    method: str
    path: str
    status: int
    duration_ms: float
    request_id: str
    client: str


class AccessLog:
    """Formats and writes lines. ``now`` is the wall clock in seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, *, method: str, path: str, status: int, seconds: float, request_id: str, client: str, now: float) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        line = AccessLine(stamp, method, path, status, round(seconds * 1000, 3), request_id, client)
        self._stream.write(_encode(line).decode() + "\n")
        self._stream.flush()
