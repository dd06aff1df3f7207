"""Reading a zip archive of a function or layer: what it contains, how big that really is, and AWS's sentence where it is refused.

Runs before anything is stored and again when a tree is unpacked. Sizes are measured by decompressing, never taken from headers, and
decompression stops at the limit; the number of entries is bounded before they are parsed. So a bomb costs at most the limit.
It refuses what AWS's ``unzip`` would not take (no zip, truncated, encrypted, compressed otherwise than by deflate) and what must
never reach a disk (:mod:`kappa_core.archives.paths`, devices, a name that is both a file and a folder).
"""

from __future__ import annotations

import calendar
import contextlib
import io
import logging
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from kappa_core.archives.paths import LINK_BYTES, Parts, UnsafePath, check_links, entry_parts
from kappa_core.errors import InvalidParameterValueException, RequestEntityTooLargeException
from kappa_core.limits import Limits

logger = logging.getLogger(__name__)

COULD_NOT_UNZIP: Final = "Could not unzip uploaded file. Please check your file, then try to upload again."
NOT_EMPTY: Final = "Uploaded file must be a non-empty zip"
ENTRIES: Final = 250_000
"""Our own bound on files and folders of one archive; the largest packages seen have a few ten thousand."""
CHUNK: Final = 256 * 1024

_END = struct.Struct("<4s4H2LH")  # end of central directory record, APPNOTE.TXT 4.3.16
_END_SIGNATURE = b"PK\5\6"
_ENTRY_SIGNATURE = b"PK\1\2"
_MADE_ON_UNIX = frozenset({3, 19})  # APPNOTE.TXT 4.4.2: UNIX and OS X (Darwin)
_MADE_ON_WINDOWS = frozenset({0, 10, 14})  # FAT, NTFS, VFAT
_NO_MODES = frozenset({0, 0o600})
"""Modes of archives without modes: none, and what Python's ``ZipFile.writestr`` puts where nobody asked for one."""
_ENCRYPTED = 0x1 | 0x40
_UTF8_NAME = 0x800
_EXTENDED_TIME = 0x5455  # Info-ZIP's UT field: modification time in UTC, by the second
_OLDEST = 315_532_800  # 1980-01-01, where the times of zip begin


class FileEntry(msgspec.Struct, frozen=True):
    info: zipfile.ZipInfo
    executable: bool
    modified: int
    """Epoch seconds. Python compares it with what a .pyc in the archive was made from."""


class Tree(msgspec.Struct, frozen=True):
    """What an archive unpacks to. Of several entries with one name the last one counts."""

    folders: frozenset[Parts]
    files: Mapping[Parts, FileEntry]
    links: Mapping[Parts, str]


@contextlib.contextmanager
def open_archive(source: bytes | Path) -> Iterator[zipfile.ZipFile]:
    """The archive, for use in a ``with`` block in which every way of being damaged becomes AWS's refusal."""
    try:
        with contextlib.ExitStack() as stack:
            file = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(source.open("rb"))
            _bound_entries(file)
            yield stack.enter_context(zipfile.ZipFile(file))
    except UnsafePath as error:
        logger.info("Refused an archive: %s", error)
        raise InvalidParameterValueException(COULD_NOT_UNZIP) from error
    except (
        # What zipfile and its decompressors raise on hostile input; the fuzz test knows of no other.
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        EOFError,
        UnicodeError,
        NotImplementedError,
        OverflowError,
        ValueError,
        RuntimeError,
    ) as error:
        logger.info("Refused an archive: %s: %s", type(error).__name__, error)
        raise InvalidParameterValueException(COULD_NOT_UNZIP) from error


def inspect(source: bytes | Path, *, limits: Limits) -> int:
    """Check an archive from end to end and return the bytes of its files. Raises AWS's refusals."""
    with open_archive(source) as archive:
        tree = read_tree(archive)
        if not tree.files:
            raise InvalidParameterValueException(NOT_EMPTY)
        if sum(info.file_size for info in archive.infolist()) > limits.unzipped_bytes:
            # A header may lie in both directions. One that says too much is refused here, one that says too little below.
            raise _too_large_unzipped(limits)
        size = 0
        for info in archive.infolist():
            for chunk in chunks(archive, info):
                size += len(chunk)
                if size > limits.unzipped_bytes:
                    raise _too_large_unzipped(limits)
        return size


def check_zipped_size(size: int, *, limits: Limits) -> None:
    """Refuse an archive in a request that is larger than AWS takes there."""
    if size > limits.zip_bytes:
        raise RequestEntityTooLargeException(f"Zipped size must be smaller than {limits.zip_bytes} bytes")


def chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of an entry, checked against its size and CRC."""
    size = 0
    with archive.open(info) as file:
        while chunk := file.read(CHUNK):
            size += len(chunk)
            yield chunk
    if size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename!r} has {size} bytes instead of {info.file_size}")


def read_tree(archive: zipfile.ZipFile) -> Tree:
    """What the archive unpacks to. To be called in :func:`open_archive`, which turns what this raises into AWS's refusal."""
    folders: set[Parts] = set()
    files: dict[Parts, FileEntry] = {}
    links: dict[Parts, str] = {}
    for info in archive.infolist():
        if info.flag_bits & _ENCRYPTED:
            raise zipfile.BadZipFile(f"{info.filename!r} is encrypted")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise zipfile.BadZipFile(f"{info.filename!r} is compressed by method {info.compress_type}")
        made_on_windows = info.create_system in _MADE_ON_WINDOWS
        name = _name(info)
        parts = entry_parts(name, backslashes_separate=made_on_windows)
        if not parts:
            continue  # "./", the root itself
        mode = info.external_attr >> 16 if info.create_system in _MADE_ON_UNIX else 0
        kind = stat.S_IFMT(mode)
        if name.endswith("/") or (made_on_windows and name.endswith("\\")) or kind == stat.S_IFDIR:
            _add_folders(folders, parts, taken=len(files) + len(links))
            continue
        _add_folders(folders, parts[:-1], taken=len(files) + len(links))
        files.pop(parts, None)
        links.pop(parts, None)
        if kind == stat.S_IFLNK:
            links[parts] = _link_target(archive, info)
        elif kind in {0, stat.S_IFREG}:
            executable = bool(mode & 0o111) if mode not in _NO_MODES else _executable_without_mode(parts)
            files[parts] = FileEntry(info, executable=executable, modified=_modified(info))
        else:
            raise UnsafePath(f"{name!r} is a device, pipe or socket")
    for parts in folders:
        if parts in files or parts in links:
            raise UnsafePath(f"{'/'.join(parts)!r} is both a file and a folder")
    check_links(links)
    return Tree(folders=frozenset(folders), files=files, links=links)


def _add_folders(folders: set[Parts], parts: Parts, *, taken: int) -> None:
    while parts and parts not in folders:
        folders.add(parts)
        parts = parts[:-1]
        if len(folders) + taken > ENTRIES:
            raise UnsafePath(f"more than {ENTRIES} files and folders")


def _executable_without_mode(parts: Parts) -> bool:
    # Archives made on Windows or by Java carry no modes, and yet these must run (custom runtimes, extensions).
    return parts == ("bootstrap",) or (len(parts) == 2 and parts[0] == "extensions")


def _name(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _UTF8_NAME:
        return info.orig_filename
    # Without the flag zipfile assumes code page 437, but macOS and others write UTF-8 and do not say so.
    try:
        return info.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.orig_filename


def _link_target(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    if info.file_size > LINK_BYTES:
        raise UnsafePath(f"link {info.filename!r} is too long")
    target = b"".join(chunks(archive, info)).decode()
    if not target or "\0" in target:
        raise UnsafePath(f"link {info.filename!r} to {target!r}")
    return target


def _modified(info: zipfile.ZipInfo) -> int:
    extra = info.extra
    while len(extra) >= 4:
        header, size = struct.unpack_from("<HH", extra)
        if header == _EXTENDED_TIME and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            return max(0, int(struct.unpack_from("<i", extra, 5)[0]))
        extra = extra[4 + size :]
    try:
        return max(_OLDEST, calendar.timegm((*info.date_time, 0, 0, 0)))
    except (ValueError, OverflowError):  # month 0, as tools write that leave the time out
        return _OLDEST


def _bound_entries(file: io.BufferedIOBase) -> None:
    """Refuse too many entries before zipfile makes an object of each."""
    length = file.seek(0, io.SEEK_END)
    if not length:
        raise InvalidParameterValueException(NOT_EMPTY)
    begin = max(0, length - _END.size - 0xFFFF)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(_END_SIGNATURE)
    if at < 0 or len(tail) - at < _END.size:
        raise zipfile.BadZipFile("no end of central directory")
    directory_size = _END.unpack_from(tail, at)[5]
    # 0xFFFFFFFF: the size is in a zip64 record; then everything before it is looked through.
    first = max(0, begin + at - directory_size - 128) if directory_size != 0xFFFFFFFF else 0
    file.seek(first)
    found, kept = 0, b""
    while chunk := file.read(CHUNK):
        found += (kept + chunk).count(_ENTRY_SIGNATURE)
        kept = chunk[-3:]
        if found > ENTRIES:
            raise UnsafePath(f"more than {ENTRIES} entries")
    file.seek(0)


def _too_large_unzipped(limits: Limits) -> InvalidParameterValueException:
    return InvalidParameterValueException(f"Unzipped size must be smaller than {limits.unzipped_bytes} bytes")
