"""The control plane of the embedded gateway: operations over its drivers behind FastAPI, and Kappa's own routes.

Imported late and in a thread (see :mod:`kappa_gateway.embedded.gateway`), because it brings the web framework and the service model.
"""

from __future__ import annotations

import time

from fastapi import Request

from kappa_core.ports.blobs import BlobStore
from kappa_core.ports.logs import LogStore
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import AccountId, Key, Region, Sha256
from kappa_gateway.api.app import Answered, build_app, raw_path
from kappa_gateway.api.context import RequestContext
from kappa_gateway.asgi import Application
from kappa_gateway.auth.credential import SignedRequest
from kappa_gateway.auth.identity import Authenticator
from kappa_gateway.code.intake import CodeIntake
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.code.s3 import S3Settings
from kappa_gateway.embedded.events import EmbeddedEvents
from kappa_gateway.native import build_router
from kappa_gateway.native_events import build_events_router
from kappa_gateway.operations.dependencies import Dependencies, OperationSettings
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.registry import build_registry
from kappa_gateway.operations.settle import Settler
from kappa_gateway.settings import Settings


class _Links:
    """Code links back to this gateway, under the host that the caller itself used."""

    def __init__(self, code_links: CodeLinks) -> None:
        self._code_links = code_links

    def code_url(self, context: RequestContext, key: Key, sha256: Sha256, /) -> str:
        scheme = context.headers.get("x-forwarded-proto", "http")
        return f"{scheme}://{context.host}{self._code_links.path(sha256, name=key.name)}"


def build_control_plane(
    *,
    settings: Settings,
    store: ResourceStore,
    blobs: BlobStore,
    logs: LogStore,
    events: EmbeddedEvents,
    settler: Settler,
    locks: KeyedLocks,
    authenticator: Authenticator,
    code_links: CodeLinks,
    answered: Answered,
    version: str,
) -> Application:
    """The FastAPI application over the given drivers."""
    endpoint = settings.endpoint_urls.get("s3") or settings.endpoint_url
    s3 = S3Settings(
        endpoint=endpoint,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
    )
    dependencies = Dependencies(
        store=store,
        intake=CodeIntake(blobs, settings.limits, s3),
        links=_Links(code_links),
        settle=settler,
        limits=settings.limits,
        clock=lambda: time.time_ns() // 1_000_000,
        locks=locks,
        settings=OperationSettings(strict_states=settings.strict_states),
    )
    app = build_app(
        build_registry(dependencies), authenticator=authenticator, limits=settings.limits, version=version, answered=answered
    )

    def speaks_for(request: Request) -> tuple[AccountId, Region]:
        scope = request.scope
        signed = SignedRequest(
            method=scope["method"],
            raw_path=raw_path(scope),
            query_string=scope["query_string"],
            headers=scope["headers"],
            body=b"",
        )
        identity = authenticator.identify(signed, now=time.time())
        return AccountId(identity.account), Region(identity.region)

    app.include_router(build_events_router(queue=events.queue, wake=events.wake, scope=speaks_for))
    app.include_router(build_router(blobs=blobs, logs=logs, links=code_links, scope=speaks_for))
    return app
