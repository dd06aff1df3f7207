"""What the worker notes with an event between two steps, as bytes in the queue: attempts, the end once it is decided, deliveries left.

The end is noted before the first delivery goes out. From then on the function is not run for this event any more, whatever crashes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kappa_core.rules.destination_record import Ending
from kappa_core.rules.retry import Attempts


class Delivery(msgspec.Struct, frozen=True):
    """Somebody who is to be told how the event ended."""

    kind: Literal["destination", "dead_letter"]
    arn: str


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """The last attempt that reached the function, or the error of one that did not."""

    executed_version: str = ""
    """Empty: it did not reach the function."""
    function_error: str = ""
    response: bytes = b""
    status: int = 200
    error_message: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """The note of one event."""

    turns: int = 0
    """How many leases have ended with a word of their holder."""
    attempts: Attempts = Attempts()
    last: Ran | None = None
    ending: Ending | None = None
    deliveries: tuple[Delivery, ...] = ()
    """Those that are still to be made."""
    delivery_attempts: int = 0
    trace_id: str = ""
    """Of an event that has ended: the trace header that goes on to a function that is told of it."""
    failed: tuple[str, ...] = ()
    """Why deliveries were given up; for people."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Progress).decode


def encode(progress: Progress) -> bytes:
    return _encode(progress)


def decode(note: bytes) -> Progress:
    """The note of an event that has none yet is that of one at its beginning."""
    return _decode(note) if note else Progress()
