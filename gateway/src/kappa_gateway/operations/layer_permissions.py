"""AddLayerVersionPermission, RemoveLayerVersionPermission and GetLayerVersionPolicy: who else may use a layer version.

The policy lives in the layer version's own record, so that parallel additions conflict and are all kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from kappa_core.errors import ResourceConflictException, ResourceNotFoundException
from kappa_core.names import LayerName
from kappa_core.ports.store import Conflict, NotFound
from kappa_core.resources import LayerVersion
from kappa_core.rules.layers import add_statement, policy_document, remove_statement
from kappa_core.rules.revision import check_revision, revision_id
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.layers import find_layer, layer_name

_ATTEMPTS: Final = 50
"""Writes of other processes that may come in between."""


async def add_layer_version_permission(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = layer_name(context, params, version=params["VersionNumber"])
    sid = params["StatementId"]
    layer = await _change(
        deps,
        context,
        name,
        params,
        lambda current: add_statement(current, arn=name.arn, sid=sid, members=params),
    )
    return {"Statement": _text(layer.policy[sid]), "RevisionId": revision_id(layer)}


async def remove_layer_version_permission(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = layer_name(context, params, version=params["VersionNumber"])
    await _change(deps, context, name, params, lambda current: remove_statement(current, sid=params["StatementId"]))
    return {}


async def get_layer_version_policy(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = layer_name(context, params, version=params["VersionNumber"])
    layer = await _own(deps, context, name)
    return {"Policy": _text(policy_document(layer)), "RevisionId": revision_id(layer)}


async def _change(
    deps: Dependencies, context: RequestContext, name: LayerName, params: Params, decide: Callable[[LayerVersion], LayerVersion]
) -> LayerVersion:
    async with deps.locks.hold(name.key):
        for _ in range(_ATTEMPTS):
            layer = await _own(deps, context, name)
            check_revision(layer, params.get("RevisionId"))
            try:
                return await deps.store.update(decide(layer))
            except (Conflict, NotFound):
                continue
    raise ResourceConflictException(
        f"The operation cannot be performed at this time. An update is in progress for resource: {name.arn}"
    )


async def _own(deps: Dependencies, context: RequestContext, name: LayerName) -> LayerVersion:
    layer = await find_layer(deps, name)
    if layer is None or layer.account != context.account:
        raise ResourceNotFoundException(f"Layer version {name.arn} does not exist.")
    return layer


def _text(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))
