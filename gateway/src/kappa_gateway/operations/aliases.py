"""CreateAlias, GetAlias, UpdateAlias, DeleteAlias and ListAliases.

Aliases change under their function's lock, so that a version is not deleted while an alias is being pointed at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kappa_core.errors import ResourceConflictException, ResourceNotFoundException
from kappa_core.names import READ, WRITE, FunctionName, NameRule, require_unqualified
from kappa_core.ports.store import AlreadyExists, Conflict
from kappa_core.resources import LATEST, Alias, Configuration, Function
from kappa_core.rules.deletion import belongs
from kappa_core.rules.revision import check_revision
from kappa_core.rules.routing import check_alike, check_routing
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.changing import delete_quietly
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.paging import Place, iterate, page_members, page_size, place_of, take_page
from kappa_gateway.operations.reading import function_name, read_alias, read_aliases, read_function, read_version
from kappa_gateway.operations.views import alias_view

_ATTEMPTS = 50
"""Writes of other processes that may come in between."""


async def create_alias(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = _name(context, params)
    async with deps.locks.hold(name.key):
        function = await read_function(deps.store, name)
        alias = Alias(
            account=name.account,
            region=name.region,
            name=name.name,
            alias=params["Name"],
            function_version=params["FunctionVersion"],
            description=params.get("Description", ""),
            additional_version_weights=_weights(params.get("RoutingConfig")),
            function_uid=function.meta.uid,
        )
        await _check_targets(deps, name, function, alias)
        for _ in range(_ATTEMPTS):
            try:
                return alias_view(await deps.store.create(alias))
            except AlreadyExists:
                existing = await deps.store.get(alias.key)
                if isinstance(existing, Alias) and not belongs(existing, function):
                    # Left behind by an earlier function of this name, and not collected yet.
                    await delete_quietly(deps.store, alias.key, resource_version=existing.meta.resource_version)
                    continue
                raise ResourceConflictException(f"Alias already exists: {name.qualified_arn(alias.alias)}") from None
    raise _contended(name)


async def get_alias(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = _name(context, params, rule=READ)
    alias = await read_alias(deps.store, await read_function(deps.store, name), params["Name"])
    if alias is None:
        raise ResourceNotFoundException(f"Cannot find alias arn: {name.qualified_arn(params['Name'])}")
    return alias_view(alias)


async def update_alias(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Every accepted update gives the alias another RevisionId, also one that changes nothing (recorded)."""
    name = _name(context, params)
    async with deps.locks.hold(name.key):
        for _ in range(_ATTEMPTS):
            function = await read_function(deps.store, name)
            alias = await read_alias(deps.store, function, params["Name"])
            if alias is None:
                raise ResourceNotFoundException(f"Alias not found: {name.qualified_arn(params['Name'])}")
            check_revision(alias, params.get("RevisionId"))
            changed = msgspec.structs.replace(
                alias,
                function_version=params.get("FunctionVersion", alias.function_version),
                description=params.get("Description", alias.description),
                additional_version_weights=(
                    _weights(params["RoutingConfig"]) if "RoutingConfig" in params else alias.additional_version_weights
                ),
            )
            await _check_targets(deps, name, function, changed)
            try:
                return alias_view(await deps.store.update(changed))
            except Conflict:
                continue
    raise _contended(name)


async def delete_alias(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """An alias that is not there is deleted already."""
    name = _name(context, params)
    async with deps.locks.hold(name.key):
        alias = await read_alias(deps.store, await read_function(deps.store, name), params["Name"])
        if alias is not None:
            await delete_quietly(deps.store, alias.key)
            await delete_quietly(deps.store, msgspec.structs.replace(alias.key, kind="EventInvokeConfig"))
    return {}


async def list_aliases(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """By name; with FunctionVersion those that use that version."""
    name = _name(context, params, rule=READ)
    function = await read_function(deps.store, name)
    aliases = await read_aliases(deps.store, function)
    version = params.get("FunctionVersion")
    if version is not None:
        aliases = [one for one in aliases if one.function_version == version or version in one.additional_version_weights]
    start = place_of(params, parts=1)
    if start is not None:
        aliases = [one for one in aliases if one.alias > start[0]]

    def end(alias: Alias) -> Place:
        return (alias.alias,)

    page, marker = await take_page(iterate(sorted(aliases, key=lambda alias: alias.alias)), size=page_size(params), place=end)
    return page_members("Aliases", [alias_view(alias) for alias in page], marker)


def _name(context: RequestContext, params: Params, *, rule: NameRule = WRITE) -> FunctionName:
    return msgspec.structs.replace(require_unqualified(function_name(context, params, rule=rule)), qualifier=None)


def _weights(routing: Mapping[str, Any] | None) -> dict[str, float]:
    weights = (routing or {}).get("AdditionalVersionWeights") or {}
    return {version: float(weight) for version, weight in weights.items()}


async def _check_targets(deps: Dependencies, name: FunctionName, function: Function, alias: Alias) -> None:
    primary = await _version(deps, name, function, alias.function_version)
    check_routing(alias.function_version, alias.additional_version_weights)
    for version in alias.additional_version_weights:
        check_alike(primary, await _version(deps, name, function, version))


async def _version(deps: Dependencies, name: FunctionName, function: Function, version: str) -> Configuration:
    if version == LATEST:
        return function.configuration
    found = await read_version(deps.store, function, version)
    if found is None:
        raise ResourceNotFoundException(f"Function not found: {name.qualified_arn(version)}")
    return found.configuration


def _contended(name: FunctionName) -> ResourceConflictException:
    return ResourceConflictException(
        f"The operation cannot be performed at this time. An update is in progress for resource: {name.arn}"
    )
