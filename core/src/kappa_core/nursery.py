"""What a gateway and its nursery say to each other, and what a supervisor is told at its start. Embedded mode's inner contract.

The nursery (:mod:`kappa_runtime.nursery`) is the process that makes supervisors; the gateway's ProcessProvider starts it with one
end of a socket pair and sends commands as ``u32 length | msgpack``. Reports come back in the same form. End of file on the socket
means that the other side is gone. This module refuses to know how a process is made or watched.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from kappa_core.spec import VersionSpec

SandboxMode = Literal["auto", "namespaces", "plain"]
"""``namespaces``: functions see the real /var/task, /opt and /tmp; ``plain``: stand-in paths; ``auto``: the first if it works."""

MAX_MESSAGE: Final = 16 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")


class ControlError(Exception):
    """The other end of the control socket sent what is no message; the nursery ends, or is started anew."""


class SupervisorOptions(msgspec.Struct, frozen=True, kw_only=True):
    supervisor_id: str
    gateways: list[str]
    """Where to dial: ``unix:/path`` or ``tcp:host:port``."""
    work_dir: str
    """A directory of its own, which the supervisor makes, fills and removes."""
    spec: VersionSpec | None = None
    """None for a spare, which gets one by ASSIGN."""
    environment_ids: list[str] = []
    """Environments to begin at once, as if by START."""
    spare_for: str = ""
    """A spare's interpreter key, told to the gateway in HELLO."""
    command: tuple[str, ...] = ()
    """A spare's interpreter: its zygote is booted ahead of the ASSIGN. Empty: nothing is booted."""
    sandbox: SandboxMode = "auto"
    hidden: list[str] = []
    """Directories that functions must not see where sandboxes work: the gateway's data."""
    gone_seconds: float = 10.0
    """All gateways out of reach for this long: the supervisor ends."""
    token: str = ""


class Fork(msgspec.Struct, frozen=True, tag="fork"):
    """Make a supervisor."""

    options: SupervisorOptions


class Kill(msgspec.Struct, frozen=True, tag="kill"):
    """End a supervisor and all its descendants, now. Unknown ids are ignored: it has ended already."""

    supervisor_id: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The first message of a nursery."""

    pid: int
    forks: bool
    """Whether supervisors are forked (a few milliseconds) or spawned."""


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    supervisor_id: str
    pid: int


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A supervisor has ended (or could not be made: pid 0) and nothing that it started is alive any more."""

    supervisor_id: str
    pid: int
    reason: str
    """``exit 0``, ``exit 1``, ``signal 9`` or why it could not be made."""


Command = Fork | Kill
Report = Ready | Forked | Ended

_encode: Final = msgspec.msgpack.Encoder().encode
_COMMANDS: Final = msgspec.msgpack.Decoder(Command)
_REPORTS: Final = msgspec.msgpack.Decoder(Report)


def pack(message: Command | Report) -> bytes:
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


class MessageReader:
    """Cuts the byte stream of a control socket into message bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def _bodies(self, data: bytes) -> Iterator[bytes]:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > MAX_MESSAGE:
                raise ControlError(f"message of {length} bytes")
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            body = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            yield body

    def commands(self, data: bytes) -> Iterator[Command]:
        """Raises ControlError."""
        for body in self._bodies(data):
            try:
                yield _COMMANDS.decode(body)
            except msgspec.DecodeError as error:
                raise ControlError(str(error)) from error

    def reports(self, data: bytes) -> Iterator[Report]:
        """Raises ControlError."""
        for body in self._bodies(data):
            try:
                yield _REPORTS.decode(body)
            except msgspec.DecodeError as error:
                raise ControlError(str(error)) from error
