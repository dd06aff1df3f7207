"""What a supervisor process leaves behind: nothing, whether it closes or is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import host_process
from supervised import WAIT_SECONDS, lives

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")

# Detached in every way there is, without an execve that would leave a mark, and with every descriptor closed.
DETACHES = """
import os, time
def detached():
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(writing, str(os.getpid()).encode())
        os.closerange(0, 100)
        os.environ.clear()
        time.sleep(600)
    os.wait()
    return int(os.read(reading, 100))
def handler(event, context):
    return [detached(), detached()]
"""


@contextmanager
def supervisor(folder: Path, code: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    (folder / "task").mkdir()
    (folder / "task" / "index.py").write_text(code)
    script = Path(host_process.__file__)
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(script.parent)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait(WAIT_SECONDS)
        process.stdin.close()
        process.stdout.close()


def gone(*pids: int) -> bool:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if not any(lives(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False


def test_closing_ends_even_what_bears_no_mark(tmp_path: Path) -> None:
    with supervisor(tmp_path, DETACHES) as (process, said):
        assert all(lives(pid) for pid in said["returned"])
        process.communicate("close\n", timeout=WAIT_SECONDS)
        assert process.returncode == 0
        assert not any(lives(pid) for pid in (*said["returned"], said["runtime"]))
        assert not (tmp_path / "work").exists()


def test_a_runtime_does_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = "import os, threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\ndef handler(e, c): return os.getppid()"
    with supervisor(tmp_path, code) as (process, said):
        assert lives(said["runtime"])
        process.kill()
        assert gone(said["runtime"], said["returned"])
