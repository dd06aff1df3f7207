"""Real gateway processes: what is left of one that was killed, and two that share environments under one exact limit."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bare_gateway import python_spec
from kappa_core.spec import VersionSpec
from kappa_runtime.nursery import descent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are counted through /proc here")

SCRIPT = Path(__file__).parents[2] / "support" / "bare_gateway.py"
WHO = "import os\ndef handler(event, context):\n    return os.getpid()\n"
SLEEP = "import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return os.getpid()\n"
RECORD = (
    "import os, time\n"
    "def handler(event, context):\n"
    "    with open(event['file'], 'a') as file:\n"
    "        file.write(f'{time.monotonic()} 1\\n'); file.flush()\n"
    "        time.sleep(event['seconds'])\n"
    "        file.write(f'{time.monotonic()} -1\\n')\n"
    "    return os.getpid()\n"
)


class Gateway:
    """A gateway process; ``ask`` and ``invoke`` return a function that waits for the answer."""

    def __init__(self, folder: Path, **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.options = {"folder": str(folder), **options}
        self._numbers = itertools.count()
        self._start()

    def _start(self) -> None:
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(self.options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline())["ready"] == self.process.pid
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._reader.start()

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                answer = json.loads(line)
                with self._changed:
                    self._answers[answer["id"]] = answer
                    self._changed.notify_all()

    def _send(self, request: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        number = next(self._numbers)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"id": number, **request}) + "\n")
        self.process.stdin.flush()

        def answer() -> dict[str, Any]:
            with self._changed:
                assert self._changed.wait_for(lambda: number in self._answers, timeout=40), "no answer"
                return self._answers.pop(number)

        return answer

    def invoke(self, spec: VersionSpec, payload: Any = None, *, reserved: int | None = None) -> Callable[[], dict[str, Any]]:
        return self._send({"spec": msgspec.to_builtins(spec), "payload": payload, "reserved": reserved})

    def stats(self) -> dict[str, Any]:
        return self._send({"ask": "stats"})()

    def kill(self) -> None:
        self.process.kill()
        self._wait()

    def close(self) -> None:
        assert self.process.stdin is not None
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self._wait()

    def _wait(self) -> None:
        self.process.wait(20)
        self._reader.join(20)
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def restart(self) -> None:
        self._start()


@pytest.fixture
def open_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    gateways: list[Gateway] = []

    def open_one(name: str = "a", **options: Any) -> Gateway:
        gateways.append(Gateway(tmp_path / name, **options))
        return gateways[-1]

    yield open_one
    for gateway in gateways:
        gateway.close()


@pytest.fixture
def pair(tmp_path: Path, open_gateway: Callable[..., Gateway]) -> tuple[Gateway, Gateway]:
    """Two gateways that share environments; the first holds the scaler."""
    first, second = f"unix:{tmp_path}/a.link", f"unix:{tmp_path}/b.link"
    return (
        open_gateway("a", me=first, others=[second], holder=first, sandbox="plain"),
        open_gateway("b", me=second, others=[first], holder=first),
    )


def eventually(holds: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.02)


def alive(pids: set[int]) -> set[int]:
    living = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            living.add(pid)
    return living


def most_at_once(record: Path) -> int:
    """The largest number of handlers that ran at the same moment."""
    events = sorted((float(at), int(change)) for at, change in map(str.split, record.read_text().splitlines()))
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


@pytest.mark.parametrize("victims", ["gateway", "gateway and nursery"])
def test_no_process_survives_a_killed_gateway(open_gateway: Callable[..., Gateway], tmp_path: Path, victims: str) -> None:
    gateway = open_gateway()
    daemon = (
        "import os, time\n"
        "def handler(event, context):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        time.sleep(300)\n"
        "    time.sleep(event)\n"
        "    return os.getpid()\n"
    )
    spec = python_spec(tmp_path, daemon)
    gateway.invoke(spec, 0)()
    gateway.invoke(spec, 300)
    eventually(lambda: gateway.stats()["in_flight"] == 1)
    time.sleep(0.3)
    below = descent.descendants(gateway.process.pid)
    assert len(below) >= 4  # nursery, supervisor, zygote, runtime, and what the handler left behind
    nursery = descent.children(gateway.process.pid)
    os.kill(gateway.process.pid, signal.SIGSTOP)  # so that it cannot react to the nursery's end
    if victims == "gateway and nursery":
        for pid in nursery:
            os.kill(pid, signal.SIGKILL)
    gateway.kill()
    eventually(lambda: not alive(below))


def test_a_restarted_gateway_takes_over_the_socket_that_the_killed_one_left(
    open_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    gateway = open_gateway()
    spec = python_spec(tmp_path, WHO)
    first = gateway.invoke(spec)()["payload"]
    gateway.kill()
    gateway.restart()
    second = gateway.invoke(spec)()["payload"]
    assert first != second


def test_an_environment_that_one_gateway_used_serves_the_other_one(pair: tuple[Gateway, Gateway], tmp_path: Path) -> None:
    first, second = pair
    spec = python_spec(tmp_path, WHO)
    pid = first.invoke(spec, reserved=1)()["payload"]
    # With one permitted environment the second gateway can only be served by the one that is parked at the first.
    answers = [gateway.invoke(spec, reserved=1)() for gateway in (second, first, second, second, first)]
    assert [answer["payload"] for answer in answers] == [pid] * 5


def test_a_gateway_without_the_scaler_gets_its_first_environment_from_the_holder(
    pair: tuple[Gateway, Gateway], tmp_path: Path
) -> None:
    _, second = pair
    answer = second.invoke(python_spec(tmp_path, WHO))()
    assert answer["error"] == ""
    assert second.stats()["environments"]["idle"] == 1


def test_reserved_concurrency_is_exact_over_two_gateways(pair: tuple[Gateway, Gateway], tmp_path: Path) -> None:
    first, second = pair
    spec = python_spec(tmp_path, RECORD)
    record = tmp_path / "record"
    event = {"file": str(record), "seconds": 0.4}
    served: set[int] = set()
    for _ in range(4):
        answers = [gateway.invoke(spec, event, reserved=3) for gateway in (first, second) for _ in range(4)]
        outcomes = [answer() for answer in answers]
        served |= {outcome["payload"] for outcome in outcomes if "payload" in outcome}
        refused = [outcome for outcome in outcomes if "refused" in outcome]
        assert len(refused) == 5, outcomes
        assert {outcome["Reason"] for outcome in refused} == {"ReservedFunctionConcurrentInvocationLimitExceeded"}
    assert len(served) == 3
    assert most_at_once(record) == 3


def test_without_the_holder_the_other_gateway_starts_nothing_and_refuses_nobody(
    pair: tuple[Gateway, Gateway], tmp_path: Path
) -> None:
    first, second = pair
    spec = python_spec(tmp_path, SLEEP)
    first.kill()
    waiting = second.invoke(spec, 0, reserved=1)
    eventually(lambda: second.stats()["waiting"] == 1)
    time.sleep(1)
    assert second.stats()["waiting"] == 1
    first.restart()
    assert waiting()["error"] == ""
