"""Invoke: hands the event's bytes to the links, or to the queue, and writes the answer, without a task and without parsing either.

Stands behind :mod:`.path`, which has authenticated the request and found the version. A client that hangs up does not stop the function:
the invocation is awaited to its end and accounted for, the answer goes nowhere.
"""

from __future__ import annotations

import base64
import time
from typing import Any, Protocol

from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_gateway.hot.path import Authenticate, Headers, HotPath, InFlight, Links, Router, Send, answer
from kappa_gateway.hot.request import INVOKE, InvokeRequest
from kappa_gateway.hot.routes import Route


class Events(Protocol):
    """Takes asynchronous events; see kappa_gateway.events.intake."""

    async def accept(self, *, request_id: str, function_key: str, function_arn: str, trace_id: str, payload: bytes) -> None: ...


class InvokePath(HotPath):
    """POST …/invocations."""

    operation = INVOKE

    __slots__ = ("_events",)

    def __init__(
        self, *, authenticate: Authenticate, router: Router, links: Links, limits: Limits, in_flight: InFlight, events: Events
    ) -> None:
        super().__init__(authenticate=authenticate, router=router, links=links, limits=limits, in_flight=in_flight)
        self._events = events

    async def _run(
        self, route: Route[Any], request: InvokeRequest, event: bytes, send: Send, *, request_id: str, started: float
    ) -> int:
        if request.invocation_type == "Event":
            return await self._accept(route, request, event, send, request_id=request_id)
        trace_id = route.enter(request.trace_id)
        version = route.choose()
        spec = version.spec or await version.make_spec()
        result, payload = await self._links.invoke(
            spec=spec,
            function_key=route.function_key,
            reserved=route.reserved,
            invoke=frames.Invoke(
                request_id, route.function_arn, trace_id, request.client_context, "", request.tenant_id, request.tail
            ),
            payload=event,
        )
        headers: Headers = [
            (b"content-type", result.content_type.encode("latin-1", "replace")),
            (b"x-amzn-requestid", request_id.encode()),
            (b"x-amz-executed-version", version.label),
            (b"x-amzn-remapped-content-length", b"0"),
            (b"x-amzn-trace-id", trace_id.encode("latin-1")),
        ]
        if result.function_error:
            headers.append((b"x-amz-function-error", result.function_error.encode()))
        if request.tail:
            headers.append((b"x-amz-log-result", base64.b64encode(result.log_tail)))
        outcome = "function_error" if result.function_error else "ok"
        route.record(outcome, time.perf_counter() - started, cold=result.init_ms > 0)
        await answer(send, 200, headers, payload)
        return 200

    async def _accept(self, route: Route[Any], request: InvokeRequest, event: bytes, send: Send, *, request_id: str) -> int:
        """An asynchronous invocation: 202 once the event is durable. Its attempts are counted when they are made."""
        await self._events.accept(
            request_id=request_id,
            function_key=route.function_key,
            function_arn=route.function_arn,
            trace_id=request.trace_id,
            payload=event,
        )
        headers: Headers = [
            (b"x-amzn-requestid", request_id.encode()),
            (b"x-amzn-remapped-content-length", b"0"),
            (b"x-amzn-trace-id", request.trace_id.encode("latin-1")),
        ]
        await answer(send, 202, headers, b"")
        return 202
