"""One gateway, real supervisors, real Python functions over a real Unix socket: what an invocation gets, whatever happens to it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bare_gateway import BareGateway, python_spec
from kappa_core.errors import EnvironmentLostException, TooManyRequestsException
from kappa_core.limits import SYNC_REQUEST_BYTES, Limits
from kappa_runtime.nursery import descent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="environments are found through /proc here")

WHO = "import os\ndef handler(event, context):\n    return [os.getpid(), event]\n"
SLEEP = "import os, time\ndef handler(event, context):\n    time.sleep(event)\n    return os.getpid()\n"

Scenario = Callable[[BareGateway, Path], Awaitable[None]]


def run(tmp_path: Path, scenario: Scenario, **options: Any) -> None:
    """Run a scenario in a gateway of its own; afterwards none of its processes is left."""

    async def run_it() -> int | None:
        gateway = await BareGateway.open(tmp_path, **options)
        try:
            async with asyncio.timeout(60):
                await scenario(gateway, tmp_path)
            assert gateway.provider is not None
            return gateway.provider.nursery_pid
        finally:
            await gateway.close()

    before = descent.descendants(os.getpid())
    asyncio.run(run_it())
    # Those of a nursery that was killed end by themselves, and stay zombies where this process adopts orphans.
    asyncio.run(eventually(lambda: not [pid for pid in descent.descendants(os.getpid()) - before if alive(pid)]))
    assert not list(tmp_path.glob("supervisors/*"))


async def eventually(holds: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def supervisor_of(pid: int) -> int:
    """The supervisor above an environment's process (the zygote stands between them)."""
    line = []
    while pid > 1:
        line.append(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        if pid == os.getpid():
            return line[-2]
    raise AssertionError("not a descendant of this process")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_cold_invocation_answers_and_the_next_one_reuses_its_environment(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, WHO)
        pid, event = await gateway.json(spec, {"a": [1, "ä"]})
        assert event == {"a": [1, "ä"]}
        assert [await gateway.json(spec, number) for number in range(3)] == [[pid, 0], [pid, 1], [pid, 2]]
        stats = gateway.links.port.stats()
        assert (stats.environments["idle"], stats.in_flight, stats.cold_starts) == (1, 0, 1)

    run(tmp_path, scenario)


def test_one_environment_serves_its_waiters_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        # They come during the init of the only environment; a second one does not start within their wait.
        source = (
            "import time\ntime.sleep(0.5)\nn = 0\ndef handler(event, context):\n    global n\n    n += 1\n    return [event, n]\n"
        )
        spec = python_spec(folder, source)
        answers = await asyncio.gather(*(gateway.json(spec, number) for number in range(5)))
        served = [number for number, turn in answers if turn > 1]
        assert served == sorted(served)

    run(tmp_path, scenario)


@pytest.mark.parametrize("size", [0, 1000, 256 * 1024, SYNC_REQUEST_BYTES])
def test_payloads_go_both_ways_up_to_the_limit(tmp_path: Path, size: int) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, "def handler(event, context):\n    return event\n", memory_mb=1024)
        payload = b'"' + b"x" * max(0, size - 2) + b'"'
        for _ in range(2):
            result, answer = await gateway.invoke(spec, payload)
            assert not result.function_error, answer
            assert answer == payload

    run(tmp_path, scenario)


def test_log_lines_arrive_with_their_request_and_log_stream(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        source = "import os\ndef handler(event, context):\n    print('said', event)\n    return os.environ['AWS_LAMBDA_LOG_STREAM_NAME']\n"
        stream = await gateway.json(python_spec(folder, source), 7)
        await eventually(lambda: any(line.message.startswith("REPORT") for _, line in gateway.logs))
        request = next(line.request_id for _, line in gateway.logs if line.message.startswith("START"))
        said = [(name, line.request_id) for name, line in gateway.logs if line.message == "said 7\n"]
        assert said == [(stream, request)]

    run(tmp_path, scenario)


def test_a_function_that_prints_without_end_neither_delays_another_nor_grows_the_gateway(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        noisy = python_spec(
            folder, "def handler(e, c):\n    for n in range(400):\n        print('x' * 100_000)\n", name="noisy", timeout=30.0
        )
        quiet = python_spec(folder, WHO, name="quiet")
        await gateway.json(quiet, 0)
        talking = asyncio.ensure_future(gateway.json(noisy))
        for number in range(50):
            assert (await gateway.json(quiet, number))[1] == number
        assert await talking is None

    run(tmp_path, scenario)


def test_a_timeout_and_a_crash_are_answered_and_the_next_invocation_has_a_new_process(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        source = (
            "import os, time\n"
            "def handler(event, context):\n"
            "    if event == 'hang': time.sleep(60)\n"
            "    if event == 'crash': os._exit(7)\n"
            "    return os.getpid()\n"
        )
        spec = python_spec(folder, source, timeout=1.0)
        pids = [await gateway.json(spec)]
        for event, expected in ((b'"hang"', "Sandbox.Timedout"), (b'"crash"', "Runtime.ExitError")):
            result, payload = await gateway.invoke(spec, event)
            assert (result.function_error, result.error_type) == ("Unhandled", expected), payload
            pids.append(await gateway.json(spec))
        assert len(set(pids)) == 3
        assert [pid for pid in pids if alive(pid)] == pids[-1:]

    run(tmp_path, scenario)


def test_idle_environments_end_and_their_supervisor_after_them(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        pid, _ = await gateway.json(python_spec(folder, WHO), 0)
        supervisor = supervisor_of(pid)
        await eventually(lambda: not alive(pid))
        await eventually(lambda: not alive(supervisor))
        assert gateway.links.port.stats().environments == {"init": 0, "idle": 0, "busy": 0, "draining": 0}
        again, _ = await gateway.json(python_spec(folder, WHO), 0)
        assert again != pid

    run(tmp_path, scenario, idle_seconds=0.5, linger_seconds=0.2, spares=False)


def test_reserved_concurrency_is_exact_and_refusals_name_their_reason(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, SLEEP)
        outcomes = await asyncio.gather(*(gateway.json(spec, 1, reserved=2) for _ in range(6)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert len({outcome for outcome in outcomes if isinstance(outcome, int)}) == 2
        assert len(refused) == 4
        assert {error.reason for error in refused if isinstance(error, TooManyRequestsException)} == {
            "ReservedFunctionConcurrentInvocationLimitExceeded"
        }

    run(tmp_path, scenario)


def test_no_reserved_concurrency_means_no_environment_at_all(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        with pytest.raises(TooManyRequestsException):
            await gateway.json(python_spec(folder, WHO), reserved=0)
        assert gateway.links.port.stats().supervisors == 0

    run(tmp_path, scenario, spares=False)


def test_the_account_limit_refuses_with_its_own_reason(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, SLEEP)
        outcomes = await asyncio.gather(*(gateway.json(spec, 1) for _ in range(3)), return_exceptions=True)
        reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, TooManyRequestsException)]
        assert reasons == ["ConcurrentInvocationLimitExceeded"]

    run(tmp_path, scenario, limits=Limits(account_concurrency=2))


def test_a_killed_supervisor_loses_what_it_ran_and_the_next_invocation_gets_a_new_one(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, SLEEP)
        pid = await gateway.json(spec, 0)
        running = asyncio.ensure_future(gateway.json(spec, 30))
        await asyncio.sleep(0.1)
        os.kill(supervisor_of(pid), signal.SIGKILL)
        with pytest.raises(EnvironmentLostException):
            await running
        await eventually(lambda: not alive(pid))
        assert await gateway.json(spec, 0) != pid

    run(tmp_path, scenario)


def test_a_killed_nursery_lets_what_runs_finish_and_is_replaced(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, SLEEP)
        pid = await gateway.json(spec, 0)
        running = asyncio.ensure_future(gateway.json(spec, 1))
        await asyncio.sleep(0.2)
        assert gateway.provider is not None
        nursery = gateway.provider.nursery_pid
        assert nursery is not None
        os.kill(nursery, signal.SIGKILL)
        assert await running == pid
        await eventually(lambda: not alive(pid))
        assert await gateway.json(spec, 0) != pid
        assert gateway.provider.nursery_pid not in {nursery, None}

    run(tmp_path, scenario)


def test_a_broken_link_is_dialled_again_and_a_running_invocation_resumes(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, SLEEP)
        pid = await gateway.json(spec, 0)
        running = asyncio.ensure_future(gateway.json(spec, 1))
        await asyncio.sleep(0.2)
        for link in list(gateway.links.port._links.values()):
            link.link.abort("cut by the test")
        assert await running == pid
        assert await gateway.json(spec, 0) == pid

    run(tmp_path, scenario)


def test_an_answer_that_was_under_way_when_the_link_broke_is_not_lost(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, "def handler(event, context):\n    return 'y' * event\n", memory_mb=1024)
        assert await gateway.json(spec, 1) == "y"

        async def cut() -> None:
            for _ in range(20):
                await asyncio.sleep(0.02)
                for link in list(gateway.links.port._links.values()):
                    link.link.abort("cut by the test")
                await eventually(lambda: gateway.links.port._links)

        cutting = asyncio.ensure_future(cut())
        sizes = [5_000_000, 10, 300_000] * 6
        for size in sizes:
            try:
                assert len(await gateway.json(spec, size)) == size
            except EnvironmentLostException as error:
                pytest.fail(f"{size} bytes: {error}")
        await cutting

    run(tmp_path, scenario)


def test_a_failing_import_is_told_to_the_caller_and_not_retried_for_ever(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        result, payload = await gateway.invoke(python_spec(folder, "import nothing_of_this_name\n"))
        assert result.function_error == "Unhandled"
        assert b"Runtime.ImportModuleError" in payload

    run(tmp_path, scenario)


def test_a_new_revision_takes_over_without_failing_an_invocation(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        old = python_spec(folder, "import time\ndef handler(e, c):\n    time.sleep(e)\n    return 'old'\n", revision="1")
        new = python_spec(folder, "def handler(e, c):\n    return 'new'\n", revision="2")
        assert await gateway.json(old, 0) == "old"
        running = asyncio.ensure_future(gateway.json(old, 1))
        await asyncio.sleep(0.2)
        gateway.links.port.supersede(old.revision, new, "000000000000/us-east-1/f/uid-f")
        assert await gateway.json(new, 0) == "new"
        assert await running == "old"
        await eventually(lambda: gateway.links.scaling.environments(old.revision) == {})
        assert gateway.links.port.stats().environments["idle"] == 1

    run(tmp_path, scenario)


def test_a_deleted_function_finishes_what_runs_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, SLEEP)
        pid = await gateway.json(spec, 0)
        running = asyncio.ensure_future(gateway.json(spec, 1))
        await asyncio.sleep(0.2)
        gateway.links.port.supersede(spec.revision, None, "000000000000/us-east-1/f/uid-f")
        gateway.links.port.retire_function("000000000000/us-east-1/f/uid-f")
        assert await running == pid
        await eventually(lambda: not alive(pid))

    run(tmp_path, scenario)


def test_thirty_functions_cold_at_once_all_answer(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        specs = [python_spec(folder, WHO, name=f"f{number}") for number in range(30)]
        answers = await asyncio.gather(*(gateway.json(spec, number) for number, spec in enumerate(specs)))
        assert [event for _, event in answers] == list(range(30))
        assert len({pid for pid, _ in answers}) == 30

    run(tmp_path, scenario)


def test_an_interpreter_that_is_not_there_is_an_error_and_no_hang(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, WHO, command=("/nonexistent/python3",))
        result, payload = await gateway.invoke(spec)
        assert result.function_error == "Unhandled"
        assert b"Runtime.ExitError" in payload

    run(tmp_path, scenario)


def test_a_cancelled_invocation_that_waits_is_forgotten_and_one_that_runs_goes_on(tmp_path: Path) -> None:
    async def scenario(gateway: BareGateway, folder: Path) -> None:
        spec = python_spec(folder, "import time, pathlib\ndef handler(e, c):\n    time.sleep(0.3)\n    pathlib.Path(e).touch()\n")
        done = folder / "done"
        running = asyncio.ensure_future(gateway.json(spec, str(done)))
        await eventually(lambda: gateway.links.port.in_flight == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await eventually(done.exists)
        await eventually(lambda: gateway.links.port.in_flight == 0)

    run(tmp_path, scenario, sandbox="plain")
