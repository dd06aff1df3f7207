"""Finding runtimes on PATH: what counts as one, which is taken, what is remembered, and what the reason says when there is none."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest

from kappa_gateway.embedded import runtimes
from kappa_gateway.embedded.runtimes import Runtime, Runtimes, choose, parse, reason
from node_function import node, node_version

OWN = f"python{sys.version_info.major}.{sys.version_info.minor}"


class Machine:
    """Folders on PATH with pretended interpreters that note how often they ran."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 0.0
        self.folders: list[Path] = []

    @property
    def path(self) -> str:
        return os.pathsep.join(map(str, self.folders))

    def put(self, name: str, *, says: str = "", code: int = 0, folder: str = "bin", script: bool = True) -> Path:
        """An executable that prints ``says`` (version and implementation) behind its own path."""
        place = self.root / folder
        place.mkdir(exist_ok=True)
        if place not in self.folders:
            self.folders.append(place)
        file = place / name
        body = f"echo ran >> {self.root}/ran.{name}\n" + (f"echo {file}\necho {says}\n" if says else "") + f"exit {code}\n"
        # The kernel takes only "#!" for a script; sh also runs a file without it, which stands for a compiled program here.
        file.write_text(f"#!/bin/sh\n{body}" if script else body)
        file.chmod(0o755)
        return file

    def runs(self, name: str) -> int:
        file = self.root / f"ran.{name}"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def runtimes(self, *, nearest: bool = False, cache: Path | None = None) -> Runtimes:
        return Runtimes(cache=cache, nearest=nearest, path=self.path, clock=lambda: self.now)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def found(machine: Machine, runtime: str, *, nearest: bool = False) -> str | None:
    """File name of the interpreter, or None."""
    answer = machine.runtimes(nearest=nearest).find(runtime)
    return Path(answer.path).name if isinstance(answer, Runtime) else None


def test_the_name_with_the_version_comes_before_the_plain_one(machine: Machine) -> None:
    machine.put("python3", says="3.9.2 cpython")
    machine.put("python3.9", says="3.9.1 cpython", folder="later")
    assert found(machine, "python3.9") == "python3.9"


@pytest.mark.parametrize(
    ("runtime", "name", "says"),
    [("python3.9", "python3", "3.9.2 cpython"), ("python3.10", "python", "3.10.0 cpython"), ("nodejs20.x", "node", "20.1.0 node"),
     ("nodejs22.x", "nodejs", "22.11.0 node"), ("nodejs22.x", "node22", "22.11.0 node"), ("nodejs18.x", "node-18", "18.0.0 node")],
)  # fmt: skip
def test_a_name_counts_when_its_version_fits(machine: Machine, runtime: str, name: str, says: str) -> None:
    machine.put(name, says=says)
    assert found(machine, runtime) == name
    assert machine.runtimes().available(runtime) is None


@pytest.mark.parametrize(
    ("says", "code"),
    [("", 127), ("3.9.1 cpython", 1), ("nonsense", 0), ("3.9.1 pypy", 0), ("3.8.1 cpython", 0), ("3.x.1 cpython", 0)],
    ids=["shim-that-does-not-run", "fails", "says-nonsense", "pypy", "another-version", "no-version"],
)
def test_what_does_not_run_as_the_version_asked_for_is_no_runtime(machine: Machine, says: str, code: int) -> None:
    machine.put("python3.9", says=says, code=code)
    assert found(machine, "python3.9") is None
    machine.put("python3", says="3.9.7 cpython", folder="later")
    assert found(machine, "python3.9") == "python3"


def test_one_that_hangs_is_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "PROBE_SECONDS", 0.05)
    machine.put("node").write_text("#!/bin/sh\nexec sleep 60\n")
    assert found(machine, "nodejs20.x") is None


def test_a_file_that_cannot_be_executed_and_a_folder_are_passed_over(machine: Machine) -> None:
    machine.put("node", says="20.0.0 node").chmod(0o644)
    (machine.root / "bin" / "nodejs").mkdir()
    assert found(machine, "nodejs20.x") is None


def test_the_interpreter_of_kappa_is_known_without_running_anything(machine: Machine) -> None:
    machine.put(OWN, says="9.9.9 cpython")
    command = machine.runtimes().command(OWN)
    assert isinstance(command, tuple)
    assert Path(command[0]).exists()
    assert machine.runs(OWN) == 0


def test_the_real_nodejs_of_this_machine_is_found_by_its_version() -> None:
    executable = node()
    major, minor = node_version(executable)
    answer = Runtimes(cache=None, nearest=False, path=str(Path(executable).parent)).find(f"nodejs{major}.x")
    assert isinstance(answer, Runtime)
    assert answer.version[:2] == (major, minor)


def test_provided_runtimes_need_nothing(machine: Machine) -> None:
    for runtime in ("provided", "provided.al2", "provided.al2023"):
        assert machine.runtimes().available(runtime) is None
        assert machine.runtimes().command(runtime) == ()


@pytest.mark.parametrize("runtime", ["java21", "ruby3.3", "dotnet8", "go1.x", "provided.al9x", ""])
def test_other_languages_are_refused_by_name(machine: Machine, runtime: str) -> None:
    for nearest in (False, True):
        text = machine.runtimes(nearest=nearest).available(runtime)
        assert text == (
            f"Kappa cannot run {runtime} functions: it runs python3.9 and later, nodejs18.x and later, and provided runtimes."
        )
        assert machine.runtimes().command(runtime) == text


class TestReasons:
    def test_names_what_was_found(self, machine: Machine) -> None:
        file = machine.put("node", says="20.1.2 node")
        assert machine.runtimes().available("nodejs22.x") == (
            f"nodejs22.x is not installed: found Node.js 20.1.2 ({file}). Put Node.js 22 on the PATH that Kappa is started with, "
            "or let one of these stand in for it. KAPPA_NEAREST_RUNTIME=true runs functions on the nearest version there is."
        )

    def test_says_when_there_is_none_at_all(self, machine: Machine) -> None:
        assert machine.runtimes().available("nodejs22.x") == (
            "nodejs22.x is not installed: there is no Node.js 18 or later on PATH. "
            "Put Node.js 22 on the PATH that Kappa is started with."
        )

    def test_says_when_a_version_is_too_old_to_run_at_all(self, machine: Machine) -> None:
        machine.put("python3.8", says="3.8.1 cpython")
        assert machine.runtimes().available("python3.8") == reason("python3.8", (), nearest=False)
        assert "it needs Python 3.9 or later" in reason("python3.8", (), nearest=False)


def at(*versions: str) -> list[Runtime]:
    found = []
    for text in versions:
        major, minor = (int(part) for part in text.split("."))
        found.append(Runtime("python" if major == 3 else "nodejs", (major, minor, 0), f"/bin/{text}"))
    return found


@pytest.mark.parametrize(
    ("runtime", "there", "taken"),
    [
        ("python3.12", ["3.9", "3.13", "3.14"], "3.13"),
        ("python3.12", ["3.9", "3.11"], "3.11"),
        ("python3.12", ["3.11", "3.14"], "3.14"),
        ("python3.8", ["3.9", "3.11"], "3.9"),
        ("python3.12", ["3.8"], None),
        ("python3.12", ["20.0"], None),
        ("nodejs22.x", ["18.1", "20.5"], "20.5"),
        ("nodejs16.x", ["16.1", "20.5"], "20.5"),
        ("nodejs20.x", ["22.1", "18.1", "20.5"], "20.5"),
    ],
)
def test_the_nearest_is_the_closest_newer_one_else_the_closest_older_one(
    runtime: str, there: list[str], taken: str | None
) -> None:
    wanted = parse(runtime)
    assert wanted is not None
    stand_in = choose(wanted, at(*there), nearest=True)
    assert (stand_in and stand_in.path) == (taken and f"/bin/{taken}")
    strict = choose(wanted, at(*there), nearest=False)
    assert strict is None or wanted.matches(strict)


def test_another_version_stands_in_only_when_allowed(machine: Machine) -> None:
    machine.put("node", says="20.1.2 node")
    assert found(machine, "nodejs22.x") is None
    assert found(machine, "nodejs22.x", nearest=True) == "node"


class TestMemory:
    def test_a_program_is_run_once_for_all_starts_until_it_changes(
        self, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runtimes, "_is_script", lambda _path: False)  # what stands for programs here are scripts
        machine.put("node", says="20.1.2 node")
        for _ in range(3):
            assert machine.runtimes(cache=tmp_path).available("nodejs20.x") is None
        assert machine.runs("node") == 1
        machine.put("node", says="22.11.22 node")
        assert machine.runtimes(cache=tmp_path).available("nodejs20.x") is not None
        assert machine.runtimes(cache=tmp_path).available("nodejs22.x") is None
        assert machine.runs("node") == 2

    def test_a_script_is_run_at_every_start(self, machine: Machine, tmp_path: Path) -> None:
        shim = machine.put("node")
        shim.write_text(f"#!/bin/sh\n[ -e {tmp_path}/chosen ] || exit 127\necho {shim}\necho 20.1.2 node\n")
        assert machine.runtimes(cache=tmp_path).available("nodejs20.x") is not None
        (tmp_path / "chosen").touch()
        assert machine.runtimes(cache=tmp_path).available("nodejs20.x") is None

    def test_what_was_not_found_is_looked_for_again_a_little_later(self, machine: Machine) -> None:
        machine.put("unrelated")
        here = machine.runtimes()
        assert here.available("nodejs20.x") is not None
        machine.put("node", says="20.1.2 node")
        assert here.available("nodejs20.x") is not None
        machine.now += runtimes.FORGET_SECONDS
        assert here.available("nodejs20.x") is None

    def test_what_was_uninstalled_is_no_longer_offered(self, machine: Machine) -> None:
        file = machine.put("node", says="20.1.2 node")
        here = machine.runtimes()
        assert here.available("nodejs20.x") is None
        file.unlink()
        assert here.available("nodejs20.x") is not None

    @pytest.mark.parametrize("content", [b"", b"{", b'{"/bin/node": 1}', b"\xff"])
    def test_a_damaged_cache_is_no_obstacle(self, machine: Machine, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "runtimes.json").write_bytes(content)
        machine.put("node", says="20.1.2 node")
        assert machine.runtimes(cache=tmp_path).available("nodejs20.x") is None

    def test_neither_is_one_that_cannot_be_written(self, machine: Machine, tmp_path: Path) -> None:
        machine.put("node", says="20.1.2 node")
        assert machine.runtimes(cache=tmp_path / "absent").available("nodejs20.x") is None


def test_looking_ahead_leaves_the_loop_free_and_the_answer_ready(machine: Machine) -> None:
    machine.put("node", says="20.1.2 node")
    here = machine.runtimes()
    turns = 0

    async def scenario() -> None:
        nonlocal turns
        look = asyncio.create_task(here.look("nodejs20.x"))
        while not look.done():
            turns += 1
            await asyncio.sleep(0)
        await here.look("java21")

    asyncio.run(scenario())
    assert turns > 1
    assert machine.runs("node") == 1
    assert here.available("nodejs20.x") is None
    assert machine.runs("node") == 1


def test_questions_at_once_run_an_interpreter_once(machine: Machine) -> None:
    machine.put("node", says="20.1.2 node")
    here = machine.runtimes()
    threads = [threading.Thread(target=here.available, args=("nodejs20.x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert machine.runs("node") == 1
