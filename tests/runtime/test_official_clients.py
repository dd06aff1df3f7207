"""AWS's own runtime clients, unmodified, under Kappa's supervisor, and Kappa's Node.js bootstrap beside them: the same guarantees."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from node_function import node
from official_clients import node_client, python_client
from supervised import Supervised, supervised

PYTHON = """
import os, time
def handler(event, context):
    match event.get("do"):
        case "echo": return event["value"]
        case "context": return [context.aws_request_id, context.function_name, context.get_remaining_time_in_millis() > 0]
        case "fail": raise ValueError("on purpose")
        case "exit": os._exit(3)
        case "sleep": time.sleep(60)
        case "large": return "x" * (7 * 1024 * 1024)
        case "unknown": return {1, 2}
        case "pid": return os.getpid()
"""
NODE = """
exports.handler = async (event, context) => {
  switch (event.do) {
    case 'echo': return event.value;
    case 'context': return [context.awsRequestId, context.functionName, context.getRemainingTimeInMillis() > 0];
    case 'fail': throw new TypeError('on purpose');
    case 'exit': process.exit(3);
    case 'sleep': await new Promise((resolve) => setTimeout(resolve, 60_000));
    case 'large': return 'x'.repeat(7 * 1024 * 1024);
    case 'unknown': return 1n;
    case 'pid': return process.pid;
  }
}
"""
CLIENTS = ["awslambdaric", "aws-lambda-ric 3", "aws-lambda-ric 4", "kappa nodejs20.x", "kappa nodejs24.x"]

Scenario = Callable[[Supervised], Awaitable[None]]


def run(folder: Path, client: str, scenario: Scenario, *, node_code: str = NODE, **spec: Any) -> None:
    """Run ``scenario`` with a function on this client."""
    if client == "awslambdaric":
        code = {"index.py": PYTHON}
        (folder / "cache").mkdir()
        spec |= {"client": "official", "platform_variables": {"KAPPA_CLIENT_PYTHON": python_client(folder / "cache")}}
    else:
        code = {"index.js": node_code}
        spec |= {"command": (node(),), "runtime": "nodejs24.x" if client[-1] == "4" or "24" in client else "nodejs20.x"}
        if client.startswith("aws-lambda-ric"):
            folder_of_client = node_client(folder, major=int(client[-1]))
            spec |= {"client": "official", "platform_variables": {"KAPPA_CLIENT_NODE": str(folder_of_client)}}

    async def whole() -> None:
        async with supervised(folder, code, **spec) as function:
            await scenario(function)

    asyncio.run(whole())


@pytest.mark.parametrize("client", CLIENTS)
def test_events_are_answered_and_failures_are_told(tmp_path: Path, client: str) -> None:
    async def scenario(function: Supervised) -> None:
        for value in (None, 1, {"ü": ["\u2028"]}):
            assert await function.returned({"do": "echo", "value": value}) == value
        request_id, name, remains = await function.returned({"do": "context"})
        assert (request_id, name, remains) == (f"00000000-0000-4000-8000-{4:012d}", "tried", True)
        failed = await function.failed({"do": "fail"})
        assert failed["errorMessage"] == "on purpose"
        assert failed["errorType"] == ("ValueError" if client == "awslambdaric" else "TypeError")
        assert failed["stackTrace" if client == "awslambdaric" else "trace"]
        assert "marshal" in str(unknown := await function.failed({"do": "unknown"})) or "stringify" in str(unknown)
        assert await function.returned({"do": "echo", "value": "still here"}) == "still here"

    run(tmp_path, client, scenario)


@pytest.mark.parametrize("client", CLIENTS)
def test_payloads_of_a_megabyte_pass_unchanged(tmp_path: Path, client: str) -> None:
    async def scenario(function: Supervised) -> None:
        value = "é" + "x" * 1_000_000
        for _ in range(3):
            assert await function.returned({"do": "echo", "value": value}) == value

    run(tmp_path, client, scenario)


@pytest.mark.parametrize("client", CLIENTS)
def test_an_exit_is_reported_and_the_next_event_is_served(tmp_path: Path, client: str) -> None:
    async def scenario(function: Supervised) -> None:
        pid = await function.returned({"do": "pid"})
        assert await function.failed({"do": "exit"}) == {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: 00000000-0000-4000-8000-{2:012d} Error: Runtime exited with error: exit status 3",
        }
        assert await function.returned({"do": "pid"}) != pid

    run(tmp_path, client, scenario)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_timeout_ends_the_process_and_the_next_event_is_served(tmp_path: Path, client: str) -> None:
    async def scenario(function: Supervised) -> None:
        failed = await function.failed({"do": "sleep"})
        assert failed["errorType"] == "Sandbox.Timedout"
        assert failed["errorMessage"].endswith("Task timed out after 1.00 seconds")
        assert await function.returned({"do": "echo", "value": 1}) == 1

    run(tmp_path, client, scenario, timeout=1.0)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_response_over_the_limit_is_refused_and_the_process_lives_on(tmp_path: Path, client: str) -> None:
    async def scenario(function: Supervised) -> None:
        pid = await function.returned({"do": "pid"})
        assert (await function.failed({"do": "large"}))["errorType"] == "Function.ResponseSizeTooLarge"
        assert await function.returned({"do": "pid"}) == pid

    run(tmp_path, client, scenario)


@pytest.mark.parametrize("client", [client for client in CLIENTS if client != "awslambdaric"])
def test_a_streaming_handler_streams(tmp_path: Path, client: str) -> None:
    code = """exports.handler = awslambda.streamifyResponse(async (event, stream) => {
        const http = awslambda.HttpResponseStream.from(stream, {statusCode: 201});
        for (let i = 0; i < 40; i++) http.write('x'.repeat(10_000));
        http.end();
    })"""

    async def scenario(function: Supervised) -> None:
        for _ in range(2):
            parts: list[bytes] = []

            async def take(chunk: bytes, taken: list[bytes] = parts) -> None:
                taken.append(chunk)

            result, _ = await function.invoke({}, on_data=take, streaming=True)
            assert result.function_error == ""
            prelude, _, body = b"".join(parts).partition(bytes(8))
            assert json.loads(prelude) == {"statusCode": 201}
            assert body == b"x" * 400_000

    run(tmp_path, client, scenario, node_code=code)


@pytest.mark.parametrize("client", [client for client in CLIENTS if client != "awslambdaric"])
def test_a_function_that_cannot_be_loaded_says_why(tmp_path: Path, client: str) -> None:
    async def scenario(function: Supervised) -> None:
        failed = await function.failed({})
        assert failed["errorType"] == "Runtime.ImportModuleError"
        assert failed["errorMessage"].startswith("Error: Cannot find module 'left-pad'")

    run(tmp_path, client, scenario, node_code="require('left-pad')")


@pytest.mark.parametrize("place", ["task", "layer"])
def test_the_functions_own_copy_of_the_client_is_used(tmp_path: Path, place: str) -> None:
    code = "exports.handler = async () => process.argv[1]"
    package = node_client(tmp_path, major=3) / "node_modules" / "aws-lambda-ric"
    home = tmp_path / "task" if place == "task" else tmp_path / "opt" / "nodejs"
    (home / "node_modules").mkdir(parents=True)
    (home / "node_modules" / "aws-lambda-ric").symlink_to(package.resolve())
    (tmp_path / "opt").mkdir(exist_ok=True)

    async def scenario() -> None:
        values: dict[str, Any] = {
            "command": (node(),),
            "runtime": "nodejs20.x",
            "client": "official",
            "opt_root": str(tmp_path / "opt"),
        }
        async with supervised(tmp_path, {"index.js": code}, **values) as function:
            assert await function.returned() == str(home / "node_modules/aws-lambda-ric/bin/index.mjs")

    asyncio.run(scenario())
