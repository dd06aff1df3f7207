"""Reads that most operations begin with: the function, version, alias or layer versions that a request names, or AWS's 404."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kappa_core.errors import ResourceNotFoundException
from kappa_core.names import READ, FunctionName, NameRule, is_version, parse_function, parse_layer_version_arn
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import (
    LATEST,
    AccountId,
    Alias,
    Function,
    FunctionVersion,
    Key,
    LayerVersion,
    Region,
    Resource,
)
from kappa_core.rules.deletion import belongs
from kappa_core.rules.resolve import resolve
from kappa_gateway.api.context import Params, RequestContext


def function_name(context: RequestContext, params: Params, *, rule: NameRule = READ) -> FunctionName:
    """The function that a request names by FunctionName and Qualifier. Raises as :func:`kappa_core.names.parse_function`."""
    return parse_function(
        params["FunctionName"],
        params.get("Qualifier"),
        account=AccountId(context.account),
        region=Region(context.region),
        rule=rule,
    )


async def read_function(store: ResourceStore, name: FunctionName) -> Function:
    """Raises ResourceNotFoundException: ``Function not found: <arn>``, qualified as the request was."""
    function = await store.get(name.key)
    if not isinstance(function, Function):
        raise ResourceNotFoundException(f"Function not found: {name.given_arn}")
    return function


class Found(msgspec.Struct, frozen=True):
    """What a name with qualifier stands for."""

    function: Function
    version: FunctionVersion | None
    """None for $LATEST."""


async def read_qualified(store: ResourceStore, name: FunctionName) -> Found:
    """The function and the version that ``name`` means; an alias means its main version. Raises ResourceNotFoundException."""
    index: dict[Key, Resource] = {}
    function = index[name.key] = await read_function(store, name)
    version = name.qualifier or LATEST
    if version != LATEST and not is_version(version):
        alias = await read_alias(store, function, version)
        if alias is not None:
            index[alias.key] = alias
            version = alias.function_version
    if version != LATEST:
        published = await read_version(store, function, version)
        if published is not None:
            index[published.key] = published
    target = resolve(index, name)
    found = index[target.key]
    return Found(function, found if isinstance(found, FunctionVersion) else None)


async def read_version(store: ResourceStore, function: Function, version: str) -> FunctionVersion | None:
    """A published version of this very function."""
    if not is_version(version):
        return None
    found = await store.get(Key("FunctionVersion", function.account, function.region, function.name, version))
    return found if isinstance(found, FunctionVersion) and belongs(found, function) else None


async def read_alias(store: ResourceStore, function: Function, alias: str) -> Alias | None:
    """An alias of this very function."""
    found = await store.get(Key("Alias", function.account, function.region, function.name, alias))
    return found if isinstance(found, Alias) and belongs(found, function) else None


async def read_aliases(store: ResourceStore, function: Function) -> list[Alias]:
    """All aliases of this very function, by name."""
    found = await store.list("Alias", account=function.account, region=function.region, name=function.name)
    return [alias for alias in found if isinstance(alias, Alias) and belongs(alias, function)]


async def read_layers(store: ResourceStore, arns: Iterable[str]) -> dict[str, LayerVersion]:
    """What exists of these layer version ARNs, deleted ones included."""
    found: dict[str, LayerVersion] = {}
    for arn in arns:
        name = parse_layer_version_arn(arn)
        if name is not None and arn not in found:
            layer = await store.get(name.key)
            if isinstance(layer, LayerVersion):
                found[arn] = layer
    return found
