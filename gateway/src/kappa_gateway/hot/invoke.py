"""Invoke: hands the event's bytes to the links and writes the answer, without a task and without parsing either.

Stands behind :mod:`.path`, which has authenticated the request and found the version. A client that hangs up does not stop the function:
the invocation is awaited to its end and accounted for, the answer goes nowhere.
"""

from __future__ import annotations

import base64
import time
from typing import Any

from kappa_core.errors import NotImplementedOperation
from kappa_core.link import frames
from kappa_gateway.hot.path import Headers, HotPath, Send, answer
from kappa_gateway.hot.request import INVOKE, InvokeRequest
from kappa_gateway.hot.routes import Route


class InvokePath(HotPath):
    """POST …/invocations."""

    operation = INVOKE

    __slots__ = ()

    async def _run(
        self, route: Route[Any], request: InvokeRequest, event: bytes, send: Send, *, request_id: str, started: float
    ) -> int:
        if request.invocation_type == "Event":
            raise NotImplementedOperation("Asynchronous invocations (InvocationType Event) are not implemented yet.")
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
        await answer(send, 200, headers, payload)
        return 200
