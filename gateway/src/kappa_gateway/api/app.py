"""The control plane as a FastAPI application: one route per operation of the service model, each parse → check → operation → serialise.

Everything but Invoke comes here; the outer ASGI callable sends that to :mod:`kappa_gateway.hot`, and the routes for it here only answer
where the hot path is not in front. Routes match the raw path, since an ARN in it may hold encoded colons and slashes. Whatever
happens, the answer has a request id and, if it is an error, AWS's form; an unexpected exception is logged and becomes ServiceException.
It refuses bodies over the control plane's limit while reading them, whether or not their length was announced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from kappa_core.errors import LambdaError, NotImplementedOperation, RequestEntityTooLargeException, UnknownOperationException
from kappa_core.limits import CONTROL_REQUEST_BYTES, Limits
from kappa_core.ports.store import StoreError
from kappa_gateway.api import departures, docs, openapi, validate
from kappa_gateway.api.context import Params, Registry, RequestContext
from kappa_gateway.api.model import OperationModel, ServiceModel, load_model
from kappa_gateway.api.parse import parse_query, parse_request
from kappa_gateway.api.serialise import HttpResponse, serialise
from kappa_gateway.api.store_errors import store_error
from kappa_gateway.auth.credential import SignedRequest, raw_path, read_credential
from kappa_gateway.auth.identity import Authenticator, Identity, identified
from kappa_gateway.wire import REQUEST_ID_HEADER, error_response, new_request_id, unexpected_error_response

_THREAD_BYTES: Final = 1 << 20
"""Bodies from this size on are parsed in a thread: decoding a 50 MiB zip must not stop the invocations of others."""
_SHOWN_PATH_BYTES: Final = 512
Answered = Callable[[str, int], None]
Authorise = Callable[[Identity, str, Params], Awaitable[None]]
"""Raises AccessDeniedException where this caller may not call this operation with these parameters."""
_AWS_OPERATION_NAMES: Final = {"Invoke": "InvokeFunction"}
"""Names in RequestEntityTooLargeException that differ from the model's."""


def build_app(
    registry: Registry,
    *,
    authenticator: Authenticator,
    limits: Limits,
    version: str,
    model: ServiceModel | None = None,
    clock: Callable[[], float] = time.time,
    max_body_bytes: int = CONTROL_REQUEST_BYTES,
    answered: Answered | None = None,
    authorise: Authorise | None = None,
) -> FastAPI:
    """The application that serves all operations of the model.

    Parameters
    ----------
    registry
        Implementations by operation name. What the model has and this lacks answers NotImplementedException (501).
    authenticator
        Tells account and region of a request, or refuses it.
    limits
        Bounds that an administrator may have changed.
    version
        Kappa's version, shown in the documentation.
    model
        The service model; by default the installed botocore's.
    clock
        Unix time in seconds, for signatures.
    max_body_bytes
        Largest request body.
    answered
        Told the operation and status of every answer, for metrics.
    authorise
        Asked before every operation; by default everybody whom ``authenticator`` lets in may call all of them.

    Raises
    ------
    ValueError
        If the registry has a name that the model does not know.
    """
    service = model or load_model()
    unknown = registry.keys() - service.operations.keys()
    if unknown:
        raise ValueError(f"the service model has no operation {', '.join(sorted(unknown))}")
    app = FastAPI(title="Kappa: the AWS Lambda API", version=version, docs_url=None, redoc_url=None, redirect_slashes=False)
    plane = _ControlPlane(
        registry,
        authenticator=authenticator,
        maxima=departures.maxima(limits),
        clock=clock,
        max_body_bytes=max_body_bytes,
        answered=answered or (lambda operation, status: None),
        authorise=authorise,
    )
    for operation in service.operations.values():
        app.router.routes.append(_OperationRoute(operation, plane))
    docs.add_docs(app)
    app.openapi = openapi.generator(service, version=version)  # type: ignore[method-assign]  # FastAPI's documented extension point
    app.add_exception_handler(404, _unknown_operation)
    app.add_exception_handler(405, _unknown_operation)
    return app


class _OperationRoute(APIRoute):
    """A route that matches one operation's template on the undecoded path. Another method is no match: AWS knows no 405."""

    def __init__(self, operation: OperationModel, plane: _ControlPlane) -> None:
        self._operation = operation

        async def endpoint(request: Request) -> Response:
            return await plane.answer(operation, request)

        super().__init__(operation.uri.path, endpoint, methods=[operation.method], name=operation.name, include_in_schema=False)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["method"] != self._operation.method:
            return Match.NONE, {}
        query = parse_query(scope["query_string"]) if self._operation.uri.query else ()
        labels = self._operation.uri.match(raw_path(scope), query=query)
        if labels is None:
            return Match.NONE, {}
        return Match.FULL, {"endpoint": self.endpoint, "path_params": labels, "route": self}


class _ControlPlane:
    """What all routes share."""

    def __init__(
        self,
        registry: Registry,
        *,
        authenticator: Authenticator,
        maxima: Mapping[str, float],
        clock: Callable[[], float],
        max_body_bytes: int,
        answered: Answered,
        authorise: Authorise | None,
    ) -> None:
        self._registry = registry
        self._authenticator = authenticator
        self._maxima = maxima
        self._clock = clock
        self._max_body_bytes = max_body_bytes
        self._answered = answered
        self._authorise = authorise

    async def answer(self, operation: OperationModel, request: Request) -> Response:
        """Serve one request. Never raises, but for cancellation."""
        request_id = new_request_id()
        try:
            status, headers, body = await self._serve(operation, request, request_id)
        except LambdaError as error:
            status, headers, body = error_response(error, request_id)
        except StoreError as error:
            status, headers, body = error_response(store_error(error, request_id), request_id)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        except Exception as error:  # noqa: BLE001  # the boundary: a bug must reach the log and the caller as ServiceException
            status, headers, body = unexpected_error_response(error, request_id)
        headers[REQUEST_ID_HEADER] = request_id
        self._answered(operation.name, status)
        return Response(body or None, status_code=status, headers=headers)

    async def _serve(self, operation: OperationModel, request: Request, request_id: str) -> HttpResponse:
        body = await self._read(operation, request)
        identity = await self._identify(request, body)
        handler = self._registry.get(operation.name)
        if handler is None:
            raise NotImplementedOperation(f"{operation.name} is not implemented by this version of Kappa")
        if len(body) < _THREAD_BYTES:
            params = self._params(operation, request, body)
        else:
            params = await asyncio.to_thread(self._params, operation, request, body)
        del body
        if self._authorise is not None:
            await self._authorise(identity, operation.name, params)
        return serialise(operation, await handler(_context(request, identity, request_id), params))

    def _params(self, operation: OperationModel, request: Request, body: bytes) -> Params:
        params = parse_request(
            operation,
            labels=request.path_params,
            query=parse_query(request.scope["query_string"]),
            headers=request.headers,
            body=body,
        )
        unchecked = departures.left_to_departures(operation)
        validate.check(operation.input, params, maxima=self._maxima, unchecked=unchecked)
        departures.check(operation, params)
        return params

    async def _read(self, operation: OperationModel, request: Request) -> bytes:
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_body_bytes:
            raise self._too_large(operation)
        chunks: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self._max_body_bytes:
                raise self._too_large(operation)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self, operation: OperationModel) -> RequestEntityTooLargeException:
        name = _AWS_OPERATION_NAMES.get(operation.name, operation.name)
        return RequestEntityTooLargeException(
            f"Request must be smaller than {self._max_body_bytes} bytes for the {name} operation"
        )

    async def _identify(self, request: Request, body: bytes) -> Identity:
        return await identified(self._authenticator, SignedRequest.of(request.scope, body), now=self._clock())


def _context(request: Request, identity: Identity, request_id: str) -> RequestContext:
    return RequestContext(
        request_id=request_id,
        account=identity.account,
        region=identity.region,
        access_key_id=identity.access_key_id,
        source_ip=request.client.host if request.client else "",
        host=request.headers.get("host", ""),
        headers=request.headers,
    )


async def _unknown_operation(request: Request, _: Exception) -> Response:
    path = raw_path(request.scope)[:_SHOWN_PATH_BYTES].decode("latin-1")
    error = UnknownOperationException(
        f"No operation of the Lambda API has the method and path {request.method} {path}{_another_service(request)}"
    )
    status, headers, body = error_response(error, new_request_id())
    return Response(body, status_code=status, headers=headers)


def _another_service(request: Request) -> str:
    """A hint for requests that are signed for another AWS service: a function whose service has no endpoint sends them here."""
    credential = read_credential(SignedRequest.of(request.scope, b""))
    if credential is None or credential.service == "lambda" or not credential.service.isalnum():
        return ""
    name = credential.service
    return f". It is signed for {name}: say where that is with KAPPA_ENDPOINT_URL_{name.upper()} or KAPPA_ENDPOINT_URL."
