"""CreateFunction, GetFunction, UpdateFunctionCode, DeleteFunction and ListFunctions.

Code is in the BlobStore before any record refers to it. A function's record is created whole in one write; what Publish asks for on
top is written into it as an intent and finished by whoever comes by. Deleting removes the record; its versions and aliases are
invisible from then on and collected by the settler.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from kappa_core.errors import InvalidParameterValueException, ResourceConflictException, ResourceNotFoundException
from kappa_core.names import DELETE, WRITE, function_arn, parse_new_function, require_unqualified
from kappa_core.ports.store import AlreadyExists, NotFound
from kappa_core.resources import LATEST, AccountId, Code, Configuration, Function, FunctionVersion, Key, Region
from kappa_core.rules import configuration, publish, states
from kappa_core.rules.deletion import belongs, check_version_deletion
from kappa_core.rules.layers import check_layers, check_unzipped_size
from kappa_core.rules.revision import check_revision
from kappa_core.rules.tags import check_tags
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.changing import change_function, delete_quietly, publish_intent, refuse_if_strict
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.intake import check_storage, take_code
from kappa_gateway.operations.paging import Place, page_members, page_size, place_of, take_page
from kappa_gateway.operations.reading import (
    function_name,
    read_aliases,
    read_function,
    read_layers,
    read_qualified,
    read_version,
)
from kappa_gateway.operations.views import latest_view, version_view


async def create_function(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """The function is Pending until the settler has unpacked its code."""
    account, region = AccountId(context.account), Region(context.region)
    name = parse_new_function(params["FunctionName"], account=account, region=region)
    tags = check_tags(params.get("Tags") or {})
    draft = configuration.created(params, name=name.name, bounds=deps.limits)
    layers = await read_layers(deps.store, draft.layers)
    used = check_layers(draft.layers, layers, account=account, region=region)
    if await deps.store.get(name.key) is not None:
        raise _exists(name.name)
    code = await take_code(deps, context, params["Code"])
    check_unzipped_size(code, used, bounds=deps.limits)
    function = Function(
        account=account,
        region=region,
        name=name.name,
        configuration=configuration.with_code(draft, code, architectures=None),
        modified_ms=deps.clock(),
        tags=tags,
    )
    if params.get("Publish"):
        function = await begin_publication(deps, function, numbers=[])
    async with deps.locks.hold(name.key):
        try:
            function = await deps.store.create(function)
        except AlreadyExists:
            raise _exists(name.name) from None
        function = await publish_intent(deps, function)
    view = latest_view(function, layers)
    if function.publication is not None:
        view["Version"] = str(function.publication.version)  # recorded: the version, and yet an unqualified ARN
    return view


def _exists(name: str) -> ResourceConflictException:
    return ResourceConflictException(f"Function already exist: {name}")


async def get_function(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    name = function_name(context, params)
    found = await read_qualified(deps.store, name)
    frozen = found.function.configuration if found.version is None else found.version.configuration
    layers = await read_layers(deps.store, frozen.layers)
    members: Members = {
        "Configuration": (
            latest_view(found.function, layers, qualifier=name.qualifier)
            if found.version is None
            else version_view(found.version, layers, qualifier=name.qualifier)
        ),
        "Code": _code(deps, context, found.function.key if found.version is None else found.version.key, frozen.code),
    }
    if found.function.tags:
        members["Tags"] = dict(found.function.tags)
    if found.function.reserved_concurrency is not None:
        members["Concurrency"] = {"ReservedConcurrentExecutions": found.function.reserved_concurrency}
    return members


def _code(deps: Dependencies, context: RequestContext, key: Key, code: Code) -> Members:
    members: Members = {"RepositoryType": "S3", "Location": deps.links.code_url(context, key, code.sha256)}
    if code.source_kms_key_arn is not None:
        members["SourceKMSKeyArn"] = code.source_kms_key_arn
    return members


async def update_function_code(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """With DryRun everything is checked and nothing changed; with Publish the answer is the published version."""
    name = require_unqualified(function_name(context, params, rule=WRITE))
    revision = params.get("RevisionId")
    if params.get("PublishTo") is not None:
        raise InvalidParameterValueException("PublishTo is not supported here: leave it out.")
    function = await read_function(deps.store, name)
    check_revision(function, revision)
    refuse_if_strict(deps, name, function)
    if params.get("ImageUri") is not None:
        raise InvalidParameterValueException("Please don't provide ImageUri when updating a function with packageType Zip.")
    code = await take_code(deps, context, params)
    numbers: list[int] = []

    async def with_code(current: Function) -> Function:
        check_revision(current, revision)
        changed = _with_configuration(
            deps, current, configuration.with_code(current.configuration, code, architectures=params.get("Architectures"))
        )
        layers = await read_layers(deps.store, changed.configuration.layers)
        check_unzipped_size(code, tuple(layers.values()), bounds=deps.limits)
        return await begin_publication(deps, changed, numbers=numbers) if params.get("Publish") else changed

    if params.get("DryRun"):
        dry = await with_code(function)
        layers = await read_layers(deps.store, dry.configuration.layers)
        return latest_view(msgspec.structs.replace(dry, status=function.status, modified_ms=function.modified_ms), layers)
    function = await change_function(deps, name, with_code)
    layers = await read_layers(deps.store, function.configuration.layers)
    if not params.get("Publish"):
        return latest_view(function, layers)
    return version_view(await published_version(deps, function), layers)


def _with_configuration(deps: Dependencies, function: Function, changed: Configuration) -> Function:
    return msgspec.structs.replace(
        function,
        configuration=changed,
        status=states.updating(function.status),
        modified_ms=deps.clock(),
    )


async def begin_publication(
    deps: Dependencies, function: Function, *, numbers: list[int], description: str | None = None
) -> Function:
    """The function with the intent to publish, or as it is where its newest version already is what $LATEST is.

    ``numbers`` keeps the number over a repeated attempt.
    """
    version = publish.unchanged(function)
    if version is not None and await read_version(deps.store, function, str(version)) is not None:
        return function
    await check_storage(deps, function.account, function.region, adding=function.configuration.code.size)
    if not numbers:
        numbers.append(await deps.store.allocate(publish.counter(function)))
    return publish.begin(function, version=numbers[0], description=description)


async def published_version(deps: Dependencies, function: Function) -> FunctionVersion:
    """The newest version. Raises ResourceNotFoundException if it has been deleted in this moment."""
    number = "" if function.publication is None else str(function.publication.version)
    version = await read_version(deps.store, function, number)
    if version is None:
        arn = function_arn(function.account, function.region, function.name, number)
        raise ResourceNotFoundException(f"Function not found: {arn}")
    return version


async def delete_function(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """The whole function, or with a qualifier one version of it."""
    name = function_name(context, params, rule=DELETE)
    async with deps.locks.hold(name.key):
        if name.qualifier is None:
            try:
                await deps.store.delete(name.key)
            except NotFound:
                raise ResourceNotFoundException(f"Function not found: {name.arn}") from None
            deps.settle.changed(name.key)
            return {"StatusCode": 204}
        function = await read_function(deps.store, name)
        check_version_deletion(name.qualifier, await read_aliases(deps.store, function))
        version = await read_version(deps.store, function, name.qualifier)
        if version is not None:
            await delete_quietly(deps.store, version.key)
            await delete_quietly(deps.store, msgspec.structs.replace(version.key, kind="EventInvokeConfig"))
            deps.settle.changed(version.key)
    return {"StatusCode": 204}


async def list_functions(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """By name. With FunctionVersion=ALL each function's $LATEST and then its versions by number."""
    every_version = params.get("FunctionVersion") == "ALL"
    size = page_size(params)
    place = place_of(params, parts=2)

    def end(item: Function | FunctionVersion) -> Place:
        return (item.name, "" if isinstance(item, Function) else str(item.version))

    items = _all_functions(deps, context, place, limit=size + 1, every_version=every_version)
    page, marker = await take_page(items, size=size, place=end)
    frozen = [item.configuration for item in page]
    layers = await read_layers(deps.store, (arn for one in frozen for arn in one.layers))
    views = [
        latest_view(item, layers, qualifier=LATEST if every_version else None, states=False)
        if isinstance(item, Function)
        else version_view(item, layers, states=False)
        for item in page
    ]
    return page_members("Functions", views, marker)


async def _all_functions(
    deps: Dependencies, context: RequestContext, place: Place | None, *, limit: int, every_version: bool
) -> AsyncIterator[Function | FunctionVersion]:
    account, region = AccountId(context.account), Region(context.region)
    after: Key | None = None
    if place is not None:
        after = Key("Function", account, region, place[0])
        if every_version:
            function = await deps.store.get(after)
            if isinstance(function, Function):
                async for version in versions_of(deps, function, after=place[1]):
                    yield version
    while functions := await deps.store.list("Function", account=account, region=region, after=after, limit=limit):
        for function in functions:
            assert isinstance(function, Function)
            yield function
            if every_version:
                async for version in versions_of(deps, function):
                    yield version
        after = functions[-1].key


async def versions_of(deps: Dependencies, function: Function, *, after: str = "") -> AsyncIterator[FunctionVersion]:
    """The function's versions by number, those behind ``after`` only."""
    versions = await deps.store.list(
        "FunctionVersion",
        account=function.account,
        region=function.region,
        name=function.name,
        after=Key("FunctionVersion", function.account, function.region, function.name, after) if after else None,
    )
    for version in versions:
        if isinstance(version, FunctionVersion) and belongs(version, function):
            yield version
