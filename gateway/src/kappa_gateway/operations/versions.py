"""PublishVersion and ListVersionsByFunction."""

from __future__ import annotations

from collections.abc import AsyncIterator

from kappa_core.names import WRITE, require_unqualified
from kappa_core.resources import LATEST, Function, FunctionVersion
from kappa_core.rules import publish
from kappa_core.rules.revision import check_revision
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.changing import change_function
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.functions import begin_publication, published_version, versions_of
from kappa_gateway.operations.paging import Place, page_members, page_size, place_of, take_page
from kappa_gateway.operations.reading import function_name, read_function, read_layers
from kappa_gateway.operations.views import latest_view, version_view


async def publish_version(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """A new version, or the newest one again where nothing has changed since."""
    name = require_unqualified(function_name(context, params, rule=WRITE))
    numbers: list[int] = []

    async def with_publication(current: Function) -> Function:
        check_revision(current, params.get("RevisionId"))
        publish.check_code(current, params.get("CodeSha256"))
        return await begin_publication(deps, current, numbers=numbers, description=params.get("Description"))

    function = await change_function(deps, name, with_publication)
    version = await published_version(deps, function)
    return version_view(version, await read_layers(deps.store, version.configuration.layers))


async def list_versions_by_function(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """$LATEST first, then the versions by number, all with qualified ARNs."""
    name = require_unqualified(function_name(context, params))
    function = await read_function(deps.store, name)
    start = place_of(params, parts=1)

    def end(item: Function | FunctionVersion) -> Place:
        return (LATEST if isinstance(item, Function) else str(item.version),)

    async def items() -> AsyncIterator[Function | FunctionVersion]:
        if start is None:
            yield function
        after = start[0] if start is not None and start[0] != LATEST else ""
        async for version in versions_of(deps, function, after=after):
            yield version

    page, marker = await take_page(items(), size=page_size(params), place=end)
    layers = await read_layers(deps.store, (arn for item in page for arn in item.configuration.layers))
    views = [
        latest_view(item, layers, qualifier=LATEST, states=False)
        if isinstance(item, Function)
        else version_view(item, layers, states=False)
        for item in page
    ]
    return page_members("Versions", views, marker)
