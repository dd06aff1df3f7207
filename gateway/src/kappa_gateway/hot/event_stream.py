"""``application/vnd.amazon.eventstream``: one event as bytes. Pure; :mod:`kappa_gateway.hot.stream` decides what is sent when.

A message is

    u32 total length | u32 length of the headers | u32 CRC of these eight bytes | headers | payload | u32 CRC of everything before

and a header ``u8 length | name | u8 type | u16 length | value``, of which only type 7, a string, is needed here. Numbers are big-endian,
the CRC is zlib's. Source: smithy.io/2.0/aws/amazon-eventstream.html. It refuses to read: nobody streams events to Lambda.
"""

from __future__ import annotations

from struct import Struct
from typing import Final
from zlib import crc32

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"

_PRELUDE: Final = Struct(">II")
_U32: Final = Struct(">I")
_STRING: Final = 7
_FRAME_BYTES: Final = 16
"""Prelude with its CRC, and the CRC at the end."""


class EventType:
    """One type of event: its headers are encoded once, so that an event costs two checksums and a copy."""

    __slots__ = ("_headers",)

    def __init__(self, name: str, *, content_type: str) -> None:
        headers = ((":event-type", name), (":content-type", content_type), (":message-type", "event"))
        self._headers = b"".join(_header(*header) for header in headers)

    def encode(self, payload: bytes) -> bytes:
        """The event with this payload. SDKs take up to 16 MiB in one; cutting is the caller's."""
        headers = self._headers
        prelude = _PRELUDE.pack(_FRAME_BYTES + len(headers) + len(payload), len(headers))
        start = prelude + _U32.pack(crc32(prelude)) + headers
        return b"".join((start, payload, _U32.pack(crc32(payload, crc32(start)))))


def _header(name: str, value: str) -> bytes:
    encoded_name, encoded_value = name.encode(), value.encode()
    return b"".join(
        (bytes((len(encoded_name),)), encoded_name, bytes((_STRING,)), len(encoded_value).to_bytes(2, "big"), encoded_value)
    )
