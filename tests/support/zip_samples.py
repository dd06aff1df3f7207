"""Zip archives for tests: ordinary ones, and ones that no honest tool writes."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping

UNIX, WINDOWS = 3, 0


def entry(
    name: str, *, mode: int | None = 0o100644, system: int = UNIX, modified: tuple[int, ...] = (2024, 2, 3, 4, 5, 6)
) -> zipfile.ZipInfo:
    """An entry with Unix ``mode``; None for archives without modes."""
    info = zipfile.ZipInfo("placeholder", modified)  # type: ignore[arg-type]  # six numbers
    info.filename = name  # as given: the constructor would repair it
    info.create_system = system
    info.external_attr = 0 if mode is None else mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def link(name: str) -> zipfile.ZipInfo:
    return entry(name, mode=stat.S_IFLNK | 0o777)


def archive(*entries: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        warnings.simplefilter("ignore")  # of duplicate names, which some tests want
        for name, content in entries:
            target.writestr(entry(name) if isinstance(name, str) else name, content)
    return buffer.getvalue()


def files(contents: Mapping[str, str]) -> bytes:
    return archive(*((name, content.encode()) for name, content in contents.items()))


def overlapping(count: int, *, size: int) -> bytes:
    """``count`` entries that all point at one stream of ``size`` zero bytes, as in David Fifield's zip bombs."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = compressor.compress(bytes(size)) + compressor.flush()
    crc = zlib.crc32(bytes(size))
    name = b"zeros"
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0x21, crc, len(stream), size, len(name), 0) + name + stream
    central = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0x21, crc, len(stream), size, len(name), 0, 0, 0, 0, 0, 0) + name
        for _ in range(count)
    )
    return local + central + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(central), len(local), 0)


def with_claimed_size(data: bytes, size: int) -> bytes:
    """The archive of one entry with another uncompressed size in both of its headers."""
    changed = bytearray(data)
    struct.pack_into("<L", changed, data.index(b"PK\3\4") + 22, size)
    struct.pack_into("<L", changed, data.index(b"PK\1\2") + 24, size)
    return bytes(changed)
