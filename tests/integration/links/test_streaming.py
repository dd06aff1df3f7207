"""A streamed response through real processes: pieces arrive as they come, and a slow taker slows the function down."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bare_gateway import BareGateway, key_of, python_spec
from kappa_core.errors import EnvironmentLostException
from kappa_core.link.frames import WINDOW
from kappa_core.spec import VersionSpec

NODE = shutil.which("node")
pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(NODE is None or sys.platform != "linux", reason="needs Node.js"),
]

STREAMS = """
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  if (event.wait) await new Promise((go) => setTimeout(go, event.wait));
  stream.setContentType('text/plain');
  const piece = 'z'.repeat(65536);
  for (let n = 0; n < event.pieces; n++) {
    if (!stream.write(piece)) await new Promise((go) => stream.once('drain', go));
  }
  if (event.hang) await new Promise((go) => setTimeout(go, 60000));
  stream.end();
});
"""


def node_spec(folder: Path) -> VersionSpec:
    assert NODE is not None
    major = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout.strip("v\n").partition(".")[0]
    spec = python_spec(
        folder,
        "",
        name="stream",
        runtime=f"nodejs{major}.x",
        handler="index.handler",
        command=(NODE,),
        timeout=30.0,
        memory_mb=1024,
    )
    Path(spec.task_root, "index.js").write_text(STREAMS, encoding="utf-8")
    return spec


async def with_gateway(folder: Path, scenario: Callable[[BareGateway, VersionSpec], object]) -> None:
    gateway = await BareGateway.open(folder, spares=False)
    try:
        async with asyncio.timeout(40):
            await scenario(gateway, node_spec(folder))  # type: ignore[misc]
    finally:
        await gateway.close()


def test_all_of_a_streamed_response_arrives_in_order(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, spec: VersionSpec) -> None:
        pieces: list[bytes] = []

        def on_data(data: bytes, passed_on: Callable[[int], None]) -> None:
            pieces.append(data)
            passed_on(len(data))

        result, rest = await gateway.invoke(spec, b'{"pieces":80}', on_data=on_data, streaming=True)
        assert (result.function_error, result.content_type) == ("", "text/plain")
        assert len(pieces) > 1
        assert b"".join(pieces) + rest == b"z" * 65536 * 80

    asyncio.run(with_gateway(tmp_path, scenario))


def test_a_taker_that_stops_reading_stops_the_function_and_not_the_gateways_memory(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, spec: VersionSpec) -> None:
        taken = 0
        grants: list[Callable[[int], None]] = []

        def on_data(data: bytes, passed_on: Callable[[int], None]) -> None:
            nonlocal taken
            taken += len(data)
            grants.append(passed_on)

        running = asyncio.ensure_future(gateway.invoke(spec, b'{"pieces":200}', on_data=on_data, streaming=True))
        while taken < WINDOW:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert taken == WINDOW
        passed = 0
        while not running.done():
            if taken > passed:
                grants[-1](taken - passed)
                passed = taken
            await asyncio.sleep(0)
        _, rest = await running
        assert taken + len(rest) == 65536 * 200

    asyncio.run(with_gateway(tmp_path, scenario))


def test_a_half_streamed_response_whose_link_breaks_is_an_error_at_once(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, spec: VersionSpec) -> None:
        arrived = asyncio.Event()

        def on_data(data: bytes, passed_on: Callable[[int], None]) -> None:
            passed_on(len(data))
            arrived.set()

        running = asyncio.ensure_future(gateway.invoke(spec, b'{"pieces":4,"hang":true}', on_data=on_data, streaming=True))
        await arrived.wait()
        for supervisor in list(gateway.links.port._links.values()):
            supervisor.link.abort("cut by the test")
        with pytest.raises(EnvironmentLostException):
            await running

    asyncio.run(with_gateway(tmp_path, scenario))


def test_the_end_of_a_response_reaches_a_slow_taker_after_its_environment_was_retired(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, spec: VersionSpec) -> None:
        taken = bytearray()
        held: list[tuple[int, Callable[[int], None]]] = []

        def on_data(data: bytes, passed_on: Callable[[int], None]) -> None:
            taken.extend(data)
            held.append((len(data), passed_on))

        running = asyncio.ensure_future(gateway.invoke(spec, b'{"pieces":18}', on_data=on_data, streaming=True))
        while len(taken) < WINDOW:
            await asyncio.sleep(0.02)
        gateway.links.port.supersede(spec.revision, None, key_of(spec))
        await asyncio.sleep(0.3)
        assert not running.done()
        for size, passed_on in held:
            passed_on(size)
        result, rest = await running
        assert (result.function_error, bytes(taken) + rest) == ("", b"z" * 65536 * 18)
        while sum(gateway.links.port.stats().environments.values()):
            await asyncio.sleep(0.02)

    asyncio.run(with_gateway(tmp_path, scenario))


def test_another_event_runs_while_the_end_of_a_response_waits_for_its_taker(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, spec: VersionSpec) -> None:
        held: list[tuple[int, Callable[[int], None]]] = []

        def hold(data: bytes, passed_on: Callable[[int], None]) -> None:
            held.append((len(data), passed_on))

        def pass_on(data: bytes, passed_on: Callable[[int], None]) -> None:
            passed_on(len(data))

        slow = asyncio.ensure_future(gateway.invoke(spec, b'{"pieces":18}', on_data=hold, streaming=True))
        while sum(size for size, _ in held) < WINDOW:
            await asyncio.sleep(0.02)
        result, _ = await gateway.invoke(spec, b'{"pieces":40}', on_data=pass_on, streaming=True)
        assert result.function_error == ""
        assert gateway.links.port.stats().environments["idle"] + gateway.links.port.stats().environments["busy"] == 1
        for size, passed_on in held:
            passed_on(size)
        result, _ = await slow
        assert result.function_error == ""

    asyncio.run(with_gateway(tmp_path, scenario))


def test_a_link_that_breaks_before_the_first_piece_loses_nothing_of_the_response(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, spec: VersionSpec) -> None:
        pieces: list[bytes] = []

        def on_data(data: bytes, passed_on: Callable[[int], None]) -> None:
            pieces.append(data)
            passed_on(len(data))

        running = asyncio.ensure_future(gateway.invoke(spec, b'{"pieces":40,"wait":1000}', on_data=on_data, streaming=True))
        while gateway.links.port.stats().environments["busy"] == 0:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        for supervisor in list(gateway.links.port._links.values()):
            supervisor.link.abort("cut by the test")
        result, rest = await running
        assert (result.function_error, b"".join(pieces) + rest) == ("", b"z" * 65536 * 40)

    asyncio.run(with_gateway(tmp_path, scenario))
