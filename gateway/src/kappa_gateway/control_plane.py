"""The control plane of a gateway: operations over its drivers behind FastAPI, and Kappa's own routes.

The same on a laptop and in a cluster: what differs is behind the ports. Imported late and in a thread, because it brings the web
framework and the service model, which no invocation needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request

from kappa_core.limits import Limits
from kappa_core.ports.blobs import BlobStore
from kappa_core.ports.logs import LogReader
from kappa_core.ports.queue import EventQueue
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import AccountId, Key, ProvisionedState, Region, Sha256
from kappa_gateway.api.app import Answered, Authorise, build_app
from kappa_gateway.api.context import RequestContext
from kappa_gateway.asgi import Application
from kappa_gateway.auth.credential import SignedRequest
from kappa_gateway.auth.identity import Authenticator, identified
from kappa_gateway.clock import epoch_ms
from kappa_gateway.code.intake import CodeIntake
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.native import build_router
from kappa_gateway.native_events import build_events_router
from kappa_gateway.operations.dependencies import Dependencies, OperationSettings, Settling
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.registry import build_registry


class _Links:
    """Code links back to this gateway, under the host that the caller itself used."""

    def __init__(self, code_links: CodeLinks) -> None:
        self._code_links = code_links

    def code_url(self, context: RequestContext, key: Key, sha256: Sha256, /) -> str:
        scheme = context.headers.get("x-forwarded-proto", "http")
        return f"{scheme}://{context.host}{self._code_links.path(sha256, name=key.name)}"


def build_control_plane(
    *,
    store: ResourceStore,
    blobs: BlobStore,
    logs: LogReader,
    queue: EventQueue,
    wake: Callable[[], None],
    intake: CodeIntake,
    settler: Settling,
    locks: KeyedLocks,
    limits: Limits,
    strict_states: bool,
    authenticator: Authenticator,
    authorise: Authorise | None,
    code_links: CodeLinks,
    provisioned: Callable[[Key], ProvisionedState | None],
    answered: Answered,
    version: str,
    routers: Sequence[APIRouter] = (),
) -> Application:
    """The FastAPI application over the given drivers. ``wake`` tells the worker of the queue that something was put into it; ``routers``
    are further routes."""
    dependencies = Dependencies(
        store=store,
        intake=intake,
        links=_Links(code_links),
        settle=settler,
        limits=limits,
        clock=epoch_ms,
        locks=locks,
        provisioned=provisioned,
        settings=OperationSettings(strict_states=strict_states),
    )
    app = build_app(
        build_registry(dependencies),
        authenticator=authenticator,
        limits=limits,
        version=version,
        answered=answered,
        authorise=authorise,
    )

    async def speaks_for(request: Request, action: str, function: str) -> tuple[AccountId, Region]:
        identity = await identified(authenticator, SignedRequest.of(request.scope, b""), now=time.time())
        if authorise is not None:
            await authorise(identity, action, {"FunctionName": function})
        return AccountId(identity.account), Region(identity.region)

    app.include_router(build_events_router(queue=queue, wake=wake, scope=speaks_for))
    app.include_router(build_router(blobs=blobs, logs=logs, links=code_links, scope=speaks_for))
    for router in routers:
        app.include_router(router)
    return app
