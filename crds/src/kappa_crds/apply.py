"""Putting the CustomResourceDefinitions into a cluster: what ``kappa crds apply`` and the chart's hook do.

One writer, by server-side apply with force, so that it may be repeated, interrupted and run twice at once, and takes over what
``kubectl apply`` has made. A definition of a later release is left as it is. Done is when the API server serves every kind; a name
that another definition holds ends in an error that says so, not in waiting.

    ApiError (kappa_crds.api)
    └── NotEstablished      applied, but not served in time, or its names belong to another definition
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from kappa_crds import names
from kappa_crds.api import ApiError, NotFound, Object, api_path
from kappa_crds.definitions import definitions, edition

ESTABLISHED_SECONDS: Final = 30.0
"""For all definitions together; an idle API server needs less than one."""
_POLL_SECONDS: Final = 0.1


class NotEstablished(ApiError):
    """See the module."""


class DefinitionsApi(Protocol):
    """What is needed of :class:`kappa_crds.api.KubernetesApi`."""

    async def get(self, path: str, /) -> Object: ...
    async def apply(self, path: str, body: Object, /, *, field_manager: str, force: bool = False) -> Object: ...


def _quiet(_: str) -> None:
    """For callers who have nobody to tell."""


async def apply_crds(
    api: DefinitionsApi,
    *,
    say: Callable[[str], None] = _quiet,
    seconds: float = ESTABLISHED_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Apply every definition and wait until all are served. ``say`` gets one line for each.

    Raises ApiError where the API server refuses one, and NotEstablished after ``seconds``.
    """
    deadline = clock() + seconds
    for definition in definitions():
        name = definition["metadata"]["name"]
        path = api_path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=name)
        found = await _found(api, path)
        if found is not None and edition(found) > edition(definition):
            say(f"{name} is of a later release ({edition(found)} > {edition(definition)}) and stays as it is")
        else:
            found = await api.apply(path, definition, field_manager=names.CRDS_MANAGER, force=True)
            say(f"{name} applied")
        while (waiting := _waiting_for(found)) is not None:
            if clock() >= deadline:
                raise NotEstablished(f"{name} is not served: {waiting}")
            await sleep(_POLL_SECONDS)
            found = await api.get(path)


async def _found(api: DefinitionsApi, path: str) -> Object | None:
    try:
        return await api.get(path)
    except NotFound:
        return None


def _waiting_for(definition: Object) -> str | None:
    """None once the definition is served. Raises NotEstablished where it never will be."""
    conditions: dict[str, Any] = {one["type"]: one for one in (definition.get("status") or {}).get("conditions") or ()}
    accepted = conditions.get("NamesAccepted", {})
    if accepted.get("status") == "False":
        raise NotEstablished(f"{definition['metadata']['name']} is not served: {accepted.get('message')}")
    established = conditions.get("Established", {})
    if established.get("status") == "True":
        return None
    return established.get("message") or "the API server has not looked at it yet"
