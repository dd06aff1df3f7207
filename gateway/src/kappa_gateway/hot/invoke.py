"""Invoke: from the HTTP request to an environment and back, without FastAPI, without a task and without parsing the event.

One instance per gateway; the outer ASGI callable hands it every POST …/invocations. It authenticates, finds the version, hands the
event's bytes to the links and writes the answer. A client that hangs up does not stop the function: the invocation is awaited to its
end and accounted for, the answer goes nowhere. It decides nothing about environments or concurrency; that is the dispatcher's.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from kappa_core.errors import LambdaError, NotImplementedOperation, ServiceException, ServiceUnavailableException
from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.request import ClientDisconnected, InvokeRequest, Receive, check_event, parse, read_body
from kappa_gateway.hot.routes import Route
from kappa_gateway.wire import error_response

_log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Caller(NamedTuple):
    """Who asks, once authenticated."""

    account: str
    region: str


class Authenticate(Protocol):
    """Checks the request's signature where keys are required. Raises the SigV4 errors of kappa_core.errors."""

    def __call__(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], body: bytes, /) -> Caller: ...


class Router(Protocol):
    """Finds what a name and qualifier stand for."""

    def cached(self, caller: Caller, name: str, qualifier: str | None, /) -> Route[Any] | None: ...
    async def find(self, caller: Caller, name: str, qualifier: str | None, /) -> Route[Any]: ...


class Links(Protocol):
    """Runs one event on one environment; see kappa_gateway.links.shell."""

    async def invoke(
        self, *, spec: VersionSpec, function_key: str, reserved: int | None, invoke: frames.Invoke, payload: bytes
    ) -> tuple[frames.Result, bytes]: ...


class InFlight(Protocol):
    def inc(self) -> None: ...
    def dec(self) -> None: ...


_STATUS_CLASS: Final = {2: "ok", 4: "client_error", 5: "platform_error"}


class InvokePath:
    """The raw hot path."""

    __slots__ = ("_authenticate", "_in_flight", "_limits", "_links", "_router")

    def __init__(self, *, authenticate: Authenticate, router: Router, links: Links, limits: Limits, in_flight: InFlight) -> None:
        self._authenticate = authenticate
        self._router = router
        self._links = links
        self._limits = limits
        self._in_flight = in_flight

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> tuple[int, str]:
        """Serve one request. Returns the status and request id that were answered (status 499: the client had gone)."""
        digits = os.urandom(16).hex()
        request_id = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
        started = time.perf_counter()
        route: Route[Any] | None = None
        self._in_flight.inc()
        try:
            headers = dict(scope["headers"])
            body = await read_body(receive, limit=self._limits.sync_request_bytes, declared=headers.get(b"content-length"))
            caller = self._authenticate(scope, headers, body)
            request = parse(scope, headers)
            route = self._router.cached(caller, request.name, request.qualifier)
            if route is None:
                route = await self._router.find(caller, request.name, request.qualifier)
            event = check_event(body)
            if request.invocation_type == "RequestResponse":
                try:
                    status = await self._synchronous(route, request, event, send, request_id=request_id, started=started)
                except ServiceUnavailableException:
                    # Deleted while it waited? Then that is the answer: find raises it.
                    await self._router.find(caller, request.name, request.qualifier)
                    raise
            elif request.invocation_type == "DryRun":
                status = 204
                await _answer(send, status, [(b"x-amzn-requestid", request_id.encode())], b"")
            else:
                raise NotImplementedOperation("Asynchronous invocations (InvocationType Event) are not implemented yet.")
        except LambdaError as error:
            status = error.status
            if route is not None:
                route.record("throttled" if status == 429 else _STATUS_CLASS[status // 100], time.perf_counter() - started)
            await _refuse(send, error, request_id)
        except ClientDisconnected:
            status = 499
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001  # whatever broke, the caller gets AWS's 500 and the log the traceback
            _log.exception("invocation %s failed", request_id)
            status = 500
            if route is not None:
                route.record("platform_error", time.perf_counter() - started)
            await _refuse(send, ServiceException(f"Internal error; the gateway's log names request {request_id}."), request_id)
        finally:
            self._in_flight.dec()
        return status, request_id

    async def _synchronous(
        self, route: Route[Any], request: InvokeRequest, event: bytes, send: Send, *, request_id: str, started: float
    ) -> int:
        version = route.choose()
        spec = version.spec or await version.make_spec()
        result, payload = await self._links.invoke(
            spec=spec,
            function_key=route.function_key,
            reserved=route.reserved,
            invoke=frames.Invoke(
                request_id, route.function_arn, request.trace_id, request.client_context, "", request.tenant_id, request.tail
            ),
            payload=event,
        )
        headers: Headers = [
            (b"content-type", result.content_type.encode("latin-1", "replace")),
            (b"x-amzn-requestid", request_id.encode()),
            (b"x-amz-executed-version", version.label),
            (b"x-amzn-remapped-content-length", b"0"),
            (b"x-amzn-trace-id", request.trace_id.encode("latin-1")),
        ]
        if result.function_error:
            headers.append((b"x-amz-function-error", result.function_error.encode()))
        if request.tail:
            headers.append((b"x-amz-log-result", base64.b64encode(result.log_tail)))
        outcome = "function_error" if result.function_error else "ok"
        route.record(outcome, time.perf_counter() - started, cold=result.init_ms > 0)
        await _answer(send, 200, headers, payload)
        return 200


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    if status != 204:  # a 204 carries neither a body nor a length
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, error: LambdaError, request_id: str) -> None:
    status, headers, body = error_response(error, request_id)
    lines = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await _answer(send, status, lines, body)
