"""Invoke from the ASGI request to the answer, over stand-ins: what is answered when running it fails, and what is counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from kappa_core.errors import ResourceNotFoundException, ServiceUnavailableException, TooManyRequestsException
from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_core.rules.lineage import STOPPED
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.invoke import InvokePath
from kappa_gateway.hot.path import Caller
from kappa_gateway.hot.routes import Route, RoutedVersion
from made_specs import version_spec

SPEC = version_spec("hello", revision="uid.$LATEST.1", timeout=3.0)


class Gauge:
    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        self.value += 1

    def dec(self) -> None:
        self.value -= 1


class Running:
    """Links, a router and everything else around one invocation. ``outcome`` is what running it ends in."""

    def __init__(self, outcome: frames.Result | Exception, *, deleted_meanwhile: bool = False) -> None:
        self.outcome = outcome
        self.deleted_meanwhile = deleted_meanwhile
        self.counted: list[tuple[str, bool]] = []
        self.ran: list[frames.Invoke] = []
        self.in_flight = Gauge()
        self.route: Route[str] = Route(
            function_arn="arn:aws:lambda:us-east-1:000000000000:function:hello",
            function_key="000000000000/us-east-1/hello/uid",
            reserved=None,
            primary=RoutedVersion("hello", label="$LATEST", make=self.make_spec),
            additional=None,
            weight=0.0,
            draw=lambda: 0.0,
            record=self.record,
        )

    async def make_spec(self, _: str) -> VersionSpec:
        return SPEC

    def record(self, code_class: str, _seconds: float, /, *, cold: bool = False) -> None:
        self.counted.append((code_class, cold))

    def cached(self, _caller: Caller, _name: str, _qualifier: str | None, /) -> Route[str]:
        return self.route

    async def find(self, _caller: Caller, name: str, _qualifier: str | None, /) -> Route[str]:
        if self.deleted_meanwhile:
            raise ResourceNotFoundException(f"Function not found: {name}")
        return self.route

    async def invoke(self, *, invoke: frames.Invoke, **_: Any) -> tuple[frames.Result, bytes]:
        self.ran.append(invoke)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome, b'"done"'

    def answer(self, *headers: tuple[bytes, bytes]) -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[dict[str, Any]] = []

        async def receive() -> Mapping[str, Any]:
            return {"type": "http.request", "body": b"{}"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        path = InvokePath(
            authenticate=lambda *_: Caller("000000000000", "us-east-1"),
            router=self,
            links=self,
            limits=Limits(),
            in_flight=self.in_flight,
            events=self,
        )
        target = "/2015-03-31/functions/hello/invocations"
        scope = {"raw_path": target.encode(), "path": target, "query_string": b"", "headers": list(headers)}
        asyncio.run(path(scope, receive, send))
        assert self.in_flight.value == 0
        return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def result(**fields: Any) -> frames.Result:
    return frames.Result("request", **fields)


@pytest.mark.parametrize(
    ("ran", "counted"),
    [
        pytest.param(result(), ("ok", False), id="warm"),
        pytest.param(result(init_ms=12.5), ("ok", True), id="cold"),
        pytest.param(result(function_error="Unhandled"), ("function_error", False), id="function error"),
    ],
)
def test_an_invocation_that_ran_is_answered_with_200_and_counted_once(ran: frames.Result, counted: tuple[str, bool]) -> None:
    running = Running(ran)
    status, headers, body = running.answer()
    assert (status, body) == (200, b'"done"')
    assert headers[b"x-amz-executed-version"] == b"$LATEST"
    assert running.counted == [counted]


def test_a_throttled_invocation_is_counted_as_such() -> None:
    running = Running(TooManyRequestsException(reason="ReservedFunctionConcurrentInvocationLimitExceeded"))
    assert running.answer()[0] == 429
    assert running.counted == [("throttled", False)]


def test_an_invocation_whose_function_is_deleted_while_it_waits_is_answered_as_for_a_function_that_is_not_there() -> None:
    status, headers, _ = Running(ServiceUnavailableException("the function was deleted"), deleted_meanwhile=True).answer()
    assert (status, headers[b"x-amzn-errortype"]) == (404, b"ResourceNotFoundException")


def test_an_invocation_that_found_no_environment_in_time_may_be_tried_again() -> None:
    status, headers, _ = Running(ServiceUnavailableException("no processor is free")).answer()
    assert (status, headers[b"x-amzn-errortype"]) == (503, b"ServiceUnavailableException")


def test_what_broke_inside_reaches_the_log_and_not_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    status, headers, body = Running(RuntimeError("a secret detail")).answer()
    assert (status, headers[b"x-amzn-errortype"]) == (500, b"ServiceException")
    assert b"secret" not in body
    assert "a secret detail" in caplog.text
    assert headers[b"x-amzn-requestid"] in body


def test_what_broke_inside_is_counted_as_the_platforms_fault() -> None:
    running = Running(RuntimeError("broken"))
    running.answer()
    assert running.counted == [("platform_error", False)]


def test_a_function_learns_of_the_chain_that_it_is_part_of_and_so_does_the_caller() -> None:
    running = Running(result())
    mark = running.route.mark
    _, headers, _ = running.answer((b"x-amzn-trace-id", f"Root=1-x;Lineage=1:{mark}:3".encode()))
    assert headers[b"x-amzn-trace-id"].decode() == running.ran[0].trace_id == f"Root=1-x;Lineage=1:{mark}:4"


def test_an_invocation_from_outside_begins_a_chain() -> None:
    running = Running(result())
    running.answer((b"x-amzn-trace-id", b"Root=1-x"))
    assert running.ran[0].trace_id == f"Root=1-x;Lineage=1:{running.route.mark}:0"


def test_a_function_that_has_run_too_often_in_its_chain_is_not_run_once_more() -> None:
    running = Running(result())
    status, headers, body = running.answer((b"x-amzn-trace-id", f"Root=1-x;Lineage=1:{running.route.mark}:15".encode()))
    assert (status, headers[b"x-amzn-errortype"]) == (400, b"RecursiveInvocationException")
    assert json.loads(body) == {"Type": "User", "Message": STOPPED}
    assert running.ran == []
    assert running.counted == [("recursive", False)]
