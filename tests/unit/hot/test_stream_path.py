"""InvokeWithResponseStream over stand-ins: when pieces are passed on, and what a stream that breaks ends with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer

from kappa_core.errors import EnvironmentLostException
from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.path import Caller, OnData
from kappa_gateway.hot.routes import Route, RoutedVersion
from kappa_gateway.hot.stream import EVENT_BYTES, StreamPath
from made_specs import version_spec

SPEC = version_spec("hello", revision="uid.$LATEST.1", runtime="nodejs20.x", handler="index.handler", timeout=3.0)

Script = Callable[[OnData], Awaitable[tuple[frames.Result, bytes]]]


class Running:
    """A router, links that run ``script``, and a client; the client takes an event only while ``takes`` is set."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.takes = asyncio.Event()
        self.takes.set()
        self.started: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.complete = False
        self.passed_on = 0
        self.counted: list[str] = []
        self.in_flight = 0
        self.route: Route[str] = Route(
            function_arn=SPEC.function_arn,
            function_key="000000000000/us-east-1/hello/uid",
            reserved=None,
            primary=RoutedVersion("hello", label="7", make=self.make_spec),
            additional=None,
            weight=0.0,
            draw=lambda: 0.0,
            record=lambda code_class, _seconds, /, *, cold=False: self.counted.append(code_class),
        )

    async def make_spec(self, _: str) -> VersionSpec:
        return SPEC

    def inc(self) -> None:
        self.in_flight += 1

    def dec(self) -> None:
        self.in_flight -= 1

    def cached(self, _caller: Caller, _name: str, _qualifier: str | None, /) -> Route[str]:
        return self.route

    async def find(self, _caller: Caller, _name: str, _qualifier: str | None, /) -> Route[str]:
        return self.route

    async def invoke(self, *, on_data: OnData | None = None, invoke: frames.Invoke, **_: Any) -> tuple[frames.Result, bytes]:
        assert on_data is not None
        assert invoke.streaming
        return await self.script(on_data)

    def passes(self, size: int) -> None:
        self.passed_on += size

    async def send(self, message: dict[str, Any]) -> None:
        await self.takes.wait()
        if message["type"] == "http.response.start":
            self.started.append(message)
        else:
            self.bodies.append(message["body"])
            self.complete = not message.get("more_body", False)

    async def serve(self, *, stalled_seconds: float = 60.0) -> None:
        async def receive() -> Mapping[str, Any]:
            return {"type": "http.request", "body": b"{}"}

        path = StreamPath(
            authenticate=lambda *_: Caller("000000000000", "us-east-1"),
            router=self,
            links=self,
            limits=Limits(),
            in_flight=self,
            stalled_seconds=stalled_seconds,
        )
        target = "/2021-11-15/functions/hello/response-streaming-invocations"
        await path({"raw_path": target.encode(), "path": target, "query_string": b"", "headers": []}, receive, self.send)
        assert self.in_flight == 0

    def events(self) -> list[tuple[str, bytes]]:
        buffer = EventStreamBuffer()
        buffer.add_data(b"".join(self.bodies))
        return [(message.headers[":event-type"], message.payload) for message in buffer]


def result(**fields: Any) -> frames.Result:
    return frames.Result("request", **fields)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_head_and_pieces_leave_before_the_function_has_ended() -> None:
    async def scenario() -> None:
        ends = asyncio.Event()

        async def script(on_data: OnData) -> tuple[frames.Result, bytes]:
            on_data(b"one", running.passes)
            on_data(b"two", running.passes)
            await ends.wait()
            return result(), b""

        running = Running(script)
        serving = asyncio.ensure_future(running.serve())
        await until(lambda: running.passed_on == 6)
        headers = dict(running.started[0]["headers"])
        assert (headers[b"content-type"], headers[b"x-amz-executed-version"]) == (b"application/vnd.amazon.eventstream", b"7")
        assert running.events() == [("PayloadChunk", b"one"), ("PayloadChunk", b"two")]
        ends.set()
        await serving
        assert running.events()[-1] == ("InvokeComplete", b"{}")
        assert running.complete
        assert running.counted == ["ok"]

    run(scenario)


def test_nothing_is_passed_on_before_the_client_has_taken_it() -> None:
    async def scenario() -> None:
        async def script(on_data: OnData) -> tuple[frames.Result, bytes]:
            on_data(b"x" * 3 * EVENT_BYTES, running.passes)
            return result(), b""

        running = Running(script)
        running.takes.clear()
        serving = asyncio.ensure_future(running.serve())
        for _ in range(20):
            await asyncio.sleep(0)
        assert running.passed_on == 0
        running.takes.set()
        await serving
        assert running.passed_on == 3 * EVENT_BYTES
        assert [len(payload) for _, payload in running.events()[:-1]] == [EVENT_BYTES] * 3

    run(scenario)


def test_a_client_that_takes_nothing_for_too_long_counts_as_gone_and_the_function_runs_on() -> None:
    async def scenario() -> None:
        async def script(on_data: OnData) -> tuple[frames.Result, bytes]:
            on_data(b"x" * 3 * EVENT_BYTES, running.passes)
            await until(lambda: running.passed_on == 3 * EVENT_BYTES)
            return result(), b""

        running = Running(script)
        running.takes.clear()
        await running.serve(stalled_seconds=0.01)
        assert (running.bodies, running.complete) == ([], False)
        assert running.counted == ["ok"]

    run(scenario)


@pytest.mark.parametrize("error", [EnvironmentLostException("The node is gone."), RuntimeError("a secret detail")])
def test_what_breaks_after_the_first_piece_is_told_in_the_last_event(error: Exception) -> None:
    async def scenario() -> None:
        async def script(on_data: OnData) -> tuple[frames.Result, bytes]:
            on_data(b"half", running.passes)
            await until(lambda: running.passed_on == 4)
            raise error

        running = Running(script)
        await running.serve()
        (_, half), (kind, complete) = running.events()
        told = json.loads(complete)
        assert (half, kind, told["ErrorCode"]) == (b"half", "InvokeComplete", "ServiceException")
        assert "secret" not in told["ErrorDetails"]
        assert running.complete
        assert running.counted == ["platform_error"]

    run(scenario)


@pytest.mark.parametrize(
    ("error", "status"), [(EnvironmentLostException("The node is gone."), 502), (RuntimeError("a secret detail"), 500)]
)
def test_what_breaks_before_the_first_piece_is_an_ordinary_error(error: Exception, status: int) -> None:
    async def scenario() -> None:
        async def script(_: OnData) -> tuple[frames.Result, bytes]:
            raise error

        running = Running(script)
        await running.serve()
        assert running.started[0]["status"] == status
        assert json.loads(running.bodies[0])["Type"] == "Service"
        assert running.counted == ["platform_error"]

    run(scenario)


def test_a_failed_function_has_its_error_in_the_last_event_and_the_log_where_asked_for() -> None:
    async def scenario() -> None:
        async def script(on_data: OnData) -> tuple[frames.Result, bytes]:
            on_data(b"half", running.passes)
            return result(function_error="Unhandled"), b'{"errorType":"RangeError"}'

        running = Running(script)
        await running.serve()
        assert json.loads(running.events()[-1][1]) == {"ErrorCode": "Unhandled", "ErrorDetails": '{"errorType":"RangeError"}'}
        assert running.counted == ["function_error"]

    run(scenario)


def test_a_request_that_is_cancelled_gives_its_invocation_up() -> None:
    async def scenario() -> None:
        given_up = asyncio.Event()

        async def script(_: OnData) -> tuple[frames.Result, bytes]:
            try:
                await asyncio.Future()
            finally:
                given_up.set()
            raise AssertionError

        running = Running(script)
        serving = asyncio.ensure_future(running.serve())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        serving.cancel()
        await given_up.wait()
        assert running.started == []

    run(scenario)
