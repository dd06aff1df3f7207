"""Processes by kinship on Linux: adopting orphans, listing children, and ending a whole line of descent.

The nursery uses it to leave nothing behind when a supervisor dies. A process may detach from its session and its group as it
likes; it stays a descendant, and when its parent dies the nearest subreaper above becomes its parent. Elsewhere than on Linux
none of this exists and the functions do nothing or find nobody: there, process groups have to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC: Final = Path("/proc")


def adopt_orphans() -> None:
    """Make this process the one that descendants without a parent are handed to (Linux ≥ 3.4)."""
    # The first process of a container is that one anyway, and has no time to lose.
    if sys.platform != "linux" or os.getpid() == 1:
        return
    import ctypes  # noqa: PLC0415 - see above

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children(pid: int) -> set[int]:
    """Direct children of a process, zombies included; empty if it is gone or this is not Linux."""
    found: set[int] = set()
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            found.update(map(int, (task / "children").read_text(encoding="ascii").split()))
    except (FileNotFoundError, ProcessLookupError):
        # The process has gone, or the kernel was built without CONFIG_PROC_CHILDREN (gVisor has none either).
        return _children_by_search(pid)
    return found


def _children_by_search(pid: int) -> set[int]:
    found: set[int] = set()
    if not _PROC.is_dir():
        return found
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                # "pid (name) state ppid ...": the name may hold spaces and parentheses.
                after_name = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                if int(after_name[1]) == pid:
                    found.add(int(entry.name))
    return found


def descendants(pid: int) -> set[int]:
    """All generations below a process, as far as they can be seen at this moment."""
    found: set[int] = set()
    generation = children(pid)
    while generation:
        found |= generation
        generation = {below for one in generation for below in children(one)} - found
    return found


def kill_all(pids: set[int]) -> None:
    """SIGKILL, for those that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
