"""The control plane of the embedded gateway: :mod:`kappa_gateway.control_plane` with what a laptop's settings say.

Imported late and in a thread (see :mod:`kappa_gateway.embedded.gateway`).
"""

from __future__ import annotations

from kappa_core.ports.blobs import BlobStore
from kappa_core.ports.logs import LogStore
from kappa_core.ports.store import ResourceStore
from kappa_gateway import control_plane
from kappa_gateway.api.app import Answered
from kappa_gateway.asgi import Application
from kappa_gateway.auth.identity import Authenticator
from kappa_gateway.code.intake import CodeIntake
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.code.s3 import S3Settings
from kappa_gateway.embedded.events import EmbeddedEvents
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.settle import Settler
from kappa_gateway.settings import Settings


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
    s3 = S3Settings(
        endpoint=settings.endpoint_urls.get("s3") or settings.endpoint_url,
        access_key_id=settings.s3_access_key_id,
        secret_access_key=settings.s3_secret_access_key.get_secret_value(),
    )
    return control_plane.build_control_plane(
        store=store,
        blobs=blobs,
        logs=logs,
        queue=events.queue,
        wake=events.wake,
        intake=CodeIntake(blobs, settings.limits, s3),
        settler=settler,
        locks=locks,
        limits=settings.limits,
        strict_states=settings.strict_states,
        authenticator=authenticator,
        authorise=None,  # one machine, one owner
        code_links=code_links,
        answered=answered,
        version=version,
    )
