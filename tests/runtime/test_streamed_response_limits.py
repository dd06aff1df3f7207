"""What bounds a streamed response: its size, the function's time, and how fast it is taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kappa_runtime.supervisor.lifecycle import OnData
from node_function import node, node_version
from supervised import Supervised, supervised

pytestmark = pytest.mark.node

STREAMS = """exports.handler = awslambda.streamifyResponse(async (event, stream) => {
    for (let n = 0; n < event.pieces; n++) stream.write(Buffer.alloc(1000, 'z'));
    stream.end();
})"""


@asynccontextmanager
async def streaming(folder: Path, *, timeout: float = 10.0, limit: int = 200_000_000) -> AsyncIterator[Supervised]:
    executable = node()
    runtime = f"nodejs{node_version(executable)[0]}.x"
    spec = {"runtime": runtime, "command": (executable,), "timeout": timeout, "streamed_response_bytes": limit}
    async with supervised(folder, {"index.js": STREAMS}, **spec) as function:
        yield function


def collecting(into: bytearray) -> OnData:
    async def take(data: bytes) -> None:
        into.extend(data)

    return take


def test_a_response_of_just_the_limit_is_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with streaming(tmp_path, limit=40_000) as function:
            taken = bytearray()
            result, rest = await function.invoke({"pieces": 40}, on_data=collecting(taken), streaming=True)
            assert (result.function_error, rest, bytes(taken)) == ("", b"", b"z" * 40_000)

    asyncio.run(scenario())


def test_a_response_over_the_limit_is_passed_on_up_to_it_and_ends_with_lambdas_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with streaming(tmp_path, limit=39_999) as function:
            taken = bytearray()
            result, error = await function.invoke({"pieces": 400}, on_data=collecting(taken), streaming=True)
            assert (result.function_error, bytes(taken)) == ("Unhandled", b"z" * 39_999)
            assert json.loads(error) == {
                "errorMessage": "Response payload size exceeded maximum allowed payload size (39999 bytes).",
                "errorType": "Function.ResponseSizeTooLarge",
            }
            result, _ = await function.invoke({"pieces": 1}, on_data=collecting(bytearray()), streaming=True)
            assert result.function_error == ""

    asyncio.run(scenario())


def test_a_taker_that_never_comes_back_costs_the_function_its_time_and_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with streaming(tmp_path, timeout=1.0) as function:

            async def never(data: bytes) -> None:
                await asyncio.Future()

            result, error = await function.invoke({"pieces": 3}, on_data=never, streaming=True)
            assert result.function_error == "Unhandled"
            assert json.loads(error)["errorType"] == "Sandbox.Timedout"
            result, _ = await function.invoke({"pieces": 1}, on_data=collecting(bytearray()), streaming=True)
            assert result.function_error == ""

    asyncio.run(scenario())


def test_a_response_that_nobody_takes_as_it_comes_has_the_limit_of_ordinary_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with streaming(tmp_path, limit=10) as function:
            result, payload = await function.invoke({"pieces": 40})
            assert (result.function_error, payload) == ("", b"z" * 40_000)

    asyncio.run(scenario())
