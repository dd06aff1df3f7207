"""What a Python function finds around it: variables, paths, imports, files, its log; and what it can do to all that."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from kappa_runtime.supervisor.log_capture import BURST_BYTES
from supervised import need_namespaces, supervised

EVALUATE = """
import os, sys, time, subprocess
def handler(event, context):
    return eval(event)
"""


def evaluate(folder: Path, *expressions: str, code: dict[str, str] | None = None, **options: Any) -> list[Any]:
    """The values of expressions inside a function."""

    async def scenario() -> list[Any]:
        async with supervised(folder, {"index.py": EVALUATE} | (code or {}), **options) as function:
            return [await function.returned(expression) for expression in expressions]

    return asyncio.run(scenario())


def test_variables_are_lambdas_and_the_customers_and_nothing_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "HTTPS_PROXY", "KAPPA_DATA_DIR", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the developer's")
    (found,) = evaluate(
        tmp_path,
        "dict(os.environ)",
        variables={"STAGE": "test", "TZ": "Europe/Vienna", "AWS_REGION": "not allowed"},
        platform_variables={
            "AWS_ACCESS_KEY_ID": "session",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
            "KAPPA_SDK_PYTHON": "/x",
        },
    )
    assert found["AWS_ACCESS_KEY_ID"] == "session"
    assert found["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    assert (found["STAGE"], found["TZ"], found["AWS_REGION"]) == ("test", "Europe/Vienna", "us-east-1")
    assert "leaked" not in found.values()
    assert not {"HOME", "HOSTNAME", "USER"} & found.keys()
    assert not [name for name in found if "KAPPA" in name]


def test_a_trace_header_is_there_for_its_invocation_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, EVALUATE) as function:
            asked = "os.environ.get('_X_AMZN_TRACE_ID')"
            assert await function.returned(asked, trace_id="Root=1-5e1b4151-0;Sampled=0") == "Root=1-5e1b4151-0;Sampled=0"
            assert await function.returned(asked) is None

    asyncio.run(scenario())


def test_imports_come_from_the_task_then_layers_then_the_sdk_and_never_from_kappa(tmp_path: Path) -> None:
    opt, sdk = tmp_path / "opt", tmp_path / "sdk"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = {
        "task": tmp_path / "task",
        "site": opt / "python" / "lib" / version / "site-packages",
        "layer": opt / "python",
        "sdk": sdk,
    }
    order = list(places)
    for position, place in enumerate(order):
        places[place].mkdir(parents=True, exist_ok=True)
        for other in order[position:]:  # a package "first_in_x" is in x and in all places after it
            (places[place] / f"last_in_{other}.py").write_text(f"where = {place!r}")
        for other in order[: position + 1]:
            (places[place] / f"first_in_{other}.py").write_text(f"where = {place!r}")
    found = evaluate(
        tmp_path,
        *(f"__import__('first_in_{place}').where" for place in order),
        "[name for name in ('kappa_core', 'kappa_runtime', 'msgspec', 'botocore', 'pytest', 'bootstrap', 'zygote')"
        " if __import__('importlib.util').util.find_spec(name)]",
        "[entry for entry in sys.path if 'site-packages' in entry or 'dist-packages' in entry]",
        opt_root=str(opt),
        platform_variables={"KAPPA_SDK_PYTHON": str(sdk)},
    )
    assert found == [*order, [], [str(places["site"])]]


def test_pth_files_of_the_task_are_honoured(tmp_path: Path) -> None:
    code = {"more.pth": "vendored\n", "vendored/inside.py": "where = 'vendored'"}
    assert evaluate(tmp_path, "__import__('inside').where", code=code) == ["vendored"]


@pytest.mark.parametrize("variables", [{}, {"PYTHONHASHSEED": "7"}], ids=["zygote", "spawned"])
def test_a_function_looks_like_a_program_started_on_lambda(tmp_path: Path, variables: dict[str, str]) -> None:
    found = evaluate(
        tmp_path,
        "sys.argv",
        "os.getcwd()",
        "__import__('__main__').__name__",
        "callable(exit)",
        "os.read(0, 1).decode()",
        "[__import__('resource').getrlimit(__import__('resource').RLIMIT_NOFILE), os.getsid(0) == os.getpid()]",
        "os.environ['PYTHONPATH'] == os.environ['LAMBDA_RUNTIME_DIR']",
        "len(os.listdir('/proc/self/fd'))",
        variables=variables,
    )
    assert found[:6] == [["/var/runtime/bootstrap.py"], str(tmp_path / "task"), "__main__", True, "", [[1024, 1024], True]]
    assert found[6] is True
    assert found[7] == 5, "standard streams, the Runtime API, and the directory being listed"


def test_random_numbers_differ_between_forks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, EVALUATE) as function:
            other = await function.host.start("environment-2")
            await other.init()
            asked = "__import__('random').random()"
            assert await function.returned(asked) != await function.returned(asked, environment=other)

    asyncio.run(scenario())


def test_python_variables_reach_the_interpreter(tmp_path: Path) -> None:
    assert evaluate(tmp_path, "sys.flags.optimize", variables={"PYTHONOPTIMIZE": "2"}) == [2]


def test_a_customers_pythonpath_replaces_the_layers(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "module.py").write_text("where = 'mine'")
    found = evaluate(tmp_path, "__import__('module').where", variables={"PYTHONPATH": str(tmp_path / "mine")})
    assert found == ["mine"]


def test_an_exec_wrapper_starts_the_runtime(tmp_path: Path) -> None:
    wrapper = '#!/bin/sh\nexport WRAPPED="$1"\nexec "$@"\n'
    found = evaluate(
        tmp_path,
        "os.environ['WRAPPED']",
        code={"wrapper": wrapper},
        variables={"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"},
    )
    assert found == [os.path.realpath(sys.executable)]


@pytest.mark.parametrize(("mode", "status"), [(0o644, 126), (None, 127)])
def test_a_wrapper_that_cannot_run_is_an_exit_error(tmp_path: Path, mode: int | None, status: int) -> None:
    wrapper = tmp_path / "wrapper"
    if mode is not None:
        wrapper.write_text("echo no")
        wrapper.chmod(mode)

    async def scenario() -> None:
        async with supervised(tmp_path, EVALUATE, variables={"AWS_LAMBDA_EXEC_WRAPPER": str(wrapper)}) as function:
            error = await function.failed("1")
            assert error["errorType"] == "Runtime.ExitError"
            assert error["errorMessage"].endswith(f"Runtime exited with error: exit status {status}")

    asyncio.run(scenario())


def test_what_is_printed_belongs_to_its_request(tmp_path: Path) -> None:
    code = """
import sys
print("at init")
def handler(event, context):
    print("out", event)
    print("err", event, file=sys.stderr)
    sys.stdout.write("unfinished %s" % event)
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code) as function:
            for event in (1, 2):
                result, _ = await function.invoke(event)
                middle = f"out {event}\nerr {event}\nunfinished {event}\n"
                log = function.log_of(result.request_id)
                assert log.startswith(f"START RequestId: {result.request_id} Version: $LATEST\n{middle}END RequestId: ")
                assert result.log_tail.decode() == log
            assert [line.request_id for line in function.lines if line.message == "at init\n"] == [""]

    asyncio.run(scenario())


def test_a_handler_that_prints_without_end_is_not_held_up_and_the_excess_is_counted(tmp_path: Path) -> None:
    code = """
def handler(event, context):
    line = "x" * 1023
    for _ in range(event):
        print(line)
    return "done"
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code) as function:
            lines = 3 * BURST_BYTES // 1024
            assert await function.returned(lines) == "done"
            kept = sum(1 for line in function.lines if line.message.startswith("xxx"))
            said = [line.message for line in function.lines if line.message.startswith("LOGS_DROPPED")]
            assert kept < lines
            count, size = lines - kept, (lines - kept) * 1024
            assert said == [f"LOGS_DROPPED {count} lines ({size} bytes) came faster than logs are taken and were dropped\n"]

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["sys.stdout.close()", "os.close(1)", "os.closerange(1, 3)", "setattr(sys, 'stdout', None)"])
def test_a_handler_that_closes_its_output_still_answers_and_fails_as_any_other(tmp_path: Path, how: str) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, EVALUATE) as function:
            await function.returned(how)
            pid = function.environment.pid
            assert await function.returned("40 + 2") == 42
            assert (await function.failed("1 / 0"))["errorType"] == "ZeroDivisionError"
            assert function.environment.pid == pid

    asyncio.run(scenario())


def test_a_response_over_the_limit_fails_and_keeps_the_environment(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, EVALUATE) as function:
            pid = await function.returned("os.getpid()")
            result, payload = await function.invoke("'x' * (7 << 20)")
            assert (result.function_error, result.error_type) == ("Unhandled", "Function.ResponseSizeTooLarge")
            assert payload == (
                b'{"errorMessage":"Response payload size exceeded maximum allowed payload size (6291556 bytes).",'
                b'"errorType":"Function.ResponseSizeTooLarge"}'
            )
            assert await function.returned("os.getpid()") == pid
            assert len(await function.returned("'x' * 6291000")) == 6291000

    asyncio.run(scenario())


def test_an_event_of_six_megabytes_goes_through(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, "def handler(event, context): return len(event)") as function:
            assert await function.returned("x" * (6 * 1024 * 1024 - 2)) == 6 * 1024 * 1024 - 2

    asyncio.run(scenario())


def test_an_init_over_its_limit_runs_again_inside_the_first_invocation(tmp_path: Path) -> None:
    code = """
import os, time
marker = os.environ["TMPDIR"] + "/second"
if not os.path.exists(marker):
    open(marker, "w").close()
    time.sleep(60)
def handler(event, context):
    return "initialised late"
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code, init_seconds=0.2) as function:
            assert function.environment.state == "cold"
            assert "\tPhase: init\tStatus: timeout\n" in function.log
            result, payload = await function.invoke()
            assert json.loads(payload) == "initialised late"
            assert result.init_ms == 0

    asyncio.run(scenario())


def test_an_init_that_never_ends_times_out_the_invocation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, "import time; time.sleep(60)", init_seconds=0.1, timeout=0.2) as function:
            error = await function.failed()
            assert error["errorType"] == "Sandbox.Timedout"
            assert "\tPhase: invoke\tStatus: timeout\n" in function.log

    asyncio.run(scenario())


def test_init_time_is_reported_and_billed_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, EVALUATE) as function:
            first, _ = await function.invoke("1")
            second, _ = await function.invoke("1")
            assert first.init_ms > 0
            assert first.billed_ms >= first.init_ms
            assert f"\tInit Duration: {first.init_ms:.2f} ms\t\n" in function.log_of(first.request_id)
            assert second.init_ms == 0
            assert "Init Duration" not in function.log_of(second.request_id)
            assert 0 < second.max_memory_mb <= 256

    asyncio.run(scenario())


def in_tmp(*names: str) -> list[str]:
    """What a function sees in /tmp: where this checkout itself lies under /tmp, the way to it stays visible."""
    _, top, first, *_ = Path(__file__).resolve().parts
    return sorted({*names, first} if top == "tmp" else names)


@pytest.mark.namespaces
def test_in_a_sandbox_the_paths_are_lambdas(tmp_path: Path) -> None:
    need_namespaces(tmp_path)
    opt, sdk = tmp_path / "opt", tmp_path / "sdk"
    (opt / "bin").mkdir(parents=True)
    sdk.mkdir()
    (sdk / "the_sdk.py").write_text("")
    found = evaluate(
        tmp_path,
        "[os.environ['LAMBDA_TASK_ROOT'], os.getcwd(), os.environ['LAMBDA_RUNTIME_DIR'], os.environ.get('TMPDIR')]",
        "[os.listdir('/var/task'), os.listdir('/opt'), os.listdir('/var/runtime'), sorted(os.listdir('/tmp'))]",
        "__import__('the_sdk').__file__",
        "sys.path[0]",
        "subprocess.run(['python3', '-S', '-c', 'print(1)'], capture_output=True, text=True).stdout",
        "os.listdir('/dev/pts') is not None",
        mode="namespaces",
        opt_root=str(opt),
        platform_variables={"KAPPA_SDK_PYTHON": str(sdk)},
    )
    assert found[0] == ["/var/task", "/var/task", "/var/runtime", None]
    assert found[1] == [["index.py"], ["bin"], ["the_sdk.py"], in_tmp()]
    assert found[2:] == ["/var/runtime/the_sdk.py", "/var/task", "1\n", True]


@pytest.mark.namespaces
def test_in_a_sandbox_only_tmp_can_be_written_and_only_as_much_as_there_is(tmp_path: Path) -> None:
    need_namespaces(tmp_path)
    code = """
import errno, os
def write(path, size=1):
    try:
        with open(path, "wb") as file:
            for _ in range(size):
                file.write(bytes(1 << 20))
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]
def handler(event, context):
    return {
        "task": write("/var/task/x"), "opt": write("/opt/x"), "runtime": write("/var/runtime/x"), "usr": write("/usr/x"),
        "root": write("/x"), "some": write("/tmp/some", 2), "all": write("/tmp/all", 8), "left": os.unlink("/tmp/all"),
        "again": write("/tmp/again", 1),
    }
"""

    async def scenario() -> None:
        async with supervised(tmp_path, code, mode="namespaces", ephemeral_mb=6) as function:
            assert await function.returned() == {
                "task": "EROFS", "opt": "EROFS", "runtime": "EROFS", "usr": "EROFS", "root": "EROFS", "some": "written",
                "all": "ENOSPC", "left": None, "again": "written",
            }  # fmt: skip

    asyncio.run(scenario())


@pytest.mark.namespaces
def test_in_a_sandbox_tmp_survives_a_reset_but_not_the_environment(tmp_path: Path) -> None:
    need_namespaces(tmp_path)

    async def scenario() -> None:
        async with supervised(tmp_path, EVALUATE, mode="namespaces", timeout=0.5) as function:
            await function.returned("open('/tmp/kept', 'w').write('x')")
            await function.failed("time.sleep(60)")
            assert await function.returned("sorted(os.listdir('/tmp'))") == in_tmp("kept")
            await function.failed("os._exit(1)")
            assert await function.returned("[sorted(os.listdir('/tmp')), os.getcwd()]") == [in_tmp("kept"), "/var/task"]
            other = await function.host.start("environment-2")
            await other.init()
            assert await function.returned("os.listdir('/tmp')", environment=other) == in_tmp()

    asyncio.run(scenario())


@pytest.mark.namespaces
def test_in_a_sandbox_hidden_directories_are_empty_and_privileges_are_gone(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    need_namespaces(tmp_path)
    # Below the checkout: what is below /tmp is out of a function's sight anyway.
    secret = Path(__file__).resolve().parent / "hidden"
    secret.mkdir(exist_ok=True)
    request.addfinalizer(lambda: shutil.rmtree(secret))
    (secret / "keys").write_text("secret")
    found = evaluate(
        tmp_path,
        f"os.path.exists({str(secret / 'keys')!r})",
        "[line.split()[1] for line in open('/proc/self/status') if line.startswith(('NoNewPrivs', 'CapEff'))]",
        mode="namespaces",
        hidden=(secret,),
    )
    assert found[0] is False
    assert int(found[1][0], 16) & ~0xF == 0, "at most what root needs to read files"
    assert found[1][1] == "1"
