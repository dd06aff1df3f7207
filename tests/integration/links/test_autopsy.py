"""A supervisor that is killed in the middle of an invocation, where somebody can say what killed it, and where nobody can."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from bare_gateway import BareGateway, python_spec
from kappa_core.errors import EnvironmentLostException
from kappa_core.link.frames import Result
from kappa_gateway.links.killed import Ending
from kappa_runtime.nursery import descent

SLEEP = "import time\ndef handler(event, context):\n    time.sleep(event)\n"


class Outcome(NamedTuple):
    result: Result
    error: tuple[str, str]
    """Type, and the message behind the request id."""
    lines: list[str]
    """What was logged about the invocation."""
    streams: set[str]


def killed(folder: Path, said: Ending | None, asked: list[tuple[str, float]]) -> Outcome:
    """Kill the supervisor of a running invocation."""

    async def autopsy(supervisor_id: str, within_seconds: float, /) -> Ending | None:
        asked.append((supervisor_id, within_seconds))
        return said

    async def scenario() -> Outcome:
        gateway = await BareGateway.open(folder, spares=False)
        try:
            gateway.links.port._autopsy = autopsy
            assert gateway.provider is not None
            running = asyncio.create_task(gateway.invoke(python_spec(folder, SLEEP), b"60"))
            async with asyncio.timeout(30):
                while not any(line.message.startswith("START") for _, line in gateway.logs):
                    await asyncio.sleep(0.05)
            nursery = gateway.provider.nursery_pid
            assert nursery is not None
            for pid in descent.children(nursery):
                os.kill(pid, signal.SIGKILL)
            result, payload = await running
            error = json.loads(payload)
            assert result.function_error == "Unhandled"
            assert error["errorMessage"].startswith(f"RequestId: {result.request_id} Error: ")
            about = [(name, line) for name, line in gateway.logs if line.request_id == result.request_id]
            return Outcome(
                result,
                (error["errorType"], error["errorMessage"].partition("Error: ")[2]),
                [line.message for _, line in about],
                {name for name, _ in about},
            )
        finally:
            await gateway.close()

    return asyncio.run(scenario())


def test_a_kill_by_the_kernel_is_the_function_s_error(tmp_path: Path) -> None:
    asked: list[tuple[str, float]] = []
    outcome = killed(tmp_path, Ending("signal: killed", False), asked)
    assert outcome.error == ("Runtime.ExitError", "Runtime exited with error: signal: killed")
    assert outcome.result.error_type == "Runtime.ExitError"
    ((_, within_seconds),) = asked
    assert within_seconds > 2


def test_the_log_of_an_invocation_that_was_out_of_memory_has_its_end(tmp_path: Path) -> None:
    outcome = killed(tmp_path, Ending("signal: killed", True), [])
    result, request_id = outcome.result, outcome.result.request_id
    assert (result.error_type, result.max_memory_mb) == ("Runtime.OutOfMemory", 128)
    start, failed, end, report = outcome.lines
    assert start.startswith(f"START RequestId: {request_id} ")
    assert failed == f"RequestId: {request_id} Error: Runtime exited with error: signal: killed\nRuntime.ExitError\n"
    assert end == f"END RequestId: {request_id}\n"
    assert report == (
        f"REPORT RequestId: {request_id}\tDuration: {result.duration_ms:.2f} ms\tBilled Duration: {result.billed_ms} ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 128 MB\tStatus: error\tError Type: Runtime.OutOfMemory\n"
    )
    (stream,) = outcome.streams
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", stream)


def test_any_other_loss_is_the_platform_s(tmp_path: Path) -> None:
    asked: list[tuple[str, float]] = []
    with pytest.raises(EnvironmentLostException, match="connection to its environment was lost"):
        killed(tmp_path, None, asked)
    assert len(asked) == 1
