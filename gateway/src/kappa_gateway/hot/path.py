"""From an HTTP request to a function version and an event: what the operations of the hot path have in common.

Without FastAPI, without a task and without parsing the event. One instance per operation and gateway; the outer ASGI callable hands it
every request of that operation. It authenticates, finds the version, leaves the invocation to :mod:`.invoke` or :mod:`.stream`, and
answers what fails before an answer has begun. It decides nothing about environments or concurrency; that is the dispatcher's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from kappa_core.errors import (
    LambdaError,
    RecursiveInvocationException,
    ServiceException,
    ServiceUnavailableException,
    TooManyRequestsException,
)
from kappa_core.limits import Limits
from kappa_core.link import frames
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.request import (
    ClientDisconnected,
    HotOperation,
    InvokeRequest,
    Receive,
    check_event,
    parse,
    read_body,
    request_id_of,
)
from kappa_gateway.hot.routes import Route
from kappa_gateway.wire import error_response

_log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


OnData = Callable[[bytes, Callable[[int], None]], None]
"""Takes a piece of a streamed response and a function to call with the number of bytes that were passed on."""


class Caller(NamedTuple):
    """Who asks, once authenticated."""

    account: str
    region: str


class Unadmitted(Exception):
    """Whether the caller may come in is not known here yet: ``admit`` asks where it is known. It raises what Authenticate raises."""

    def __init__(self, admit: Callable[[], Awaitable[Caller]]) -> None:
        super().__init__("not known here yet")
        self.admit = admit


class Authenticate(Protocol):
    """Checks the request's signature where keys are required, and in a cluster the caller's rights. Raises the authentication errors
    of kappa_core.errors, and Unadmitted where that needs a question to the API server."""

    def __call__(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], body: bytes, /) -> Caller: ...


class Router(Protocol):
    """Finds what a name and qualifier stand for."""

    def cached(self, caller: Caller, name: str, qualifier: str | None, /) -> Route[Any] | None: ...
    async def find(self, caller: Caller, name: str, qualifier: str | None, /) -> Route[Any]: ...


class Links(Protocol):
    """Runs one event on one environment; see kappa_gateway.links.shell."""

    async def invoke(
        self,
        *,
        spec: VersionSpec,
        function_key: str,
        reserved: int | None,
        invoke: frames.Invoke,
        payload: bytes,
        on_data: OnData | None = None,
    ) -> tuple[frames.Result, bytes]: ...


class InFlight(Protocol):
    """Counts what runs or waits."""

    def inc(self) -> None: ...
    def dec(self) -> None: ...


_STATUS_CLASS: Final = {2: "ok", 4: "client_error", 5: "platform_error"}


class HotPath(ABC):
    """One operation; see the module."""

    operation: ClassVar[HotOperation]

    __slots__ = ("_authenticate", "_in_flight", "_limits", "_links", "_router")

    def __init__(self, *, authenticate: Authenticate, router: Router, links: Links, limits: Limits, in_flight: InFlight) -> None:
        self._authenticate = authenticate
        self._router = router
        self._links = links
        self._limits = limits
        self._in_flight = in_flight

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> tuple[int, str]:
        """Serve one request. Returns the status and request id that were answered (status 499: the client had gone)."""
        request_id = request_id_of(os.urandom(16).hex())
        started = time.perf_counter()
        route: Route[Any] | None = None
        self._in_flight.inc()
        try:
            headers = dict(scope["headers"])
            declared = headers.get(b"content-length")
            body = await read_body(receive, limit=self._limits.sync_request_bytes, declared=declared, operation=self.operation)
            try:
                caller = self._authenticate(scope, headers, body)
            except Unadmitted as unadmitted:
                caller = await unadmitted.admit()
            request = parse(scope, headers, operation=self.operation)
            route = self._router.cached(caller, request.name, request.qualifier)
            if route is None:
                route = await self._router.find(caller, request.name, request.qualifier)
            event = check_event(body)
            if request.invocation_type == "DryRun":
                status = 204
                await answer(send, status, [(b"x-amzn-requestid", request_id.encode())], b"")
            elif route.reserved == 0 and request.invocation_type != "Event":
                # Not the scaler's to answer: environments from before may still be idle here.
                raise TooManyRequestsException("ReservedFunctionConcurrentInvocationLimitExceeded")
            else:
                try:
                    status = await self._run(route, request, event, send, request_id=request_id, started=started)
                except ServiceUnavailableException:
                    # Deleted while it waited? Then that is the answer: find raises it.
                    await self._router.find(caller, request.name, request.qualifier)
                    raise
        except LambdaError as error:
            status = error.status
            if route is not None:
                route.record(code_class(error), time.perf_counter() - started)
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

    @abstractmethod
    async def _run(
        self, route: Route[Any], request: InvokeRequest, event: bytes, send: Send, *, request_id: str, started: float
    ) -> int:
        """Run the event and answer it; the status. Whatever it raises, it raises before it has begun to answer."""


def code_class(error: LambdaError) -> str:
    """As which an invocation that was refused counts."""
    if isinstance(error, RecursiveInvocationException):
        return "recursive"
    return "throttled" if error.status == 429 else _STATUS_CLASS[error.status // 100]


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer at once."""
    if status != 204:  # a 204 carries neither a body nor a length
        headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, error: LambdaError, request_id: str) -> None:
    status, headers, body = error_response(error, request_id)
    lines = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await answer(send, status, lines, body)
