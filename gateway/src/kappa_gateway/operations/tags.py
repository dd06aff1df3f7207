"""TagResource, UntagResource and ListTags. Functions have tags; what else AWS can tag does not exist here."""

from __future__ import annotations

import msgspec

from kappa_core.constraints import summary
from kappa_core.errors import InvalidParameterValueException, ResourceNotFoundException, ValidationException
from kappa_core.names import FunctionName, parse_event_source_mapping_arn, parse_function
from kappa_core.resources import AccountId, Function, Region
from kappa_core.rules.tags import add_tags, remove_tags
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.changing import change_function
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.reading import read_function


async def tag_resource(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = _function_of(context, params["Resource"])

    async def with_tags(current: Function) -> Function:
        return msgspec.structs.replace(current, tags=add_tags(current.tags, params["Tags"]))

    await change_function(deps, name, with_tags)
    return {}


async def untag_resource(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = _function_of(context, params["Resource"])
    if not params.get("TagKeys"):
        constraint = "Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"
        raise ValidationException(summary([constraint]))

    async def without_tags(current: Function) -> Function:
        return msgspec.structs.replace(current, tags=remove_tags(current.tags, params["TagKeys"]))

    await change_function(deps, name, without_tags, when_settled=False)
    return {}


async def list_tags(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    function = await read_function(deps.store, _function_of(context, params["Resource"]))
    return {"Tags": dict(function.tags)}


def _function_of(context: RequestContext, arn: str) -> FunctionName:
    if parse_event_source_mapping_arn(arn) is not None:
        raise ResourceNotFoundException(f"Event source mapping not found: {arn}")
    if ":function:" not in arn:
        raise ResourceNotFoundException("The resource you requested does not exist.")
    name = parse_function(arn, account=AccountId(context.account), region=Region(context.region))
    if name.qualifier is not None:
        raise InvalidParameterValueException(
            "Tags on function aliases and versions are not supported. Please specify a function ARN."
        )
    return name
