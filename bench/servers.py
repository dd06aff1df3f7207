"""What is measured beside Kappa: AWS's own emulator (RIE) with awslambdaric, and the echo floor; and what Kappa's processes cost.

Where RIE cannot be had (`bench/emulator.py`) the benchmarks run without it and say why: a ratio is only ever formed of two numbers
of one run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from bench.client import BlockingConnection, ConnectionLost
from bench.emulator import Unavailable

import process_tree
from kappa_dev import KappaDev

RIE_FUNCTION = "function"
"""The only function name RIE answers to."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


@contextmanager
def rie(binary: Path, task: Path) -> Iterator[Address]:
    """Run RIE with awslambdaric on the function in `task` (`app.handler`); it answers one request at a time."""
    front, api = _free_port(), _free_port()
    command: list[str | Path] = [
        *(binary, "--log-level", "error"),
        *("--runtime-interface-emulator-address", f"127.0.0.1:{front}", "--runtime-api-address", f"127.0.0.1:{api}"),
        *(sys.executable, "-m", "awslambdaric", "app.handler"),
    ]
    process = subprocess.Popen(
        command,
        cwd=task,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"AWS_LAMBDA_FUNCTION_TIMEOUT": "60"},
    )
    try:
        _wait_for(Address("127.0.0.1", front), process)
        yield Address("127.0.0.1", front)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


class Floor(NamedTuple):
    """The running echo server."""

    address: Address
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """CPU time since it started."""
        return process_tree.table()[self.pid].cpu_seconds


@contextmanager
def floor() -> Iterator[Floor]:
    """Run the echo server of `bench.floor`."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.floor"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Floor(Address("127.0.0.1", int(process.stdout.readline())), process.pid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(address: Address, process: subprocess.Popen[bytes]) -> None:
    """Until a first invocation is answered: RIE starts the runtime with it."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, ConnectionLost):
            connection = BlockingConnection(address)
            answer = connection.invoke(RIE_FUNCTION, b"{}")
            connection.close()
            if answer.status == 200:
                return
        time.sleep(0.05)
    raise Unavailable("it started but never answered")


class Cpu(NamedTuple):
    """CPU seconds of Kappa's processes since they started, by what they do."""

    gateway: float
    supervisors: float
    runtimes: float

    def since(self, earlier: Cpu, *, invocations: int) -> dict[str, float]:
        """Microseconds per invocation between two readings."""
        return {name: (now - then) / invocations * 1e6 for name, now, then in zip(self._fields, self, earlier, strict=True)}


def cpu(kappa: KappaDev) -> Cpu:
    """Read /proc for the whole tree. Processes that ended between two readings are missing from the later one."""
    processes = process_tree.table()
    gateway = processes[kappa.pid].cpu_seconds
    supervisors = runtimes = 0.0
    for process in process_tree.descendants(kappa.pid, processes=processes):
        if is_runtime(process_tree.command(process.pid)):
            runtimes += process.cpu_seconds
        else:
            supervisors += process.cpu_seconds
    return Cpu(gateway, supervisors, runtimes)


def is_runtime(command: str) -> bool:
    """Whether a command line is that of a function's runtime (a bootstrap) and not of a supervisor."""
    return "bootstrap" in command


def memory(kappa: KappaDev) -> process_tree.Memory:
    """Memory of the gateway and everything below it."""
    return process_tree.memory([kappa.pid, *(process.pid for process in process_tree.descendants(kappa.pid))])


def gateway_memory(kappa: KappaDev) -> process_tree.Memory:
    """Memory of the gateway process alone."""
    return process_tree.memory([kappa.pid])
