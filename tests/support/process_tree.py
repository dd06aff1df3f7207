"""Looks at running processes: who descends from whom, what they cost in CPU time and memory. Linux reads /proc, macOS asks ps.

Used by the tests to prove that nothing stays behind and by `bench/` to measure. It only reads; ending processes is the caller's.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_LINUX = platform.system() == "Linux"
_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    """0 where the platform does not tell."""
    state: str
    """The kernel's letter; Z is a zombie."""
    cpu_seconds: float
    """User and system time of all its threads, without its children; 0 where the platform does not tell."""


def become_subreaper() -> None:
    """Let orphaned descendants become children of this process instead of init's, so that `descendants` finds them (Linux)."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def table() -> dict[int, Process]:
    """Every process that can be seen, by pid."""
    if _LINUX:
        found = (_read(entry) for entry in _PROC.iterdir() if entry.name.isdigit())
        return {process.pid: process for process in found if process is not None}
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,state="], check=True, capture_output=True, text=True).stdout
    rows = (line.split(None, 2) for line in listed.splitlines())
    return {int(pid): Process(int(pid), int(parent), 0, state[:1], 0.0) for pid, parent, state in rows}


def _read(entry: Path) -> Process | None:
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended between being listed and being read
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    return Process(int(entry.name), int(fields[1]), int(fields[3]), fields[0], cpu)


def descendants(root: int, *, processes: dict[int, Process] | None = None) -> list[Process]:
    """Children of `root`, their children and so on; without `root` itself and without zombies."""
    known = table() if processes is None else processes
    children: dict[int, list[Process]] = defaultdict(list)
    for process in known.values():
        children[process.parent].append(process)
    found: list[Process] = []
    queue = [root]
    while queue:
        for child in children[queue.pop()]:
            found.append(child)
            queue.append(child.pid)
    return [process for process in found if process.state != "Z"]


def command(pid: int) -> str:
    """The command line of a process; empty when it is gone or the platform does not tell."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Memory(NamedTuple):
    """Bytes of a set of processes."""

    resident: int
    """Sum of resident sets: shared pages count once per process."""
    proportional: int
    """Sum of proportional sets: a shared page counts once in all, split among those that map it."""


def memory(pids: Iterable[int]) -> Memory:
    """Memory of the given processes (Linux); those that are gone count nothing."""
    resident = proportional = 0
    for pid in pids:
        try:
            rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        for line in rollup.splitlines():
            name, _, value = line.partition(":")
            if name == "Rss":
                resident += int(value.split()[0]) * 1024
            elif name == "Pss":
                proportional += int(value.split()[0]) * 1024
    return Memory(resident, proportional)
