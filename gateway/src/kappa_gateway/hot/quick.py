"""The shortest way of a synchronous invocation: from the parsed HTTP request to the links and back, without a task and without ASGI.

Stands before :mod:`.path`, which knows everything; this knows the usual case alone: the route was made before, the request is small,
complete and of type RequestResponse, nothing in it is odd. Whatever is not usual it declines before anything has happened, and the
caller sends the same request the long way. So it answers nothing that :mod:`.path` would answer otherwise, and refuses nobody itself.

Measured with ``make bench ARGS="--only warm"``; docs/benchmarks.md has what it saves.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
from collections.abc import Callable, Coroutine
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote

from kappa_core.errors import LambdaError, ServiceException, ServiceUnavailableException
from kappa_core.link import frames
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.path import Authenticate, Caller, Headers, InFlight, Router, Unadmitted, code_class
from kappa_gateway.hot.request import INVOKE, check_event, request_id_of, trace_id_of
from kappa_gateway.hot.routes import Route
from kappa_gateway.wire import error_response

_log = logging.getLogger(__name__)

QUICK_BYTES: Final = 64 * 1024
"""Events up to this size take the short way: what the server reads before it asks a client to wait."""
_PREFIX: Final = INVOKE.prefix.encode()
_SUFFIX: Final = INVOKE.suffix.encode()
_QUALIFIER: Final = b"Qualifier="
_LOG_TYPES: Final = frozenset((b"None", b"Tail"))
_ODD: Final = frozenset(
    (b"origin", b"sec-fetch-site", b"x-amz-client-context", b"x-amz-tenant-id", b"expect", b"transfer-encoding", b"upgrade")
)
"""Headers that send a request the long way: a browser's, and those that have to be decoded or checked."""

Finish = Callable[[bytes, bytes], None]
"""Takes status line and headers, each line ended, without the empty one; and the body."""


class Reply(Protocol):
    """What the links need of a future."""

    def done(self) -> bool: ...
    def set_result(self, result: tuple[frames.Result, bytes], /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


class QuickLinks(Protocol):
    """Runs one event on one environment and tells a reply; see kappa_gateway.links.shell."""

    def submit(
        self, *, spec: VersionSpec, function_key: str, reserved: int | None, invoke: frames.Invoke, payload: bytes, reply: Reply
    ) -> None: ...


class QuickInvoke:
    """See the module. ``allows_host`` is the browser guard's word on a Host header; ``start_task`` runs what has to wait after all."""

    def __init__(
        self,
        *,
        allows_host: Callable[[bytes], bool],
        authenticate: Authenticate,
        router: Router,
        links: QuickLinks,
        in_flight: InFlight,
        start_task: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._allows_host = allows_host
        self._authenticate = authenticate
        self._router = router
        self._links = links
        self._in_flight = in_flight
        self._start_task = start_task

    def begin(self, url: bytes, lines: Headers, body: bytes, finish: Finish) -> bool:
        """Run the event of a POST. False: declined, nothing has happened. True: ``finish`` is called once, now or later."""
        target = target_of(url)
        if target is None:
            return False
        headers = dict(lines)
        if len(headers) != len(lines) or not _ODD.isdisjoint(headers) or not self._allows_host(headers.get(b"host", b"")):
            return False
        if headers.get(b"x-amz-invocation-type", b"RequestResponse") != b"RequestResponse":
            return False
        log_type = headers.get(b"x-amz-log-type", b"None")
        if log_type not in _LOG_TYPES:
            return False
        given = headers.get(b"x-amzn-trace-id")
        if given and b"Lineage=" in given:
            return False  # the long way knows whether this is a loop
        scope = {
            "method": "POST",
            "path": target.path,
            "raw_path": target.raw_path,
            "query_string": target.query,
            "headers": lines,
        }
        try:
            caller = self._authenticate(scope, headers, body)
            event = check_event(body)
        except (LambdaError, Unadmitted):
            return False  # the long way refuses it in AWS's words, or asks who this is
        route = self._router.cached(caller, target.name, target.qualifier)
        if route is None or route.reserved == 0:
            return False
        version = route.choose()
        if version.spec is None:
            return False
        digits = os.urandom(36).hex()
        reply = _Reply()
        reply.quick = self
        reply.started = time.perf_counter()
        reply.finish = finish
        reply.route = route
        reply.caller = caller
        reply.target = target
        reply.label = version.label
        reply.request_id = request_id = request_id_of(digits)
        reply.trace_id = trace_id = (given.decode("latin-1") if given else trace_id_of(digits[32:])) + route.lineage
        reply.tail = tail = log_type == b"Tail"
        self._in_flight.inc()
        self._links.submit(
            spec=version.spec,
            function_key=route.function_key,
            reserved=route.reserved,
            invoke=frames.Invoke(request_id, route.function_arn, trace_id, "", "", "", tail),
            payload=event,
            reply=reply,
        )
        return True

    # -- what became of it --------------------------------------------------------------------------------------------
    def answered(self, reply: _Reply, result: frames.Result, payload: bytes) -> None:
        """The function has answered, or failed."""
        self._in_flight.dec()
        more = b""
        outcome = "ok"
        if result.function_error:
            outcome = "function_error"
            more = b"x-amz-function-error: %b\r\n" % result.function_error.encode()
        if reply.tail:
            more += b"x-amz-log-result: %b\r\n" % base64.b64encode(result.log_tail)
        reply.route.record(outcome, time.perf_counter() - reply.started, cold=result.init_ms > 0)
        head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-amzn-requestid: %b\r\nx-amz-executed-version: %b\r\n"
            b"x-amzn-remapped-content-length: 0\r\nx-amzn-trace-id: %b\r\n%bcontent-length: %d\r\n"
        ) % (
            _content_type(result.content_type),
            reply.request_id.encode(),
            reply.label,
            reply.trace_id.encode("latin-1"),
            more,
            len(payload),
        )
        reply.finish(head, payload)

    def failed(self, reply: _Reply, error: BaseException) -> None:
        """The platform could not run it."""
        if isinstance(error, ServiceUnavailableException):
            self._start_task(self._unavailable(reply, error))
        else:
            self._refuse(reply, error)

    async def _unavailable(self, reply: _Reply, error: LambdaError) -> None:
        """Deleted while it waited? Then that is the answer: find raises it."""
        try:
            await self._router.find(reply.caller, reply.target.name, reply.target.qualifier)
        except LambdaError as gone:
            error = gone
        except asyncio.CancelledError:
            pass  # the gateway stops: the first word is as good
        except Exception:  # noqa: BLE001 - the store is away: the first word is as good
            _log.warning("invocation %s: its function could not be looked up", reply.request_id, exc_info=True)
        self._refuse(reply, error)

    def _refuse(self, reply: _Reply, error: BaseException) -> None:
        self._in_flight.dec()
        if not isinstance(error, LambdaError):
            _log.error("invocation %s failed", reply.request_id, exc_info=error)
            error = ServiceException(f"Internal error; the gateway's log names request {reply.request_id}.")
        reply.route.record(code_class(error), time.perf_counter() - reply.started)
        status, headers, body = error_response(error, reply.request_id)
        lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}content-length: {len(body)}\r\n"
        reply.finish(head.encode("latin-1"), body)


class _Reply:
    """Where the links put what became of an invocation: a future without callbacks, loop or task."""

    __slots__ = ("_done", "caller", "finish", "label", "quick", "request_id", "route", "started", "tail", "target", "trace_id")

    quick: QuickInvoke
    started: float
    finish: Finish
    route: Route[Any]
    caller: Caller
    target: Target
    label: bytes
    request_id: str
    trace_id: str
    tail: bool

    def __init__(self) -> None:
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: tuple[frames.Result, bytes], /) -> None:
        self._done = True
        self.quick.answered(self, *result)

    def set_exception(self, error: BaseException, /) -> None:
        self._done = True
        self.quick.failed(self, error)


class Target(NamedTuple):
    """What a request's URL says, read once per URL."""

    name: str
    """A function's name or any form of its ARN."""
    qualifier: str | None
    path: str
    raw_path: bytes
    query: bytes


@lru_cache(maxsize=4096)
def target_of(url: bytes) -> Target | None:
    """Function and qualifier of an Invoke URL; None if it is another operation's, or says anything unusual."""
    raw_path, mark, query = url.partition(b"?")
    if not raw_path.startswith(_PREFIX) or not raw_path.endswith(_SUFFIX) or not url.isascii():
        return None
    qualifier = None
    if mark:
        value = query.removeprefix(_QUALIFIER)
        if value == query or not value.replace(b"$", b"").replace(b"-", b"").replace(b"_", b"").isalnum():
            return None
        qualifier = value.decode("ascii")
    path = unquote(raw_path.decode("ascii"))
    return Target(path[len(_PREFIX) : -len(_SUFFIX)], qualifier, path, raw_path, query)


@lru_cache(maxsize=256)
def _content_type(value: str) -> bytes:
    """As a header's value: a function's runtime client chose it and may not add lines of its own."""
    return value.encode("latin-1", "replace").translate(None, b"\r\n\0")
