"""A real nursery process: what it reports, and that nothing it made survives it, its supervisors or the gateway."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from kappa_core.nursery import Ended, Fork, Forked, Kill, MessageReader, Ready, Report, SupervisorOptions, pack
from kappa_runtime.nursery import descent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forking nurseries and subreapers are Linux's")

R = TypeVar("R", Ready, Forked, Ended)
STAND_IN = Path(__file__).parents[2] / "support" / "nursery_stand_in.py"


class Gateway:
    """The gateway's end of the control socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.socket = ours
        self.socket.settimeout(10)
        self.process = subprocess.Popen([sys.executable, str(STAND_IN), str(theirs.fileno())], pass_fds=(theirs.fileno(),))
        theirs.close()
        self._reader = MessageReader()
        self._reports: list[Report] = []

    def fork(self, supervisor_id: str, work_dir: Path | str = "/") -> int:
        """Make a stand-in; its pid."""
        options = SupervisorOptions(supervisor_id=supervisor_id, gateways=[], work_dir=str(work_dir))
        self.socket.sendall(pack(Fork(options=options)))
        return self.next(Forked).pid

    def next(self, kind: type[R]) -> R:
        while not self._reports:
            data = self.socket.recv(65536)
            assert data, "the nursery closed its control socket"
            self._reports += self._reader.reports(data)
        report = self._reports.pop(0)
        assert isinstance(report, kind)
        return report


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = Gateway()
    try:
        yield gateway
    finally:
        gateway.socket.close()
        gateway.process.wait(10)


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_it_says_that_it_is_ready_and_forks(gateway: Gateway) -> None:
    assert gateway.next(Ready) == Ready(pid=gateway.process.pid, forks=True)


@pytest.mark.parametrize(("action", "reason"), [("exit-0", "exit 0"), ("exit-3", "exit 3"), ("raise", "exit 70")])
def test_the_end_of_a_supervisor_is_reported_with_its_reason(gateway: Gateway, action: str, reason: str) -> None:
    gateway.next(Ready)
    pid = gateway.fork(action)
    assert gateway.next(Ended) == Ended(supervisor_id=action, pid=pid, reason=reason)


def test_a_killed_supervisor_takes_a_detached_grandchild_with_it(gateway: Gateway, tmp_path: Path) -> None:
    gateway.next(Ready)
    pid = gateway.fork("detaching", tmp_path)
    eventually(lambda: (tmp_path / "grandchild").exists() and (tmp_path / "grandchild").read_text())
    grandchild = int((tmp_path / "grandchild").read_text())
    assert alive(grandchild)
    os.kill(pid, signal.SIGKILL)
    assert gateway.next(Ended).reason == "signal 9"
    assert not alive(grandchild)


def test_a_kill_command_ends_a_supervisor_that_ignores_everything(gateway: Gateway, tmp_path: Path) -> None:
    gateway.next(Ready)
    pid = gateway.fork("detaching", tmp_path)
    eventually(lambda: (tmp_path / "grandchild").exists() and (tmp_path / "grandchild").read_text())
    gateway.socket.sendall(pack(Kill(supervisor_id="detaching")))
    assert gateway.next(Ended).pid == pid
    assert not alive(int((tmp_path / "grandchild").read_text()))


def test_when_the_gateway_is_gone_obedient_and_stubborn_supervisors_end_alike(gateway: Gateway) -> None:
    gateway.next(Ready)
    pids = [gateway.fork("obedient"), gateway.fork("stubborn")]
    gateway.socket.close()
    assert gateway.process.wait(10) == 0
    assert [pid for pid in pids if alive(pid)] == []


def test_a_terminated_nursery_leaves_nothing(gateway: Gateway) -> None:
    gateway.next(Ready)
    pid = gateway.fork("stubborn")
    gateway.process.terminate()
    assert gateway.process.wait(10) == 0
    assert not alive(pid)


def test_supervisors_see_the_death_of_a_killed_nursery(gateway: Gateway) -> None:
    gateway.next(Ready)
    pid = gateway.fork("obedient")
    gateway.process.kill()
    gateway.process.wait(10)
    eventually(lambda: not alive(pid))


def test_a_command_that_is_none_ends_the_nursery_rather_than_leaving_it_deaf(gateway: Gateway) -> None:
    gateway.next(Ready)
    pid = gateway.fork("stubborn")
    gateway.socket.sendall(b"\xff" * 64)
    gateway.process.wait(10)
    assert not alive(pid)


def test_children_are_found_without_the_kernels_list() -> None:
    with subprocess.Popen(["sleep", "30"]) as process:
        try:
            assert process.pid in descent.children(os.getpid())
            assert process.pid in descent._children_by_search(os.getpid())
        finally:
            process.kill()
