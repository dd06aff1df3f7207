"""``provided`` runtimes: an executable ``bootstrap`` that speaks the Runtime API itself, here in shell and Python without our client."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from supervised import need_namespaces, supervised

PYTHON = os.path.realpath(sys.executable)

# A small custom runtime: http.client, one connection, what the event says.
RUNTIME = f"""#!{PYTHON} -S
import http.client, json, os, sys, time
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
BASE = "/2018-06-01/runtime/"
def call(method, path, body=None, headers={{}}, **more):
    api.request(method, BASE + path, body, headers, **more)
    answer = api.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()
while True:
    _, headers, event = call("GET", "invocation/next")
    id = headers["Lambda-Runtime-Aws-Request-Id"]
    exec(json.loads(event))
"""

ANSWER = """
status, _, said = call("POST", f"invocation/{id}/response", %s, {"Content-Type": "text/plain"})
"""


def custom(folder: Path, *, code: str = RUNTIME, **options: Any) -> Any:
    return supervised(folder, {"bootstrap": code}, runtime="provided.al2023", command=(), **options)


def test_whatever_a_custom_runtime_posts_is_the_answer_untouched(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with custom(tmp_path) as function:
            result, payload = await function.invoke(ANSWER % "b'not json \\x00\\xff'")
            assert (result.function_error, result.content_type, payload) == ("", "text/plain", b"not json \x00\xff")
            result, payload = await function.invoke(ANSWER % "b''")
            assert (result.function_error, payload) == ("", b"")

    asyncio.run(scenario())


def test_the_variables_of_a_custom_runtime(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with custom(tmp_path, handler="any.words at all") as function:
            found = await function.returned(ANSWER % "json.dumps(dict(os.environ))")
            assert found["_HANDLER"] == "any.words at all"
            assert "AWS_EXECUTION_ENV" not in found
            assert "PYTHONPATH" not in found

    asyncio.run(scenario())


def test_an_error_is_passed_on_verbatim_with_its_type_for_the_log(tmp_path: Path) -> None:
    post = """
call("POST", f"invocation/{id}/error", b'{"errorMessage": "m",  "errorType": "T"}', %s)
"""

    async def scenario() -> None:
        async with custom(tmp_path) as function:
            result, payload = await function.invoke(post % '{"Lambda-Runtime-Function-Error-Type": "Runtime.Own"}')
            assert (result.function_error, result.error_type) == ("Unhandled", "Runtime.Own")
            assert payload == b'{"errorMessage": "m",  "errorType": "T"}'
            result, _ = await function.invoke(post % '{"Lambda-Runtime-Function-Error-Type": "nonsense"}')
            assert result.error_type == "Function.Unknown"

    asyncio.run(scenario())


def test_a_streamed_response_arrives_piece_by_piece_and_whole_without_a_taker(tmp_path: Path) -> None:
    stream = """
def pieces():
    yield b'{"statusCode": 200}'
    yield bytes(8)
    for piece in (b"one", b"two"):
        time.sleep(0.02)
        yield piece
call("POST", f"invocation/{id}/response", pieces(), {"Lambda-Runtime-Function-Response-Mode": "streaming",
     "Content-Type": "application/vnd.awslambda.http-integration-response", "Transfer-Encoding": "chunked"}, encode_chunked=True)
"""
    whole = b'{"statusCode": 200}' + bytes(8) + b"onetwo"

    async def scenario() -> None:
        async with custom(tmp_path) as function:
            pieces: list[bytes] = []

            async def take(data: bytes) -> None:
                pieces.append(data)

            result, payload = await function.invoke(stream, on_data=take)
            assert (result.function_error, payload, b"".join(pieces)) == ("", b"", whole)
            assert result.content_type == "application/vnd.awslambda.http-integration-response"
            assert len(pieces) > 1
            result, payload = await function.invoke(stream)
            assert (result.function_error, payload) == ("", whole)

    asyncio.run(scenario())


def test_a_slow_taker_slows_the_runtime_down_instead_of_filling_memory(tmp_path: Path) -> None:
    stream = """
sent = 0
def pieces():
    global sent
    for _ in range(400):
        yield bytes(64 << 10)
        sent += 1
        os.environ["SENT"] = str(sent)
        open(os.environ["TMPDIR"] + "/sent", "w").write(str(sent))
call("POST", f"invocation/{id}/response", pieces(), {"Lambda-Runtime-Function-Response-Mode": "streaming",
     "Transfer-Encoding": "chunked"}, encode_chunked=True)
"""

    async def scenario() -> None:
        async with custom(tmp_path) as function:
            gate = asyncio.Event()
            taken = 0

            async def take(data: bytes) -> None:
                nonlocal taken
                await gate.wait()
                taken += len(data)

            running = asyncio.create_task(function.invoke(stream, on_data=take))
            counter = next(iter((tmp_path / "work" / "tmp").iterdir())) / "sent"
            last, now = -1, 0
            while now != last or now == 0:  # until it stands still
                last = now
                await asyncio.sleep(0.1)
                now = int(counter.read_text() or 0) if counter.exists() else 0
            assert now < 200, "socket buffers and one window, not the whole response"
            gate.set()
            result, _ = await running
            assert (result.function_error, taken) == ("", 400 * (64 << 10))

    asyncio.run(scenario())


def test_a_stream_that_fails_on_its_way_ends_with_the_error_of_its_trailers(tmp_path: Path) -> None:
    stream = """
import base64
api.putrequest("POST", BASE + f"invocation/{id}/response")
for name, value in (("Lambda-Runtime-Function-Response-Mode", "streaming"), ("Transfer-Encoding", "chunked"),
                    ("Trailer", "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body")):
    api.putheader(name, value)
api.endheaders()
body = base64.b64encode(b'{"errorMessage":"half way"}').decode()
api.send(b"4\\r\\nhalf\\r\\n0\\r\\nLambda-Runtime-Function-Error-Type: Function.Half\\r\\n"
         b"Lambda-Runtime-Function-Error-Body: " + body.encode() + b"\\r\\n\\r\\n")
api.getresponse().read()
"""

    async def scenario() -> None:
        async with custom(tmp_path) as function:
            pieces: list[bytes] = []

            async def take(data: bytes) -> None:
                pieces.append(data)

            result, payload = await function.invoke(stream, on_data=take)
            assert b"".join(pieces) == b"half"
            assert (result.function_error, result.error_type) == ("Unhandled", "Function.Half")
            assert payload == b'{"errorMessage":"half way"}'
            assert await function.returned(ANSWER % "b'1'") == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("end", ["api.close(); time.sleep(60)", "os._exit(4)"])
def test_a_response_that_breaks_off_is_an_error_and_not_a_result(tmp_path: Path, end: str) -> None:
    partial = (
        "api.putrequest('POST', BASE + f'invocation/{id}/response')\napi.putheader('Content-Length', '10')\n"
        f"api.endheaders()\napi.send(b'half')\n{end}\n"
    )

    async def scenario() -> None:
        async with custom(tmp_path) as function:
            error = await function.failed(partial)
            assert error["errorType"] in {"Runtime.TruncatedResponse", "Runtime.ExitError"}
            assert await function.returned(ANSWER % "b'1'") == 1

    asyncio.run(scenario())


def test_a_second_answer_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    twice = ANSWER % "b'1'" + "second = call('POST', f'invocation/{id}/response', b'2')\n"

    async def scenario() -> None:
        async with custom(tmp_path) as function:
            assert await function.returned(twice) == 1
            status, _, body = await function.returned(ANSWER % "json.dumps([second[0], None, second[2].decode()])")
            assert (status, json.loads(body)) == (400, {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"})

    asyncio.run(scenario())


def test_a_runtime_that_serves_one_event_per_process_is_started_for_each(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with custom(tmp_path) as function:
            post = ANSWER % "str(os.getpid())" + "os._exit(0)\n"
            pids = [await function.returned(post) for _ in range(3)]
            assert len(set(pids)) == 3

    asyncio.run(scenario())


def test_a_shell_script_can_be_a_runtime(tmp_path: Path) -> None:
    shell = f"""#!/bin/sh
while true; do
  {PYTHON} -S - <<'END'
import http.client, os
def call(method, path, body=None):
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    api.request(method, "/2018-06-01/runtime/invocation/" + path, body)
    answer = api.getresponse()
    return answer.headers, answer.read()
headers, event = call("GET", "next")
call("POST", headers["Lambda-Runtime-Aws-Request-Id"] + "/response", event.upper())
END
done
"""

    async def scenario() -> None:
        async with custom(tmp_path, code=shell) as function:
            assert [await function.returned("abc"), await function.returned("def")] == ["ABC", "DEF"]

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["plain", "namespaces"])
def test_the_bootstrap_of_a_layer_serves_where_the_task_has_none(tmp_path: Path, mode: str) -> None:
    if mode == "namespaces":
        need_namespaces(tmp_path)
    opt = tmp_path / "opt"
    opt.mkdir()
    (opt / "bootstrap").write_text(RUNTIME)
    (opt / "bootstrap").chmod(0o755)

    async def scenario() -> None:
        async with supervised(
            tmp_path, {"data": "x"}, runtime="provided", command=(), opt_root=str(opt), mode=mode  # type: ignore[arg-type]
        ) as function:  # fmt: skip
            path = await function.returned(ANSWER % "json.dumps(sys.argv[0])")
            assert path == ("/opt/bootstrap" if mode == "namespaces" else str(opt / "bootstrap"))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("content", "mode", "text"),
    [
        pytest.param(None, 0, "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]", id="none"),
        pytest.param("echo", 0o644, "fork/exec /var/task/bootstrap: permission denied", id="not-executable"),
        pytest.param(
            "#!/no/such/shell\n", 0o755, "fork/exec /var/task/bootstrap: no such file or directory", id="no-interpreter"
        ),
    ],
)
def test_an_entrypoint_that_cannot_run_is_said_in_lambdas_words(
    tmp_path: Path, content: str | None, mode: int, text: str
) -> None:
    async def scenario() -> None:
        async with supervised(tmp_path, {"other": "x"}, runtime="provided.al2", command=(), init=False) as function:
            if content is not None:
                (tmp_path / "task" / "bootstrap").write_text(content)
                (tmp_path / "task" / "bootstrap").chmod(mode)
            await function.environment.init()
            result, payload = await function.invoke()
            assert json.loads(payload) == {
                "errorType": "Runtime.InvalidEntrypoint",
                "errorMessage": f"RequestId: {result.request_id} Error: {text}",
            }

    asyncio.run(scenario())
