"""The ProcessProvider with real processes: spares, what happens around starts that fail, and an end in the middle of everything."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bare_gateway import BareGateway, python_spec
from kappa_core.errors import EnvironmentLostException, ServiceUnavailableException
from kappa_core.limits import Limits
from kappa_gateway.embedded.nursery import nursery_environment
from kappa_runtime.nursery import descent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are counted through /proc here")

PARENTS = "import os\ndef handler(event, context):\n    return [os.getppid(), os.getpid()]\n"


def run(folder: Path, scenario: Callable[[BareGateway], Awaitable[None]], **options: Any) -> None:
    async def run_it() -> None:
        gateway = await BareGateway.open(folder, **options)
        try:
            async with asyncio.timeout(60):
                await scenario(gateway)
        finally:
            await gateway.close()

    before = descent.descendants(os.getpid())
    asyncio.run(run_it())
    assert descent.descendants(os.getpid()) <= before


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def supervisors(gateway: BareGateway) -> set[int]:
    assert gateway.provider is not None
    pid = gateway.provider.nursery_pid
    return set() if pid is None else descent.children(pid)


def test_nothing_is_started_before_the_first_function(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway) -> None:
        await asyncio.sleep(0)
        assert gateway.provider is not None
        assert gateway.provider.nursery_pid is None

    run(tmp_path, scenario)


def test_a_spare_becomes_the_supervisor_of_the_next_function_and_is_replaced(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway) -> None:
        assert gateway.provider is not None
        gateway.provider.expect(python_spec(tmp_path, PARENTS))
        await eventually(lambda: gateway.links.port.stats().supervisors == 1)
        (spare,) = supervisors(gateway)
        await eventually(lambda: descent.children(spare))  # its zygote
        assert not (await gateway.invoke(python_spec(tmp_path, PARENTS)))[0].function_error
        assert spare in supervisors(gateway)
        await eventually(lambda: len(supervisors(gateway)) == 2)

    run(tmp_path, scenario)


@pytest.mark.parametrize("idle", [0.0, 1.0], ids=["while it boots", "once it is up"])
def test_a_spare_whose_interpreter_is_no_longer_used_is_ended(tmp_path: Path, idle: float) -> None:
    async def scenario(gateway: BareGateway) -> None:
        provider = gateway.provider
        assert provider is not None
        provider.expect(python_spec(tmp_path, PARENTS))
        await eventually(lambda: provider.nursery_pid)
        await eventually(lambda: not provider._used)
        await eventually(lambda: not provider._supervisors)
        await eventually(lambda: not supervisors(gateway))

    run(tmp_path, scenario, spare_idle_seconds=idle + 0.3)


def test_supervisors_that_are_spawned_do_the_same(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway) -> None:
        assert (await gateway.json(python_spec(tmp_path, "def handler(e, c):\n    return e\n"), 5)) == 5

    run(tmp_path, scenario, spawn=True, spares=False)


def test_a_nursery_that_cannot_be_started_is_a_503_with_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(gateway: BareGateway) -> None:
        with pytest.raises(ServiceUnavailableException, match="does not start"):
            await gateway.json(python_spec(tmp_path, PARENTS, command=("/usr/bin/python3",)))
        assert gateway.causes

    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    run(tmp_path, scenario, limits=Limits(capacity_wait_seconds=20.0), spares=False)


def test_a_supervisor_that_cannot_work_says_why_and_the_next_one_is_tried(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway) -> None:
        spec = python_spec(tmp_path, PARENTS)
        in_the_way = tmp_path / "supervisors"
        in_the_way.write_text("a file where a directory should be")
        with pytest.raises(ServiceUnavailableException, match="supervisors"):
            await gateway.json(spec)
        in_the_way.unlink()
        for _ in range(20):
            try:
                await gateway.json(spec)
            except ServiceUnavailableException:
                continue  # the scaler tries again, ever more slowly
            break
        else:
            pytest.fail("it never recovered")

    run(tmp_path, scenario, spares=False)


def test_a_gateway_that_stops_during_cold_starts_fails_them_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway) -> None:
        specs = [python_spec(tmp_path, PARENTS, name=f"f{number}") for number in range(12)]
        waiting = [asyncio.ensure_future(gateway.json(spec)) for spec in specs]
        await eventually(lambda: gateway.links.port.stats().supervisors >= 1)
        await gateway.close()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(outcome, EnvironmentLostException | ServiceUnavailableException | list) for outcome in outcomes)

    run(tmp_path, scenario)


def test_a_stop_does_not_wait_for_a_handler_that_runs_on(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway) -> None:
        source = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef handler(e, c):\n    time.sleep(600)\n"
        running = asyncio.ensure_future(gateway.json(python_spec(tmp_path, source, timeout=900.0)))
        await eventually(lambda: gateway.links.port.in_flight == 1)
        started = time.monotonic()
        await gateway.close()
        assert time.monotonic() - started < 30  # far below the function's time; how fast exactly is the benchmark's business
        with pytest.raises(EnvironmentLostException):
            await running

    run(tmp_path, scenario)


def test_neither_credentials_nor_settings_of_the_gateway_reach_its_nursery() -> None:
    given = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "AWS_PROFILE": "y", "KAPPA_SECRET_ACCESS_KEY": "z", "HOME": "/h"}
    assert nursery_environment(given) == {"PATH": "/bin", "HOME": "/h"}
