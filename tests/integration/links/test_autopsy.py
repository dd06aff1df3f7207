"""A supervisor that is killed in the middle of an invocation, where somebody can say what killed it, and where nobody can."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from bare_gateway import BareGateway, python_spec
from kappa_core.errors import EnvironmentLostException
from kappa_runtime.nursery import descent

SLEEP = "import time\ndef handler(event, context):\n    time.sleep(event)\n"


def killed(folder: Path, said: str, asked: list[tuple[str, float]]) -> tuple[str, str]:
    """Kill the supervisor of a running invocation; the error's type and message."""

    async def autopsy(supervisor_id: str, within_seconds: float, /) -> str:
        asked.append((supervisor_id, within_seconds))
        return said

    async def scenario() -> tuple[str, str]:
        gateway = await BareGateway.open(folder, spares=False)
        try:
            gateway.links.port._autopsy = autopsy
            assert gateway.provider is not None
            running = asyncio.create_task(gateway.invoke(python_spec(folder, SLEEP), b"60"))
            while gateway.links.port.stats().in_flight == 0:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            nursery = gateway.provider.nursery_pid
            assert nursery is not None
            for pid in descent.children(nursery):
                os.kill(pid, signal.SIGKILL)
            result, payload = await running
            error = json.loads(payload)
            assert (result.function_error, error["errorType"]) == ("Unhandled", result.error_type)
            assert error["errorMessage"].startswith(f"RequestId: {result.request_id} Error: ")
            return error["errorType"], error["errorMessage"].partition("Error: ")[2]
        finally:
            await gateway.close()

    return asyncio.run(scenario())


def test_a_kill_by_the_kernel_is_the_function_s_error(tmp_path: Path) -> None:
    asked: list[tuple[str, float]] = []
    assert killed(tmp_path, "signal: killed", asked) == ("Runtime.ExitError", "Runtime exited with error: signal: killed")
    ((_, within_seconds),) = asked
    assert within_seconds > 2


def test_any_other_loss_is_the_platform_s(tmp_path: Path) -> None:
    asked: list[tuple[str, float]] = []
    with pytest.raises(EnvironmentLostException, match="connection to its environment was lost"):
        killed(tmp_path, "", asked)
    assert len(asked) == 1
