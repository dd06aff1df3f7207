"""How much memory a runtime and its descendants use, and who goes over the limit.

Read from /proc with descriptors kept open: sampling must cost microseconds, because a REPORT line follows every invocation. The
peak of the runtime itself comes from the kernel (VmHWM), at most ten times a second; descendants are counted while something runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import Final

_PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") // 1024
_PEAK: Final = re.compile(rb"VmHWM:\s+(\d+) kB")
_SHARE: Final = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)
PEAK_SECONDS: Final = 0.1


class MemoryMeter:
    """Of one runtime process. Figures in KiB; on machines without /proc only what the end of the process reveals."""

    __slots__ = ("_children", "_next", "_status", "peak_kib", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_kib = 0
        self._next = 0.0
        self._status = self._children = -1
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._status = os.open(f"/proc/{pid}/status", os.O_RDONLY)
                self._children = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY)

    def sample(self, now: float) -> int:
        """The peak so far; cheap enough for every invocation."""
        if now >= self._next and self._status >= 0:
            self._next = now + PEAK_SECONDS
            self._read_peak()
        return self.peak_kib

    def _read_peak(self) -> None:
        with contextlib.suppress(OSError):  # ESRCH: it has ended
            found = _PEAK.search(os.pread(self._status, 4096, 0))
            if found is not None:
                self.peak_kib = max(self.peak_kib, int(found[1]))

    def usage(self) -> int:
        """What the runtime and its descendants hold now."""
        below: list[bytes] = []
        if self._children >= 0:
            with contextlib.suppress(OSError):
                below = os.pread(self._children, 65536, 0).split()
        total = _tree_kib(self.pid) if below else resident_kib(self.pid)
        self.peak_kib = max(self.peak_kib, total)
        return total

    def close(self) -> None:
        for fd in (self._status, self._children):
            if fd >= 0:
                os.close(fd)
        self._status = self._children = -1


def resident_kib(pid: int) -> int:
    """Resident set; 0 if it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
    except OSError:
        return 0
    try:
        return int(os.read(fd, 128).split()[1]) * _PAGE_KIB
    except (OSError, IndexError):
        return 0
    finally:
        os.close(fd)


def _proportional_kib(pid: int) -> int:
    """Its share of memory: forks share pages, and a page counts once."""
    try:
        fd = os.open(f"/proc/{pid}/smaps_rollup", os.O_RDONLY)
    except OSError:
        return resident_kib(pid)
    try:
        found = _SHARE.search(os.read(fd, 4096))
    except OSError:
        return 0
    finally:
        os.close(fd)
    return int(found[1]) if found is not None else 0


def _tree_kib(pid: int, depth: int = 32) -> int:
    total = _proportional_kib(pid)
    if depth:
        try:
            fd = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY)
        except OSError:
            return total
        try:
            below = os.read(fd, 65536).split()
        except OSError:
            below = []
        finally:
            os.close(fd)
        total += sum(_tree_kib(int(child), depth - 1) for child in below)
    return total
