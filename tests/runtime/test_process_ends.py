"""Every way for a runtime to end, and what the caller and the log get for each. Real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from kappa_runtime.supervisor import process
from supervised import Supervised, lives, need_namespaces, supervised

WAYS = """
import os, signal, subprocess, sys, threading, time
count = 0
def handler(event, context):
    global count
    count += 1
    return eval(event) if event else count
"""


def error(result_payload: bytes) -> tuple[str, str]:
    parsed = json.loads(result_payload)
    assert list(parsed) == ["errorType", "errorMessage"], "AWS's order of keys"
    return parsed["errorType"], parsed["errorMessage"]


@pytest.mark.parametrize(
    ("way", "text"),
    [
        pytest.param("os._exit(0)", "Runtime exited without providing a reason", id="exit-0"),
        pytest.param("os._exit(3)", "Runtime exited with error: exit status 3", id="exit-3"),
        pytest.param("sys.exit(7)", "Runtime exited with error: exit status 7", id="sys-exit"),
        pytest.param("sys.exit('words')", "Runtime exited with error: exit status 1", id="sys-exit-words"),
        pytest.param("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed", id="killed"),
        pytest.param("os.abort()", "Runtime exited with error: signal: aborted", id="aborted"),
        pytest.param("os.kill(os.getpid(), 11)", "Runtime exited with error: signal: segmentation fault", id="segfault"),
        pytest.param("os.kill(os.getpid(), 15)", "Runtime exited with error: signal: terminated", id="terminated"),
    ],
)
def test_a_runtime_that_ends_is_an_exit_error_and_the_next_invocation_starts_afresh(tmp_path: Path, way: str, text: str) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, WAYS) as function:
            assert await function.returned() == 1
            result, payload = await function.invoke(way)
            assert (result.function_error, result.error_type) == ("Unhandled", "Runtime.ExitError")
            assert error(payload) == ("Runtime.ExitError", f"RequestId: {result.request_id} Error: {text}")
            log = function.log_of(result.request_id)
            assert log.startswith(f"START RequestId: {result.request_id} Version: $LATEST\n")
            assert f"RequestId: {result.request_id} Error: {text}\nRuntime.ExitError\n" in log
            assert log.endswith("\tStatus: error\tError Type: Runtime.ExitError\n")
            assert result.log_tail.decode() == log
            assert await function.returned() == 1, "module state is gone"

    asyncio.run(scenario())


def test_a_timeout_ends_the_runtime_keeps_tmp_and_drops_module_state(tmp_path: Path) -> None:
    code = WAYS.replace("return", "open(os.environ['TMPDIR'] + '/kept', 'a').write('x'); return")

    async def scenario() -> None:
        async with supervised(tmp_path, code, timeout=0.3) as function:
            result, payload = await function.invoke("time.sleep(60)")
            assert error(payload) == (
                "Sandbox.Timedout",
                f"RequestId: {result.request_id} Error: Task timed out after 0.30 seconds",
            )
            assert (result.function_error, result.error_type) == ("Unhandled", "Sandbox.Timedout")
            assert result.duration_ms == 300.0
            log = function.log_of(result.request_id)
            assert f"Z {result.request_id} Task timed out after 0.30 seconds\n\n" in log
            assert log.endswith("\tStatus: timeout\n")
            kept = await function.returned("open(os.environ['TMPDIR'] + '/kept').read()")
            assert kept == "xx"
            assert await function.returned() == 2

    asyncio.run(scenario())


def test_the_result_of_an_invocation_never_reaches_the_next_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, WAYS, timeout=0.2) as function:
            await function.failed("time.sleep(0.25) or 'late'")
            assert await function.returned("'mine'") == "mine"

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["plain", "namespaces"])
def test_descendants_that_detach_end_with_a_timeout(tmp_path: Path, mode: str) -> None:
    if mode == "namespaces":
        need_namespaces(tmp_path)
    code = """
import os, subprocess, time
def handler(event, context):
    pids = []
    for _ in range(2):
        script = "import os, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\nif os.fork(): os._exit(0)\\n" \\
                 "print(os.getpid(), flush=True)\\nos.close(1); os.close(2); time.sleep(600)"
        done = subprocess.run([event, "-S", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
        pids.append(int(done.stdout))
    print("PIDS", *pids)
    time.sleep(60)
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code, timeout=1.0, mode=mode) as function:  # type: ignore[arg-type]
            await function.failed(function.host.spec.command[0])
            pids = [int(pid) for pid in _line(function, "PIDS").split()[1:]]
            assert len(pids) == 2
            assert not [pid for pid in pids if lives(pid)]

    asyncio.run(scenario())


def test_descendants_that_detach_end_with_the_environment(tmp_path: Path) -> None:
    code = """
import os, time
def handler(event, context):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.write(writing, str(os.getpid()).encode())
        time.sleep(600)
    return int(os.read(reading, 100))
"""

    async def scenario() -> None:
        need_namespaces(tmp_path)
        async with supervised(tmp_path, code, mode="namespaces") as function:
            pid = await function.returned()
            assert lives(pid)
            await function.environment.shutdown("the test is over")
            assert not lives(pid)

    asyncio.run(scenario())


def _line(function: Supervised, start: str) -> str:
    return next(line.message for line in function.lines if line.message.startswith(start))


def test_a_handler_that_forks_and_returns_twice_answers_once(tmp_path: Path) -> None:
    code = """
import os
def handler(event, context):
    os.fork()
    return os.getpid()
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code) as function:
            pids = [await function.returned() for _ in range(5)]
            assert pids == [function.environment.pid] * 5

    asyncio.run(scenario())


def test_a_handler_that_kills_its_parent_leaves_its_siblings_alone(tmp_path: Path) -> None:
    code = """
import os, signal, time
def handler(event, context):
    if event == "kill":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(0.1)
    return os.getpid()
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code) as function:
            sibling = await function.host.start("environment-2")
            await sibling.init()
            before = (await function.returned(environment=sibling), await function.returned("kill"))
            assert (await function.returned(environment=sibling), await function.returned()) == before
            third = await function.host.start("environment-3")
            await third.init()
            assert third.state == "ready", "there is a new zygote"
            os.kill(sibling.pid, signal.SIGKILL)
            while not function.exits:
                await asyncio.sleep(0.005)
            assert function.exits == ["Runtime exited with error: signal: killed"]
            assert await function.returned(environment=sibling) not in before

    asyncio.run(scenario())


def test_an_idle_runtime_that_ends_is_replaced_by_the_next_invocation(tmp_path: Path) -> None:
    code = """
import os, threading
def handler(event, context):
    threading.Timer(0.05, os._exit, (5,)).start()
    return os.getpid()
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code) as function:
            first = await function.returned()
            while not function.exits:
                await asyncio.sleep(0.005)
            assert function.exits == ["Runtime exited with error: exit status 5"]
            assert await function.returned() != first

    asyncio.run(scenario())


def test_memory_over_the_limit_ends_the_runtime_as_killed(tmp_path: Path) -> None:
    code = """
import time
def handler(event, context):
    hold = bytearray(300 << 20)
    for position in range(0, len(hold), 4096):
        hold[position] = 1
    time.sleep(5)
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code, memory_mb=128) as function:
            result, payload = await function.invoke()
            text = "Runtime exited with error: signal: killed"
            assert error(payload) == ("Runtime.ExitError", f"RequestId: {result.request_id} Error: {text}")
            assert (result.error_type, result.max_memory_mb) == ("Runtime.OutOfMemory", 128)
            assert function.log_of(result.request_id).endswith("\tStatus: error\tError Type: Runtime.OutOfMemory\n")

    asyncio.run(scenario())


def test_a_tmp_over_its_size_ends_the_runtime_and_goes_where_no_filesystem_refused_it(tmp_path: Path) -> None:
    code = """
import os, time
def handler(event, context):
    folder = os.environ["TMPDIR"]
    if event:
        with open(os.path.join(folder, "large"), "wb") as file:
            file.write(bytes(event << 20))
        time.sleep(15)
    return os.listdir(folder)
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code, ephemeral_mb=4, timeout=20.0) as function:
            result, payload = await function.invoke(8)
            text = "No space left on device: /tmp holds more than 4 MB"
            assert error(payload) == ("Runtime.ExitError", f"RequestId: {result.request_id} Error: {text}")
            assert text in function.log_of(result.request_id)
            assert await function.returned(0) == []

    asyncio.run(scenario())


def test_memory_that_forks_share_counts_once(tmp_path: Path) -> None:
    code = """
import os, time
hold = bytearray(b"x") * (60 << 20)
def handler(event, context):
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            time.sleep(0.3)
            os._exit(0)
        children.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in children]
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code, memory_mb=128) as function:
            assert await function.returned() == [0, 0, 0, 0]

    asyncio.run(scenario())


@pytest.mark.parametrize("executed", [False, True], ids=["forked", "executed"])
def test_what_the_supervisor_itself_holds_is_not_the_functions_memory(tmp_path: Path, executed: bool) -> None:
    """A process that is executed begins as a copy of the supervisor, whose size must neither end it nor stand in its report."""
    spec = {"variables": {"PYTHONNOUSERSITE": "1"}} if executed else {}

    async def scenario() -> None:
        async with supervised(tmp_path, WAYS, memory_mb=256, **spec) as function:
            for _ in range(3):
                result, _ = await function.invoke("os._exit(3)")
                assert (result.error_type, result.max_memory_mb < 200) == ("Runtime.ExitError", True)

    held = bytearray(b"x") * (300 << 20)
    asyncio.run(scenario())
    assert held


def test_a_runtime_counts_as_executed_once_its_pipe_is_closed() -> None:
    reading, writing = os.pipe()
    try:
        assert not process.executed(reading)
    finally:
        os.close(writing)
    assert process.executed(reading)
    os.close(reading)


def test_shutdown_ends_an_invocation_that_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, WAYS) as function:
            running = asyncio.create_task(function.invoke("time.sleep(60)"))
            while not function.environment.busy:
                await asyncio.sleep(0.005)
            pid = function.environment.pid
            await function.environment.shutdown("the gateway is gone")
            result, payload = await running
            assert result.function_error == "Unhandled"
            assert b"the gateway is gone" in payload
            assert not lives(pid)

    asyncio.run(scenario())
