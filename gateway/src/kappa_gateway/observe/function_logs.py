"""What functions log in a cluster: each line as one JSON object on standard output, where the cluster's log collection finds it.

Every gateway prints the lines of the environments that send them to it, each line once. Like the access lines they are handed over in one
piece. What a line says is never looked into: a function that logs JSON has it as text in ``message``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TextIO

import msgspec

from kappa_core.link.frames import LogLine
from kappa_core.spec import VersionSpec

_encode = msgspec.json.Encoder().encode


class FunctionLine(msgspec.Struct, frozen=True):
    time: str
    account: str
    region: str
    function: str
    version: str
    log_group: str
    log_stream: str
    request_id: str
    message: str


class FunctionLogs:
    """Formats and writes lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, spec: VersionSpec, lines: Sequence[LogLine], streams: Mapping[int, str]) -> None:
        """``streams`` are the log streams by the environment's number on its link."""
        text = "".join(_line(spec, line, streams.get(line.stream, "")) for line in lines)
        self._stream.write(text)
        self._stream.flush()


def _line(spec: VersionSpec, line: LogLine, stream: str) -> str:
    seconds, milliseconds = divmod(line.timestamp_ms, 1000)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"
    found = FunctionLine(
        stamp,
        spec.account,
        spec.region,
        spec.function_name,
        spec.version,
        spec.log_group,
        stream,
        line.request_id,
        line.message.rstrip("\n"),
    )
    return _encode(found).decode() + "\n"
