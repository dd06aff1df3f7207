"""Put, Update, Get, Delete and List of FunctionEventInvokeConfig(s): retries and destinations of asynchronous invocations, by qualifier.

A configuration belongs to the qualifier that it was put for, $LATEST where none was named, and goes with its alias, version or function.
Whether a destination of another service exists is found out when something is delivered, as AWS's own stand-ins do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kappa_core.errors import InvalidParameterValueException, ResourceConflictException, ResourceNotFoundException
from kappa_core.names import READ, FunctionName, is_version, parse_function
from kappa_core.ports.store import AlreadyExists, Conflict, NotFound
from kappa_core.resources import LATEST, EventInvokeConfig, Function, Key
from kappa_core.rules.deletion import belongs
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.changing import delete_quietly
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.paging import Place, iterate, page_members, page_size, place_of, take_page
from kappa_gateway.operations.reading import function_name, read_alias, read_version

_ATTEMPTS: Final = 50
"""Writes of other processes that may come in between."""
_ON_SUCCESS_SERVICES: Final = frozenset({"sqs", "sns", "events", "lambda"})
_ON_FAILURE_SERVICES: Final = _ON_SUCCESS_SERVICES | {"s3"}


async def put_function_event_invoke_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Replaces the whole configuration: what is left out is unset."""
    _require_something(params)
    name = function_name(context, params, rule=READ)
    async with deps.locks.hold(name.key):
        function = await _function_with_qualifier(deps, name)
        destinations = await _destinations(deps, name, params.get("DestinationConfig"))
        wanted = EventInvokeConfig(
            account=name.account,
            region=name.region,
            name=name.name,
            qualifier=name.qualifier or LATEST,
            function_uid=function.meta.uid,
            maximum_retry_attempts=params.get("MaximumRetryAttempts"),
            maximum_event_age_seconds=params.get("MaximumEventAgeInSeconds"),
            on_success=destinations.get("OnSuccess", ""),
            on_failure=destinations.get("OnFailure", ""),
            modified_ms=deps.clock(),
        )
        return _view(await _replace(deps, wanted))


async def update_function_event_invoke_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Changes what is given and keeps the rest."""
    _require_something(params)
    name = function_name(context, params, rule=READ)
    async with deps.locks.hold(name.key):
        for _ in range(_ATTEMPTS):
            current = await _read(deps, name)
            destinations = await _destinations(deps, name, params.get("DestinationConfig"))
            changed = msgspec.structs.replace(
                current,
                maximum_retry_attempts=params.get("MaximumRetryAttempts", current.maximum_retry_attempts),
                maximum_event_age_seconds=params.get("MaximumEventAgeInSeconds", current.maximum_event_age_seconds),
                on_success=destinations.get("OnSuccess", current.on_success),
                on_failure=destinations.get("OnFailure", current.on_failure),
                modified_ms=deps.clock(),
            )
            try:
                return _view(await deps.store.update(changed))
            except (Conflict, NotFound):
                continue
    raise _contended(name)


async def get_function_event_invoke_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    return _view(await _read(deps, function_name(context, params, rule=READ)))


async def delete_function_event_invoke_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = function_name(context, params, rule=READ)
    async with deps.locks.hold(name.key):
        await delete_quietly(deps.store, (await _read(deps, name)).key)
    return {}


async def list_function_event_invoke_configs(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Of all qualifiers of a function, by qualifier."""
    name = function_name(context, params, rule=READ)
    function = await deps.store.get(name.key)
    if not isinstance(function, Function):
        raise ResourceNotFoundException("The function doesn't exist.")
    found = await deps.store.list("EventInvokeConfig", account=name.account, region=name.region, name=name.name)
    configs = [one for one in found if isinstance(one, EventInvokeConfig) and belongs(one, function)]
    start = place_of(params, parts=1)
    configs = sorted((one for one in configs if start is None or one.qualifier > start[0]), key=lambda one: one.qualifier)

    def end(config: EventInvokeConfig) -> Place:
        return (config.qualifier,)

    page, marker = await take_page(iterate(configs), size=page_size(params), place=end)
    return page_members("FunctionEventInvokeConfigs", [_view(config) for config in page], marker)


def _require_something(params: Params) -> None:
    if all(params.get(member) is None for member in ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")):
        raise InvalidParameterValueException("You must specify at least one of error handling or destination setting.")


async def _function_with_qualifier(deps: Dependencies, name: FunctionName) -> Function:
    """The function, if it has the version or alias that ``name`` says. Raises ResourceNotFoundException."""
    function = await deps.store.get(name.key)
    qualifier = name.qualifier or LATEST
    if isinstance(function, Function):
        if qualifier == LATEST:
            return function
        child = await (read_version if is_version(qualifier) else read_alias)(deps.store, function, qualifier)
        if child is not None:
            return function
    raise ResourceNotFoundException("The function doesn't exist.")


async def _read(deps: Dependencies, name: FunctionName) -> EventInvokeConfig:
    """Raises ResourceNotFoundException: in the same words where the function itself is missing (recorded)."""
    qualifier = name.qualifier or LATEST
    function = await deps.store.get(name.key)
    config = await deps.store.get(Key("EventInvokeConfig", name.account, name.region, name.name, qualifier))
    if isinstance(function, Function) and isinstance(config, EventInvokeConfig) and belongs(config, function):
        return config
    raise ResourceNotFoundException(f"The function {name.qualified_arn(qualifier)} doesn't have an EventInvokeConfig")


async def _replace(deps: Dependencies, wanted: EventInvokeConfig) -> EventInvokeConfig:
    for _ in range(_ATTEMPTS):
        current = await deps.store.get(wanted.key)
        try:
            if isinstance(current, EventInvokeConfig):
                return await deps.store.update(msgspec.structs.replace(wanted, meta=current.meta))
            return await deps.store.create(wanted)
        except (AlreadyExists, Conflict, NotFound):
            continue
    raise _contended(FunctionName(wanted.account, wanted.region, wanted.name))


async def _destinations(deps: Dependencies, name: FunctionName, given: Mapping[str, Any] | None) -> dict[str, str]:
    """The destinations that a request names, ``""`` for one to be cleared. Raises InvalidParameterValueException."""
    named = {side: (given or {}).get(side, {}).get("Destination") for side in ("OnSuccess", "OnFailure")}
    found = {side: destination for side, destination in named.items() if destination is not None}
    for side, destination in found.items():
        if not destination:
            continue
        service = destination.split(":")[2] if destination.startswith("arn:") else ""
        if service not in (_ON_SUCCESS_SERVICES if side == "OnSuccess" else _ON_FAILURE_SERVICES):
            sides = (f"{one[0].lower()}{one[1:]}={_java(one, named[one])}" for one in ("OnSuccess", "OnFailure"))
            raise InvalidParameterValueException(
                f"The provided destination config DestinationConfig({', '.join(sides)}) is invalid."
            )
        if service == "lambda":
            await _check_function(deps, name, destination)
    return found


def _java(side: str, destination: str | None) -> str:
    """How AWS prints one side of a DestinationConfig."""
    return f"{side}(destination={destination})" if destination else "null"


async def _check_function(deps: Dependencies, name: FunctionName, destination: str) -> None:
    tokens = destination.split(":")
    if len(tokens) not in {7, 8} or tokens[5] != "function" or (tokens[3], tokens[4]) != (name.region, name.account):
        raise InvalidParameterValueException(f"The destination ARN {destination} is invalid.")
    target = parse_function(destination, account=name.account, region=name.region)
    if not isinstance(await deps.store.get(target.key), Function):
        raise InvalidParameterValueException(f"The destination ARN {destination} is invalid.")
    if target.name == name.name:
        raise InvalidParameterValueException("You can't specify the function as a destination for itself.")


def _view(config: EventInvokeConfig) -> Members:
    members: Members = {
        "LastModified": config.modified_ms / 1000,
        "FunctionArn": FunctionName(config.account, config.region, config.name).qualified_arn(config.qualifier),
        "DestinationConfig": {
            "OnSuccess": {"Destination": config.on_success} if config.on_success else {},
            "OnFailure": {"Destination": config.on_failure} if config.on_failure else {},
        },
    }
    if config.maximum_retry_attempts is not None:
        members["MaximumRetryAttempts"] = config.maximum_retry_attempts
    if config.maximum_event_age_seconds is not None:
        members["MaximumEventAgeInSeconds"] = config.maximum_event_age_seconds
    return members


def _contended(name: FunctionName) -> ResourceConflictException:
    return ResourceConflictException(
        f"The operation cannot be performed at this time. An update is in progress for resource: {name.arn}"
    )
