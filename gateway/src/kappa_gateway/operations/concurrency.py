"""PutFunctionConcurrency, GetFunctionConcurrency and DeleteFunctionConcurrency: the reservation of a function.

It is checked against all claims of the account and region (:mod:`.claims`). The dispatcher and scaler enforce it.
"""

from __future__ import annotations

import msgspec

from kappa_core.errors import ResourceNotFoundException
from kappa_core.names import WRITE, require_unqualified
from kappa_core.resources import LATEST, Function
from kappa_core.rules.concurrency import check_reservation
from kappa_core.rules.provisioned import check_reservation_covers, total
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.changing import change_function
from kappa_gateway.operations.claims import hold_claims, read_claims
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.reading import function_name, read_function


async def put_function_concurrency(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = require_unqualified(function_name(context, params, rule=WRITE), latest=False)
    wanted = int(params["ReservedConcurrentExecutions"])

    async def with_reservation(current: Function) -> Function:
        claims = await read_claims(deps.store, name.account, name.region)
        check_reservation(deps.limits, wanted=wanted, others=claims.amounts(but=name.key))
        check_reservation_covers(reserved=wanted, provisioned=total(claims.provisioned_for(name.key)))
        return msgspec.structs.replace(current, reserved_concurrency=wanted)

    if await deps.store.get(name.key) is None:
        raise ResourceNotFoundException(f"Function not found: {name.qualified_arn(LATEST)}")  # recorded, unlike get and delete
    async with hold_claims(deps, name):
        await change_function(deps, name, with_reservation, when_settled=False)
    return {"ReservedConcurrentExecutions": wanted}


async def get_function_concurrency(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Empty where nothing is reserved."""
    name = require_unqualified(function_name(context, params, rule=WRITE), latest=False)
    function = await read_function(deps.store, name)
    if function.reserved_concurrency is None:
        return {}
    return {"ReservedConcurrentExecutions": function.reserved_concurrency}


async def delete_function_concurrency(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = require_unqualified(function_name(context, params, rule=WRITE), latest=False)

    async def without_reservation(current: Function) -> Function:
        if current.reserved_concurrency is None:
            return current
        return msgspec.structs.replace(current, reserved_concurrency=None)

    await change_function(deps, name, without_reservation, when_settled=False)
    return {}
