"""PublishLayerVersion, GetLayerVersion(ByArn), ListLayers, ListLayerVersions and DeleteLayerVersion.

A layer exists as long as it has a version. A deleted version is hidden but kept while functions use it; the sweeper removes it when
none does.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import msgspec

from kappa_core.errors import (
    AccessDeniedException,
    InvalidParameterValueException,
    ResourceNotFoundException,
)
from kappa_core.names import LayerName, layer_arn, parse_layer, parse_layer_version_arn, partition
from kappa_core.ports.store import Conflict, NotFound
from kappa_core.resources import AccountId, LayerVersion, Region
from kappa_core.rules.layers import allows
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.intake import take_code
from kappa_gateway.operations.paging import Place, iterate, page_members, page_size, place_of, take_page
from kappa_gateway.operations.views import layer_version_view, layer_view

_ATTEMPTS = 50
"""Writes of other processes that may come in between."""
_GONE = "The resource you requested does not exist."


async def publish_layer_version(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Always a new version; its number is never reused, not even after the layer is gone."""
    name = layer_name(context, params)
    _check_own(context, name, "lambda:PublishLayerVersion")
    code = await take_code(deps, context, params["Content"])
    number = await deps.store.allocate(f"layers/{name.account}/{name.region}/{name.name}")
    layer = await deps.store.create(
        LayerVersion(
            account=name.account,
            region=name.region,
            name=name.name,
            version=number,
            code=code,
            description=params.get("Description", ""),
            license_info=params.get("LicenseInfo"),
            compatible_runtimes=tuple(params.get("CompatibleRuntimes") or ()),
            compatible_architectures=tuple(params.get("CompatibleArchitectures") or ()),
        )
    )
    return _view(deps, context, layer)


async def get_layer_version(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    return _view(deps, context, await _readable(deps, context, layer_name(context, params, version=params["VersionNumber"])))


async def get_layer_version_by_arn(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = parse_layer_version_arn(params["Arn"])
    if name is None or name.region != context.region:
        raise ResourceNotFoundException(_GONE)
    return _view(deps, context, await _readable(deps, context, name))


async def list_layers(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """By name, each with its newest version that matches the filters; layers without such a version are left out."""
    versions = await deps.store.list("LayerVersion", account=AccountId(context.account), region=Region(context.region))
    start = place_of(params, parts=1)
    newest = [
        matching[-1]
        for _, group in groupby(versions, key=lambda version: version.key.name)
        if (matching := list(_matching(group, params))) and (start is None or matching[-1].name > start[0])
    ]

    def end(layer: LayerVersion) -> Place:
        return (layer.name,)

    page, marker = await take_page(iterate(newest), size=page_size(params), place=end)
    views = [
        {
            "LayerName": layer.name,
            "LayerArn": layer_arn(layer.account, layer.region, layer.name),
            "LatestMatchingVersion": layer_version_view(layer),
        }
        for layer in page
    ]
    return page_members("Layers", views, marker)


async def list_layer_versions(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Newest first; a layer that is not there has none."""
    name = layer_name(context, params)
    _check_own(context, name, "lambda:ListLayerVersions")
    versions = await deps.store.list("LayerVersion", account=name.account, region=name.region, name=name.name)
    start = place_of(params, parts=1)
    matching = [one for one in reversed(list(_matching(versions, params))) if start is None or one.version < _number(start[0])]

    def end(layer: LayerVersion) -> Place:
        return (str(layer.version),)

    page, marker = await take_page(iterate(matching), size=page_size(params), place=end)
    return page_members("LayerVersions", [layer_version_view(layer) for layer in page], marker)


async def delete_layer_version(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """A version that is not there is deleted already. Functions that use it go on working."""
    name = layer_name(context, params, version=params["VersionNumber"])
    _check_own(context, name, "lambda:DeleteLayerVersion")
    async with deps.locks.hold(name.key):
        for _ in range(_ATTEMPTS):
            layer = await find_layer(deps, name)
            if layer is None:
                break
            try:
                await deps.store.update(msgspec.structs.replace(layer, deleted=True, policy={}))
                break
            except (Conflict, NotFound):
                continue
    return {}


def layer_name(context: RequestContext, params: Params, *, version: int | None = None) -> LayerName:
    """The layer that a request names. Raises as :func:`kappa_core.names.parse_layer`."""
    return parse_layer(params["LayerName"], account=AccountId(context.account), region=Region(context.region), version=version)


async def find_layer(deps: Dependencies, name: LayerName) -> LayerVersion | None:
    """The layer version, unless it is deleted."""
    layer = await deps.store.get(name.key)
    return layer if isinstance(layer, LayerVersion) and not layer.deleted else None


async def _readable(deps: Dependencies, context: RequestContext, name: LayerName) -> LayerVersion:
    layer = await find_layer(deps, name)
    if name.account != context.account and (layer is None or not allows(layer, AccountId(context.account))):
        raise _denied(context, "lambda:GetLayerVersion", name)
    if layer is None:
        raise ResourceNotFoundException(_GONE)
    return layer


def _check_own(context: RequestContext, name: LayerName, action: str) -> None:
    if name.account != context.account:
        raise _denied(context, action, name)


def _denied(context: RequestContext, action: str, name: LayerName) -> AccessDeniedException:
    return AccessDeniedException(
        f"User: arn:{partition(context.region)}:iam::{context.account}:root is not authorized to perform: {action} on resource: "
        f"{name.arn} because no resource-based policy allows the {action} action"
    )


def _matching(versions: Iterable[object], params: Params) -> Iterable[LayerVersion]:
    runtime, architecture = params.get("CompatibleRuntime"), params.get("CompatibleArchitecture")
    for version in versions:
        if (
            isinstance(version, LayerVersion)
            and not version.deleted
            and (runtime is None or runtime in version.compatible_runtimes)
            and (architecture is None or architecture in version.compatible_architectures)
        ):
            yield version


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidParameterValueException("The Marker is not one that this operation has returned.")
    return int(text)


def _view(deps: Dependencies, context: RequestContext, layer: LayerVersion) -> Members:
    return layer_view(layer, location=deps.links.code_url(context, layer.key, layer.code.sha256))
