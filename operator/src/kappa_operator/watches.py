"""kopf as the watch layer, and as nothing more: it lists and watches, resumes after faults, and hands over every event.

Its handlers put what they hear into the cache and the keys of what it concerns into the queue. Nothing of kopf's own is kept in the
cluster: no annotations, finalizers, peering objects or mirrored log lines; change-detecting handlers, which need those, are not used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import kopf

from kappa_crds.api import Object
from kappa_operator.kinds import WATCHED, Watched
from kappa_operator.pulse import Pulse, watch_session

Hear = Callable[[str, bool, Object], None]
"""Kind, whether the object is gone, its last state."""

_INACTIVITY_SECONDS = 90.0
"""Of a watch, before kopf opens it again: a bookmark comes about every minute."""


def registry(hear: Hear, pulse: Pulse) -> kopf.OperatorRegistry:
    """Handlers of every watched kind."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = await watch_session(pulse)
        return kopf.AiohttpSession(server=session.server, aiohttp_session=session.http)

    for watched in WATCHED.values():
        _register(made, watched, hear)
    return made


def _register(made: kopf.OperatorRegistry, watched: Watched, hear: Hear) -> None:
    @kopf.on.event(group=watched.group, version=watched.version, plural=watched.plural, id=watched.plural, registry=made)
    async def on_event(event: Any, **_: Any) -> None:
        hear(watched.kind, event["type"] == "DELETED", dict(event["object"]))


def settings() -> kopf.OperatorSettings:
    """kopf's, with everything off that writes."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.peering.standalone = True
    made.scanning.disabled = True
    made.watching.inactivity_timeout = _INACTIVITY_SECONDS
    made.watching.chunk_size = 500
    made.networking.enforce_retry_after = True
    made.networking.request_timeout = 60.0
    made.networking.connect_timeout = 5.0
    made.queueing.idle_timeout = 0.2  # a worker's task lives on for that long after its object's last event
    made.process.ultimate_exiting_timeout = None
    for watched in WATCHED.values():
        if watched.label_selector:
            made.watching.label_selectors[watched.group, watched.version, watched.plural] = watched.label_selector
    return made


async def watch(hear: Hear, pulse: Pulse, *, namespaces: tuple[str, ...]) -> None:
    """Until cancelled, a signal, or a fault that cannot be waited out."""
    for name in ("kopf.objects", "kopf.activities"):
        logging.getLogger(name).setLevel(logging.WARNING)
    await kopf.operator(
        registry=registry(hear, pulse),
        settings=settings(),
        clusterwide=not namespaces,
        namespaces=namespaces,
    )
