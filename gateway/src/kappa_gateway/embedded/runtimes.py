"""Which language runtimes this machine has: interpreters on PATH, found by running them.

The settler asks before a function becomes Active, the spec builder asks for the command of its supervisor. Nothing is looked for
before the first question, and only what the question needs: a version manager's shims cost a process each. What an executable is
was found out once and is kept beside the data (by path, inode and modification time); scripts, such as those shims, change their
mind without changing, so they are always run. It refuses to guess: a name on PATH that does not run is no runtime, and neither is
one that says another version than its name.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal

import msgspec

Language = Literal["python", "nodejs"]

PROBE_SECONDS: Final = 5.0
"""An interpreter that has not said its version by then is none."""
AT_ONCE: Final = 4
"""Interpreters run at the same time."""
FORGET_SECONDS: Final = 5.0
"""What was not found is looked for again after this long: it may have been installed meanwhile."""

_TITLES: Final[dict[Language, str]] = {"python": "Python", "nodejs": "Node.js"}
_FIRST: Final[dict[Language, tuple[int, int]]] = {"python": (3, 9), "nodejs": (18, 0)}
"""The oldest versions that Kappa's bootstraps run on."""
_PYTHON_MINORS: Final = range(9, 17)
_NODE_MAJORS: Final = range(18, 33)

# Each prints the real interpreter (behind shims, links and virtualenvs) and its version. -I -S: nothing of the user's is imported.
_PYTHON_PROBE: Final = (
    "import sys; print(getattr(sys, '_base_executable', None) or sys.executable); "
    "print('%d.%d.%d' % sys.version_info[:3], sys.implementation.name)"
)
_PROBES: Final[dict[Language, tuple[str, ...]]] = {
    "python": ("-I", "-S", "-c", _PYTHON_PROBE),
    "nodejs": ("-p", "process.execPath + '\\n' + process.versions.node + ' node'"),
}


class Runtime(msgspec.Struct, frozen=True):
    """One interpreter that runs."""

    language: Language
    version: tuple[int, int, int]
    path: str
    """The executable itself, not a link or shim to it where the interpreter knows better."""

    def __str__(self) -> str:
        return f"{_TITLES[self.language]} {'.'.join(map(str, self.version))} ({self.path})"


class _Wanted(msgspec.Struct, frozen=True):
    """A runtime identifier, taken apart."""

    language: Language
    number: tuple[int, ...]
    """(3, 12) of python3.12, (20,) of nodejs20.x."""

    def matches(self, found: Runtime) -> bool:
        return found.language == self.language and found.version[: len(self.number)] == self.number

    def distance(self, found: Runtime) -> tuple[bool, int]:
        """Orders stand-ins: newer ones first (old code mostly runs on them), each way the nearest first."""
        step = found.version[len(self.number) - 1] - self.number[-1]
        return (step < 0, abs(step))


class _Known(msgspec.Struct, frozen=True):
    """What running an executable has shown, and the file it was."""

    inode: int
    modified_ns: int
    size: int
    runtime: Runtime | None

    def is_of(self, stat: os.stat_result) -> bool:
        return (self.inode, self.modified_ns, self.size) == (stat.st_ino, stat.st_mtime_ns, stat.st_size)


def parse(runtime: str) -> _Wanted | None:
    """Take ``python3.12`` or ``nodejs20.x`` apart; None for every other runtime."""
    if match := re.fullmatch(r"python(\d+)\.(\d+)", runtime):
        return _Wanted("python", (int(match[1]), int(match[2])))
    if match := re.fullmatch(r"nodejs(\d+)\.x", runtime):
        return _Wanted("nodejs", (int(match[1]),))
    return None


def choose(wanted: _Wanted, found: Iterable[Runtime], *, nearest: bool) -> Runtime | None:
    """The first that matches, else with ``nearest`` the closest one of the same major line of Python or any Node.js."""
    candidates = [one for one in found if one.language == wanted.language and one.version[:2] >= _FIRST[wanted.language]]
    for one in candidates:
        if wanted.matches(one):
            return one
    return min(candidates, key=wanted.distance) if nearest and candidates else None


def reason(runtime: str, found: Iterable[Runtime], *, nearest: bool) -> str:
    """The sentence for a function's StateReason."""
    wanted = parse(runtime)
    if wanted is None:
        return f"Kappa cannot run {runtime} functions: it runs python3.9 and later, nodejs18.x and later, and provided runtimes."
    title = _TITLES[wanted.language]
    oldest = ".".join(map(str, _FIRST[wanted.language])).removesuffix(".0")
    if (*wanted.number, 0)[:2] < _FIRST[wanted.language] and not nearest:
        return f"Kappa cannot run {runtime} functions: it needs {title} {oldest} or later. {_SETTING}"
    there = sorted({str(one) for one in found if one.language == wanted.language})
    what = f"found {', '.join(there)}" if there else f"there is no {title} {oldest} or later on PATH"
    asked = f"{title} {'.'.join(map(str, wanted.number))}"
    ending = "" if nearest or not there else f", or let one of these stand in for it. {_SETTING}"
    return f"{runtime} is not installed: {what}. Put {asked} on the PATH that Kappa is started with{ending or '.'}"


_SETTING: Final = "KAPPA_NEAREST_RUNTIME=true runs functions on the nearest version there is."


class Runtimes:
    """Answers for one PATH. Thread-safe; the plain methods may run processes, `look` does that off the event loop.

    Parameters
    ----------
    cache
        Directory for what was found out; None keeps nothing.
    nearest
        Whether another version of the same language may stand in.
    path
        Search path; by default that of this process.
    """

    def __init__(
        self,
        *,
        cache: Path | None,
        nearest: bool,
        path: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = None if cache is None else cache / "runtimes.json"
        self._nearest = nearest
        self._path = os.environ.get("PATH", os.defpath) if path is None else path
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] | None = None
        self._scripts: dict[str, tuple[Runtime | None, float]] = {}
        self._answers: dict[str, tuple[Runtime | str, float]] = {}

    async def look(self, runtime: str) -> None:
        """Find out about a runtime in a thread, so that the plain methods answer at once afterwards."""
        if self._remembered(runtime) is None and parse(runtime) is not None:
            await asyncio.to_thread(self.find, runtime)

    def available(self, runtime: str) -> str | None:
        """None where functions of this runtime can run, else one sentence that says why not and what was found instead."""
        found = self.find(runtime)
        return found if isinstance(found, str) else None

    def command(self, runtime: str) -> tuple[str, ...] | str:
        """The interpreter's command (empty for provided runtimes), or the same sentence."""
        found = self.find(runtime)
        if isinstance(found, Runtime):
            return (found.path,)
        return found or ()

    def find(self, runtime: str) -> Runtime | str | None:
        """The interpreter, the sentence that says why there is none, or None where no interpreter is needed."""
        if re.fullmatch(r"provided(\.al\d+)?", runtime):
            return None
        wanted = parse(runtime)
        if wanted is None:
            return reason(runtime, (), nearest=self._nearest)
        remembered = self._remembered(runtime)
        if remembered is not None:
            return remembered
        with self._lock:
            remembered = self._remembered(runtime)
            if remembered is None:
                remembered = self._search(runtime, wanted)
                self._answers[runtime] = (remembered, self._clock())
        return remembered

    def _remembered(self, runtime: str) -> Runtime | str | None:
        found, at = self._answers.get(runtime, (None, 0.0))
        if isinstance(found, Runtime):
            return found if os.access(found.path, os.X_OK) else None  # uninstalled meanwhile
        return found if self._clock() - at < FORGET_SECONDS else None

    def _search(self, runtime: str, wanted: _Wanted) -> Runtime | str:
        own = _own_interpreter()
        if wanted.matches(own):
            return own
        number = ".".join(map(str, wanted.number))
        exact = [f"python{number}"] if wanted.language == "python" else [f"node{number}", f"node-{number}", f"nodejs{number}"]
        plain = ["python3", "python"] if wanted.language == "python" else ["node", "nodejs"]
        for names in (exact, plain):
            found = choose(wanted, self._run(wanted.language, names), nearest=False)
            if found is not None:
                return found
        everything = [
            *self._run(wanted.language, [*_all_names(wanted.language), *plain]),
            *([own] if wanted.language == "python" else []),
        ]
        return choose(wanted, everything, nearest=self._nearest) or reason(runtime, everything, nearest=self._nearest)

    # -- running what is on PATH -------------------------------------------------------------------------------------

    def _run(self, language: Language, names: Iterable[str]) -> list[Runtime]:
        """What the executables of these names are, in the order of names and PATH, each once."""
        files = _on_path(names, self._path)
        if self._known is None:
            self._known = _read_cache(self._file)
        known, now = self._known, self._clock()
        found = {path: one.runtime for path, stat in files.items() if (one := known.get(path)) is not None and one.is_of(stat)}
        found |= {
            path: self._scripts[path][0] for path in files if now - self._scripts.get(path, (None, -math.inf))[1] < FORGET_SECONDS
        }
        unknown = [path for path in files if path not in found]
        if unknown:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="kappa-probe") as pool:
                found |= zip(unknown, pool.map(lambda path: _probe(language, path), unknown), strict=True)
            for path in unknown:
                if _is_script(path):
                    self._scripts[path] = (found[path], self._clock())
                else:
                    stat = files[path]
                    known[path] = _Known(stat.st_ino, stat.st_mtime_ns, stat.st_size, found[path])
            _write_cache(self._file, known)
        here = [found[path] for path in files]
        return list(dict.fromkeys(one for one in here if one is not None and one.language == language))


def _own_interpreter() -> Runtime:
    """The Python that runs Kappa, outside of its virtualenv."""
    path = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    return Runtime("python", (sys.version_info.major, sys.version_info.minor, sys.version_info.micro), path)


def _all_names(language: Language) -> list[str]:
    if language == "python":
        return [f"python3.{minor}" for minor in _PYTHON_MINORS]
    return [f"{name}{major}" for major in _NODE_MAJORS for name in ("node", "node-", "nodejs")]


def _on_path(names: Iterable[str], path: str) -> dict[str, os.stat_result]:
    """Executable files of these names; one that has two names (links, /bin and /usr/bin) counts once."""
    folders = [folder for folder in path.split(os.pathsep) if folder.startswith("/")]
    found: dict[str, os.stat_result] = {}
    seen: set[tuple[int, int]] = set()
    for name in names:
        for folder in folders:
            file = f"{folder}/{name}"
            try:
                stat = os.stat(file)  # noqa: PTH116 - many of them; a Path each is what would cost
            except OSError:
                continue
            if (stat.st_dev, stat.st_ino) not in seen and os.access(file, os.X_OK) and not os.path.isdir(file):  # noqa: PTH112
                seen.add((stat.st_dev, stat.st_ino))
                found[file] = stat
    return found


def _is_script(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return True  # unreadable: nothing to remember it by


def _probe(language: Language, path: str) -> Runtime | None:
    """Run it. Only CPython counts as Python: the SDK folder and the zygote are made for it."""
    try:
        done = subprocess.run(
            [path, *_PROBES[language]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=True,
            text=True,
            errors="replace",
            cwd="/",  # version managers choose by the working directory; functions do not run in the developer's
            env=_probe_environment(os.environ),
        )
        executable, about = done.stdout.strip().splitlines()[-2:]
        number, _, implementation = about.partition(" ")
        major, minor, micro = (int(part) for part in number.split(".")[:3])
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if implementation not in {"cpython", "node"} or not os.access(executable, os.X_OK):
        return None
    return Runtime(language, (major, minor, micro), os.path.realpath(executable))


def _probe_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's own, since shims need much of it, without what changes how an interpreter starts."""
    return {name: value for name, value in environment.items() if not name.startswith(("PYTHON", "NODE_"))}


def _read_cache(file: Path | None) -> dict[str, _Known]:
    if file is None:
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, _Known])
    except (OSError, msgspec.DecodeError):
        return {}  # missing, unreadable or of another version of Kappa: it is found out again


def _write_cache(file: Path | None, known: Mapping[str, _Known]) -> None:
    if file is None:
        return
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".runtimes-")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.encode(known))
        os.replace(name, file)  # noqa: PTH105 - both are plain names
    except OSError:
        return  # a full disk costs the next start some time, nothing else
