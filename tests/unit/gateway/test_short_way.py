"""An Invoke on the short way is answered as on the long one, in order, and what it declines arrives there whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from http_wire import Wire
from kappa_core.errors import (
    AccessDeniedException,
    EnvironmentLostException,
    LambdaError,
    ResourceNotFoundException,
    ServiceUnavailableException,
    TooManyRequestsException,
)
from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.invoke import InvokePath
from kappa_gateway.hot.path import Caller
from kappa_gateway.hot.quick import QUICK_BYTES, QuickInvoke, Reply, target_of
from kappa_gateway.hot.routes import Route, RoutedVersion
from kappa_gateway.http_protocol import LambdaHttpProtocol
from kappa_gateway.observe.metrics import InFlight
from made_specs import version_spec

INVOCATIONS = "/2015-03-31/functions/hello/invocations"
SPEC = version_spec("hello", revision="uid.$LATEST.1")


class Served:
    """A connection to a gateway whose functions answer when told to."""

    def __init__(self, *, quick: bool = True) -> None:
        self.in_flight = InFlight()
        self.counted: list[str] = []
        self.waiting: list[tuple[frames.Invoke, bytes, Reply]] = []
        self.long: list[bytes] = []
        """Bodies that came the long way."""
        self.refused: LambdaError | None = None
        self.deleted_meanwhile = False
        self.tasks: set[asyncio.Task[None]] = set()
        version: RoutedVersion[str] = RoutedVersion("hello", label="$LATEST", make=self.make_spec)
        version.spec = SPEC
        self.route: Route[str] = Route(
            function_arn=SPEC.function_arn,
            function_key="000000000000/us-east-1/hello/uid",
            reserved=None,
            primary=version,
            additional=None,
            weight=0.0,
            draw=lambda: 0.0,
            record=self.record,
        )
        short = QuickInvoke(
            allows_host=lambda host: host == b"here",
            authenticate=self.authenticate,
            router=self,
            links=self,
            in_flight=self.in_flight,
            start_task=self.start_task,
        )
        self.path = InvokePath(
            authenticate=self.authenticate, router=self, links=self, limits=Limits(), in_flight=self.in_flight, events=self
        )
        config = uvicorn.Config(
            cast(Any, self.application), lifespan="off", access_log=False, log_config=None, interface="asgi3", proxy_headers=False
        )
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"Sat, 21 Nov 2026 12:00:00 GMT")]
        made = LambdaHttpProtocol.with_quick(short if quick else None)
        self.protocol = made(config=config, server_state=state, app_state={}, _loop=asyncio.get_running_loop())
        self.wire = Wire()
        self.protocol.connection_made(self.wire)

    def authenticate(self, *_: Any) -> Caller:
        if self.refused is not None:
            raise self.refused
        return Caller("000000000000", "us-east-1")

    async def make_spec(self, _: str) -> VersionSpec:
        return SPEC

    def record(self, code_class: str, _seconds: float, /, *, cold: bool = False) -> None:
        self.counted.append(code_class)

    def cached(self, *_: Any) -> Route[str]:
        return self.route

    async def find(self, *_: Any) -> Route[str]:
        if self.deleted_meanwhile:
            raise ResourceNotFoundException("Function not found: hello")
        return self.route

    def submit(self, *, invoke: frames.Invoke, payload: bytes, reply: Reply, **_: Any) -> None:
        self.waiting.append((invoke, payload, reply))

    async def invoke(self, *, invoke: frames.Invoke, payload: bytes, **_: Any) -> tuple[frames.Result, bytes]:
        self.long.append(payload)
        future: asyncio.Future[tuple[frames.Result, bytes]] = asyncio.get_running_loop().create_future()
        self.waiting.append((invoke, payload, future))
        return await future

    async def accept(self, *, payload: bytes, **_: Any) -> None:
        self.long.append(payload)

    def start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def application(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["path"] == INVOCATIONS:
            await self.path(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    def close(self) -> None:
        self.protocol.connection_lost(None)


def request(body: bytes = b"{}", *, headers: str = "", path: str = INVOCATIONS) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: here\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def result(invoke: frames.Invoke, **members: Any) -> frames.Result:
    return frames.Result(invoke.request_id, **members)


def parts(answer: bytes, request_id: str, trace_id: str) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body, with what differs from one invocation to the next made equal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ", 1) for line in lines)
    assert len(headers) == len(lines)
    text = {
        name.lower(): value.replace(request_id.encode(), b"ID").replace(trace_id.encode(), b"TRACE")
        for name, value in headers.items()
    }
    return status, text, body.replace(request_id.encode(), b"ID")


async def answered(outcome: dict[str, Any] | Exception, *, quick: bool, headers: str, deleted: bool) -> tuple[Any, list[str]]:
    served = Served(quick=quick)
    served.deleted_meanwhile = deleted
    served.protocol.data_received(request(headers=headers))
    await served.settle()
    assert bool(served.long) is not quick
    invoke, _, reply = served.waiting[0]
    if isinstance(outcome, Exception):
        reply.set_exception(outcome)
    else:
        reply.set_result((result(invoke, **outcome), b'{"ok": true}'))
    await served.settle()
    assert served.in_flight.value == 0
    served.close()
    return parts(served.wire.written, invoke.request_id, invoke.trace_id), served.counted


@pytest.mark.parametrize(
    ("outcome", "headers", "deleted"),
    [
        pytest.param({}, "", False, id="an answer"),
        pytest.param({"function_error": "Unhandled"}, "", False, id="a function's error"),
        pytest.param({"log_tail": b"START\n"}, "x-amz-log-type: Tail\r\n", False, id="the tail of the log"),
        pytest.param({"content_type": "text/plain; charset=utf-8"}, "", False, id="another content type"),
        pytest.param({"init_ms": 20.0}, "connection: close\r\n", False, id="a client that wants the connection closed"),
        pytest.param({}, "x-amzn-trace-id: Root=1-5759e988-bd862e3fe1be46a994272793\r\n", False, id="a trace of the client's"),
        pytest.param(TooManyRequestsException("ReservedFunctionConcurrentInvocationLimitExceeded"), "", False, id="throttled"),
        pytest.param(EnvironmentLostException("it was lost"), "", False, id="an environment that was lost"),
        pytest.param(ServiceUnavailableException("none in time"), "", False, id="no environment"),
        pytest.param(ServiceUnavailableException("none in time"), "", True, id="a function deleted meanwhile"),
    ],
)
def test_both_ways_give_the_same_answer(outcome: dict[str, Any] | Exception, headers: str, deleted: bool) -> None:
    short = asyncio.run(answered(outcome, quick=True, headers=headers, deleted=deleted))
    long = asyncio.run(answered(outcome, quick=False, headers=headers, deleted=deleted))
    assert short == long


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param("x-amz-invocation-type: Event\r\n", b"{}", id="asynchronous"),
        pytest.param("x-amz-client-context: e30=\r\n", b"{}", id="with a client context"),
        pytest.param("x-amz-tenant-id: blue\r\n", b"{}", id="with a tenant"),
        pytest.param("x-amzn-trace-id: Root=1-0;Lineage=1:00000000:3\r\n", b"{}", id="of a function's invocation"),
        pytest.param("x-one: 1\r\nx-one: 2\r\n", b"{}", id="with a header twice"),
        pytest.param("", b'"' + b"x" * QUICK_BYTES + b'"', id="large"),
    ],
)
def test_what_is_declined_goes_the_long_way_whole(headers: str, body: bytes) -> None:
    async def scenario() -> None:
        served = Served()
        sent = request(body, headers=headers)
        for at in range(0, len(sent), 10_000):
            served.protocol.data_received(sent[at : at + 10_000])
        await served.settle()
        assert served.long == [body]
        served.close()
        for _, _, reply in served.waiting:
            reply.set_exception(EnvironmentLostException("the test is over"))
        await served.settle()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("headers", "body", "refused", "status"),
    [
        pytest.param("", b"{", None, b"400", id="no JSON"),
        pytest.param("x-amz-invocation-type: Odd\r\n", b"{}", None, b"400", id="an unknown invocation type"),
        pytest.param("", b"{}", AccessDeniedException("no"), b"403", id="not allowed"),
    ],
)
def test_a_refusal_is_the_long_ways(headers: str, body: bytes, refused: LambdaError | None, status: bytes) -> None:
    async def scenario() -> None:
        served = Served()
        served.refused = refused
        served.protocol.data_received(request(body, headers=headers))
        await served.settle()
        assert served.wire.written.split(b" ", 2)[1] == status
        assert not served.waiting
        served.close()

    asyncio.run(scenario())


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_comes() -> None:
    async def scenario() -> None:
        served = Served()
        served.protocol.data_received(
            f"POST {INVOCATIONS} HTTP/1.1\r\nhost: here\r\ncontent-length: 999999999999\r\n\r\n".encode()
        )
        await served.settle()
        assert served.wire.written.split(b" ", 2)[1] == b"413"
        served.close()

    asyncio.run(scenario())


def test_pipelined_requests_are_answered_in_order() -> None:
    async def scenario() -> None:
        served = Served()
        served.protocol.data_received(request(b"1") + request(b"2") + request(b"3", path="/other"))
        await served.settle()
        assert [payload for _, payload, _ in served.waiting] == [b"1"]
        for expected in (b"1", b"2"):
            invoke, payload, reply = served.waiting.pop()
            assert payload == expected
            reply.set_result((result(invoke), b"<" + payload + b">"))
            await served.settle()
        first, second, third = (
            served.wire.written.index(b"<1>"),
            served.wire.written.index(b"<2>"),
            served.wire.written.index(b" 404 "),
        )
        assert first < second < third
        served.close()

    asyncio.run(scenario())


def test_a_client_that_has_gone_gets_nothing_and_is_counted() -> None:
    async def scenario() -> None:
        served = Served()
        served.protocol.data_received(request())
        served.protocol.connection_lost(None)
        invoke, _, reply = served.waiting[0]
        reply.set_result((result(invoke), b"late"))
        assert served.wire.written == b""
        assert served.counted == ["ok"]
        assert served.in_flight.value == 0

    asyncio.run(scenario())


def check_last_answer(served: Served) -> None:
    """The invocation that waits is answered, and the answer ends its connection."""
    invoke, _, reply = served.waiting[0]
    reply.set_result((result(invoke), b"last"))
    assert b"connection: close\r\n" in served.wire.written
    assert served.wire.written.endswith(b"last")
    assert served.wire.closed
    served.close()


def test_a_server_that_stops_answers_and_closes() -> None:
    async def scenario() -> None:
        served = Served()
        served.protocol.data_received(request())
        served.protocol.shutdown()
        assert not served.wire.closed
        check_last_answer(served)

    asyncio.run(scenario())


def test_a_request_that_comes_while_the_server_leaves_is_answered_and_is_the_last_of_its_connection() -> None:
    async def scenario() -> None:
        served = Served()
        served.protocol.leave()
        served.protocol.see_off()
        assert not served.wire.closed
        served.protocol.data_received(request())
        check_last_answer(served)

    asyncio.run(scenario())


def test_an_idle_connection_is_closed_after_the_keep_alive_time() -> None:
    async def scenario() -> None:
        served = Served()
        served.protocol.timeout_keep_alive = 0
        served.protocol.data_received(request())
        invoke, _, reply = served.waiting[0]
        reply.set_result((result(invoke), b"1"))
        await served.settle()
        assert served.wire.closed
        served.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "name", "qualifier"),
    [
        pytest.param(INVOCATIONS, "hello", None, id="a name"),
        pytest.param(f"{INVOCATIONS}?Qualifier=live", "hello", "live", id="a qualifier"),
        pytest.param(f"{INVOCATIONS}?Qualifier=$LATEST", "hello", "$LATEST", id="the latest"),
        pytest.param("/2015-03-31/functions/arn%3Aaws%3Alambda%3Ax/invocations", "arn:aws:lambda:x", None, id="an encoded ARN"),
    ],
)
def test_name_and_qualifier_are_read_from_the_url(url: str, name: str, qualifier: str | None) -> None:
    target = target_of(url.encode())
    assert target is not None
    assert (target.name, target.qualifier) == (name, qualifier)


@pytest.mark.parametrize(
    "url",
    [
        "/2015-03-31/functions/hello/invocations/",
        "/2015-03-31/functions/hello",
        "/2021-11-15/functions/hello/response-streaming-invocations",
        f"{INVOCATIONS}?Qualifier=a&Qualifier=b",
        f"{INVOCATIONS}?Qualifier=a%20b",
        f"{INVOCATIONS}?X-Amz-Signature=0",
    ],
)
def test_unusual_urls_are_left_to_the_long_way(url: str) -> None:
    assert target_of(url.encode()) is None
