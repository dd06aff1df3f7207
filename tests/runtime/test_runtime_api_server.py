"""The Runtime API server on the wire: routes, refusals, odd but legal HTTP, and what it must never do to a client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from kappa_core.link.frames import Invoke
from kappa_runtime.supervisor.response_stream import ResponseStream
from kappa_runtime.supervisor.runtime_api import Answer, RuntimeApi

ID = "8476a536-e9f4-11e8-9739-2dfe598c3fcd"
LIMIT = 1000
NEXT = "/2018-06-01/runtime/invocation/next"
RESPONSE = f"/2018-06-01/runtime/invocation/{ID}/response"


class Recorder:
    """A lifecycle that only listens."""

    def __init__(self) -> None:
        self.waits = 0
        self.answers: list[Answer] = []
        self.init_errors: list[tuple[bytes, str]] = []
        self.broken = 0
        self.stream: ResponseStream | None = None
        self.wants_streams = False

    def runtime_waits(self) -> None:
        self.waits += 1

    def init_failed(self, body: bytes, error_type: str) -> None:
        self.init_errors.append((body, error_type))

    def answered(self, answer: Answer) -> None:
        self.answers.append(answer)

    def stream_started(self, stream: ResponseStream, content_type: str) -> bool:
        self.stream = stream if self.wants_streams else None
        return self.wants_streams

    def response_broken(self) -> None:
        self.broken += 1


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader, self.writer, self.host = reader, writer, host

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        fields = {"Host": self.host, "Content-Length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            return int(status.split()[1]), headers, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        self.request(method, path, body, **headers)
        status, _, body = await self.answer()
        return status, body


Connect = Callable[[], Awaitable[Client]]


@asynccontextmanager
async def served() -> AsyncIterator[tuple[RuntimeApi, Recorder, Connect]]:
    recorder = Recorder()
    api = RuntimeApi(recorder, response_bytes=LIMIT)
    await api.listen()
    clients: list[Client] = []

    async def connect() -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        clients.append(Client(reader, writer, api.address))
        return clients[-1]

    try:
        yield api, recorder, connect
    finally:
        for client in clients:
            client.writer.close()
        await api.close()
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def invoke(**fields: str) -> Invoke:
    return Invoke(request_id=ID, function_arn="arn:aws:lambda:eu-west-1:000000000000:function:f:live", **fields)


def run(scenario: Callable[[RuntimeApi, Recorder, Connect], Awaitable[None]]) -> None:
    async def main() -> None:
        async with served() as (api, recorder, connect):
            await scenario(api, recorder, connect)

    asyncio.run(main())


async def given(api: RuntimeApi, recorder: Recorder, client: Client, payload: bytes = b"{}") -> dict[str, str]:
    """An event is delivered to the client; its headers."""
    waits = recorder.waits
    client.request("GET", NEXT)
    await until(lambda: recorder.waits == waits + 1)
    api.deliver(invoke(), payload, 1)
    status, headers, body = await client.answer()
    assert (status, body) == (200, payload)
    return headers


def test_an_event_carries_the_headers_of_lambda() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        client.request("GET", NEXT)
        await until(lambda: recorder.waits == 1)
        frame = invoke(
            trace_id="Root=1;Sampled=0", client_context='{"a":\n"\u00fc"}', cognito_identity='{"c":1}', tenant_id="blue"
        )
        api.deliver(frame, b'{"k":1}', 1700000000123)
        status, headers, body = await client.answer()
        assert (status, body) == (200, b'{"k":1}')
        assert headers == {
            "content-type": "application/json",
            "content-length": "7",
            "lambda-runtime-aws-request-id": ID,
            "lambda-runtime-deadline-ms": "1700000000123",
            "lambda-runtime-invoked-function-arn": "arn:aws:lambda:eu-west-1:000000000000:function:f:live",
            "lambda-runtime-trace-id": "Root=1;Sampled=0",
            "lambda-runtime-client-context": '{"a": "\u00fc"}',
            "lambda-runtime-cognito-identity": '{"c":1}',
            "lambda-runtime-aws-tenant-id": "blue",
        }

    run(scenario)


def test_headers_without_a_value_are_left_out() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        headers = await given(api, recorder, await connect())
        assert not [name for name in headers if "trace" in name or "context" in name or "cognito" in name or "tenant" in name]

    run(scenario)


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_a_response_is_taken_whole_and_accepted(size: int) -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        await given(api, recorder, client)
        assert await client.ask("POST", RESPONSE, b"x" * size, Content_Type="text/plain") == (202, b'{"status":"OK"}\n')
        assert recorder.answers == [Answer(body=b"x" * size, content_type="text/plain")]

    run(scenario)


def test_a_response_over_the_limit_is_read_discarded_and_accepted() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        await given(api, recorder, client)
        status, _ = await client.ask("POST", RESPONSE, b"x" * (LIMIT + 1))
        assert status == 202
        assert recorder.answers == [Answer(body=b"", too_large=LIMIT)]
        await given(api, recorder, client)

    run(scenario)


def test_result_and_next_question_in_one_write_are_answered_in_one() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        await given(api, recorder, client)
        for number in range(3):
            head = (
                f"POST {RESPONSE} HTTP/1.1\r\nHost: {api.address}\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n"
            )
            client.send(f"{head}{number}GET {NEXT} HTTP/1.1\r\nHost: {api.address}\r\n\r\n".encode())
            await until(lambda: recorder.waits == number + 2)  # noqa: B023
            assert recorder.answers[-1] == Answer(body=str(number).encode())
            api.deliver(invoke(), b"[]", 1)
            assert (await client.answer())[0] == 202
            assert (await client.answer())[2] == b"[]"

    run(scenario)


@pytest.mark.parametrize("step", [1, 7, 60])
def test_requests_may_come_in_pieces_of_any_size(step: int) -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        await given(api, recorder, client)
        head = f"POST {RESPONSE} HTTP/1.1\r\nHost: {api.address}\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n"
        data = f"{head}hello".encode() + f"GET {NEXT} HTTP/1.1\r\nHost: {api.address}\r\n\r\n".encode()
        for start in range(0, len(data), step):
            client.send(data[start : start + step])
            await client.writer.drain()
            await asyncio.sleep(0)
        await until(lambda: recorder.waits == 2)
        assert recorder.answers == [Answer(body=b"hello")]
        assert (await client.answer())[0] == 202

    run(scenario)


def test_a_chunked_response_and_100_continue_are_understood() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        await given(api, recorder, client)
        fields = f"Host: {api.address}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        client.send(f"POST {RESPONSE} HTTP/1.1\r\n{fields}".encode())
        assert (await client.answer())[0] == 100
        client.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert (await client.answer())[0] == 202
        assert recorder.answers[0].body == b"abcde"

    run(scenario)


def test_a_second_question_while_one_waits_is_neither_refused_nor_closed() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        first, second = await connect(), await connect()
        first.request("GET", NEXT)
        await until(lambda: recorder.waits == 1)
        second.request("GET", NEXT)
        await until(lambda: recorder.waits == 2)
        api.deliver(invoke(), b"1", 1)
        assert (await second.answer())[2] == b"1"
        assert not first.reader.at_eof()

    run(scenario)


def test_a_question_while_an_event_runs_waits() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client, other = await connect(), await connect()
        await given(api, recorder, client)
        other.request("GET", NEXT)
        await until(lambda: api.parked is not None)
        assert recorder.waits == 1, "it is not ready for another event"
        assert (await client.ask("POST", RESPONSE, b"1"))[0] == 202

    run(scenario)


@pytest.mark.parametrize(
    ("agent", "status"), [("aws-lambda-python/3.12.1-4.2.2", 202), ("aws-lambda-nodejs/22", 400), ("Go-http-client/1.1", 400)]
)
def test_an_answer_for_no_invocation_is_refused_unless_the_client_would_die_of_it(agent: str, status: int) -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        found, body = await client.ask("POST", RESPONSE, b"1", User_Agent=agent)
        assert found == status
        if status == 400:
            assert json.loads(body) == {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}
        assert recorder.answers == []

    run(scenario)


@pytest.mark.parametrize(
    ("header", "error_type"),
    [
        ("Runtime.HandlerNotFound", "Runtime.HandlerNotFound"),
        ("Function.Mine", "Function.Mine"),
        ("ValueError", "Runtime.Unknown"),
        ("", "Runtime.Unknown"),
    ],
)
def test_an_init_error_is_passed_on_with_a_type_of_lambdas_form(header: str, error_type: str) -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        path = "/2018-06-01/runtime/init/error"
        assert (await client.ask("POST", path, b"{}", Lambda_Runtime_Function_Error_Type=header))[0] == 202
        assert recorder.init_errors == [(b"{}", error_type)]

    run(scenario)


def test_an_init_error_after_init_is_refused() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        await given(api, recorder, client)
        status, body = await client.ask("POST", "/2018-06-01/runtime/init/error", b"{}")
        assert (status, json.loads(body)["errorType"]) == (403, "InvalidStateTransition")
        assert recorder.init_errors == []

    run(scenario)


@pytest.mark.parametrize(
    ("method", "path", "status", "error_type"),
    [
        ("GET", "/2018-06-01/ping", 200, None),
        ("POST", NEXT, 405, "MethodNotAllowed"),
        ("GET", "/2018-06-01/runtime/init/error", 405, "MethodNotAllowed"),
        ("GET", "/2018-06-01/runtime/restore/next", 403, "InvalidStateTransition"),
        ("POST", "/2020-01-01/extension/register", 403, "Extension.RegistrationClosed"),
        ("PUT", "/2022-07-01/telemetry", 202, "Telemetry.NotSupported"),
        ("PUT", "/2020-08-15/logs", 202, "Logs.NotSupported"),
        ("GET", "/", 404, "NotFound"),
    ],
)
def test_every_other_route_has_its_answer(method: str, path: str, status: int, error_type: str | None) -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        found, body = await client.ask(method, path, b"{}" if method != "GET" else b"")
        assert found == status
        assert body == b"pong" if error_type is None else json.loads(body)["errorType"] == error_type

    run(scenario)


def test_an_unknown_response_mode_is_refused_and_the_invocation_can_still_be_answered() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        await given(api, recorder, client)
        status, body = await client.ask("POST", RESPONSE, b"1", Lambda_Runtime_Function_Response_Mode="buffering")
        assert (status, json.loads(body)["errorType"]) == (400, "InvalidFunctionResponseMode")
        assert (await client.ask("POST", RESPONSE, b"2"))[0] == 202
        assert recorder.answers == [Answer(body=b"2")]

    run(scenario)


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example:80"}]
)
@pytest.mark.parametrize(("method", "path"), [("GET", NEXT), ("POST", RESPONSE)])
def test_a_web_page_can_neither_take_an_event_nor_answer_one(headers: dict[str, str], method: str, path: str) -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client, page = await connect(), await connect()
        await given(api, recorder, client)
        status, _ = await page.ask(method, path, b"1", **headers)
        assert (status, recorder.answers, recorder.waits) == (403, [], 1)
        assert (await client.ask("POST", RESPONSE, b"2"))[0] == 202

    run(scenario)


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_cut_off_and_harms_nobody(data: bytes) -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client, other = await connect(), await connect()
        await given(api, recorder, client)
        other.send(data)
        async with asyncio.timeout(10):
            assert (await other.reader.read()).startswith(b"HTTP/1.1 400 ")
        assert (await client.ask("POST", RESPONSE, b"2"))[0] == 202

    run(scenario)


def test_a_connection_that_ends_inside_a_response_is_told() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        await given(api, recorder, client)
        client.send(f"POST {RESPONSE} HTTP/1.1\r\nHost: {api.address}\r\nContent-Length: 9\r\n\r\nhalf".encode())
        client.writer.close()
        await until(lambda: recorder.broken == 1)
        assert recorder.answers == []

    run(scenario)


def test_a_runtime_that_stops_waiting_is_no_longer_given_events() -> None:
    async def scenario(api: RuntimeApi, recorder: Recorder, connect: Connect) -> None:
        client = await connect()
        client.request("GET", NEXT)
        await until(lambda: api.parked is not None)
        client.writer.close()
        await until(lambda: api.parked is None)

    run(scenario)
