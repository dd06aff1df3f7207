"""GetFunctionConfiguration and UpdateFunctionConfiguration, and the configurations beside it that are one setting each:
recursive loops and runtime updates.

A change is accepted as a whole or not at all; invocations go on with what served before until the settler has brought it about.
"""

from __future__ import annotations

import msgspec

from kappa_core.errors import InvalidParameterValueException
from kappa_core.names import WRITE, require_unqualified
from kappa_core.resources import Function
from kappa_core.rules import configuration, states
from kappa_core.rules.layers import check_layers, check_unzipped_size
from kappa_core.rules.revision import check_revision
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.changing import change_function
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.reading import function_name, read_function, read_layers, read_qualified
from kappa_gateway.operations.views import latest_view, version_view


async def get_function_configuration(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = function_name(context, params)
    found = await read_qualified(deps.store, name)
    if found.version is None:
        layers = await read_layers(deps.store, found.function.configuration.layers)
        return latest_view(found.function, layers, qualifier=name.qualifier)
    layers = await read_layers(deps.store, found.version.configuration.layers)
    return version_view(found.version, layers, qualifier=name.qualifier)


async def update_function_configuration(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = require_unqualified(function_name(context, params, rule=WRITE))

    async def with_settings(current: Function) -> Function:
        check_revision(current, params.get("RevisionId"))
        changed = configuration.updated(current.configuration, params, bounds=deps.limits)
        if "Layers" in params:
            used = check_layers(
                changed.layers,
                await read_layers(deps.store, changed.layers),
                account=name.account,
                region=name.region,
                attached=current.configuration.layers,
            )
            check_unzipped_size(changed.code, used, bounds=deps.limits)
        return msgspec.structs.replace(
            current, configuration=changed, status=states.updating(current.status), modified_ms=deps.clock()
        )

    function = await change_function(deps, name, with_settings)
    return latest_view(function, await read_layers(deps.store, function.configuration.layers))


async def get_function_recursion_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = require_unqualified(function_name(context, params, rule=WRITE), latest=False)
    function = await read_function(deps.store, name)
    return {"RecursiveLoop": function.recursive_loop}


async def put_function_recursion_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = require_unqualified(function_name(context, params, rule=WRITE), latest=False)

    async def with_loop(current: Function) -> Function:
        return msgspec.structs.replace(current, recursive_loop=params["RecursiveLoop"])

    function = await change_function(deps, name, with_loop, when_settled=False)
    return {"RecursiveLoop": function.recursive_loop}


async def get_runtime_management_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Always Auto: a function runs on the runtime that is installed, whenever that is updated."""
    name = function_name(context, params)
    await read_qualified(deps.store, name)
    return {"UpdateRuntimeOn": "Auto", "FunctionArn": name.given_arn}


async def put_runtime_management_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Refuses what would have to keep an old runtime."""
    if params["UpdateRuntimeOn"] != "Auto":
        raise InvalidParameterValueException(
            "Runtimes are the ones installed here and cannot be held back: only UpdateRuntimeOn Auto is supported."
        )
    return await get_runtime_management_config(deps, context, params)
