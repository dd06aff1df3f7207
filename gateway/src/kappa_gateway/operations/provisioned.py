"""Put, Get, Delete and List of ProvisionedConcurrencyConfig(s): environments that are kept ready for a version or an alias.

The configuration is a part of its version or alias and goes with it. Here it is checked and written; the gateway that holds the scaler
brings it about (:mod:`kappa_gateway.links.provisioning`) and notes how far it has come, which is what is shown.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kappa_core.errors import (
    InvalidParameterValueException,
    ProvisionedConcurrencyConfigNotFoundException,
    ResourceConflictException,
    ResourceNotFoundException,
)
from kappa_core.names import WRITE, FunctionName, function_arn, is_version, require_unqualified
from kappa_core.ports.store import Conflict, NotFound
from kappa_core.resources import LATEST, Alias, Function, FunctionVersion, Key, ProvisionedConcurrency
from kappa_core.rules import provisioned as rules
from kappa_core.rules.concurrency import unreserved
from kappa_core.rules.deletion import belongs
from kappa_core.rules.provisioned import Provisionable, requested
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.claims import Claims, hold_claims, read_claims
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.paging import Place, iterate, page_members, page_size, place_of, take_page
from kappa_gateway.operations.reading import function_name, read_alias, read_function, read_version
from kappa_gateway.operations.views import present, timestamp

_ATTEMPTS: Final = 50
"""Writes of other processes that may come in between."""
_NOT_PUBLISHED: Final = "The function resource provided must be an alias or a published version."


async def put_provisioned_concurrency_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Answers before anything is started; the state is then IN_PROGRESS, also where as many are there already."""
    name = _name(context, params, latest="Provisioned Concurrency Configs cannot be applied to unpublished function versions.")
    wanted = int(params["ProvisionedConcurrentExecutions"])
    async with hold_claims(deps, name), deps.locks.hold(name.key):
        for _ in range(_ATTEMPTS):
            target = await _target(deps, name)
            _check(deps, target, wanted=wanted, claims=await read_claims(deps.store, name.account, name.region))
            state = None if target.provisioned is None else target.provisioned.state
            asked = ProvisionedConcurrency(requested=wanted, modified_ms=deps.clock(), state=state)
            try:
                stored = await deps.store.update(msgspec.structs.replace(target, provisioned=asked))
            except (Conflict, NotFound):
                continue
            return {**_config(deps, stored), "Status": "IN_PROGRESS"}
    raise _contended(name)


async def get_provisioned_concurrency_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    target = await _target(deps, _name(context, params, latest=_NOT_PUBLISHED))
    if not requested(target):
        raise ProvisionedConcurrencyConfigNotFoundException("No Provisioned Concurrency Config found for this function")
    return _config(deps, target)


async def delete_provisioned_concurrency_config(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """What is not configured is deleted already. What runs on the environments ends there."""
    name = _name(context, params, latest=_NOT_PUBLISHED)
    async with deps.locks.hold(name.key):
        for _ in range(_ATTEMPTS):
            target = await _target(deps, name)
            if not requested(target):
                return {}
            try:
                await deps.store.update(msgspec.structs.replace(target, provisioned=None))
            except (Conflict, NotFound):
                continue
            return {}
    raise _contended(name)


async def list_provisioned_concurrency_configs(deps: Dependencies, context: RequestContext, params: Params) -> Members:
    """Of all versions of a function, by number, and then its aliases, by name."""
    name = require_unqualified(function_name(context, params))
    function = await read_function(deps.store, name)
    found: list[Provisionable] = []
    for kind in ("FunctionVersion", "Alias"):
        children = await deps.store.list(kind, account=name.account, region=name.region, name=name.name)
        found += [
            one for one in children if isinstance(one, FunctionVersion | Alias) and belongs(one, function) and requested(one)
        ]
    start = place_of(params, parts=1)
    if start is not None:
        found = [one for one in found if _order(rules.qualifier_of(one)) > _order(start[0])]
    page, marker = await take_page(iterate(found), size=page_size(params), place=_place)
    configs = [
        {"FunctionArn": function_arn(one.account, one.region, one.name, rules.qualifier_of(one)), **_config(deps, one)}
        for one in page
    ]
    return page_members("ProvisionedConcurrencyConfigs", configs, marker)


def _name(context: RequestContext, params: Params, *, latest: str) -> FunctionName:
    name = function_name(context, params, rule=WRITE)
    if name.qualifier in (None, LATEST):
        raise InvalidParameterValueException(latest)
    return name


async def _target(deps: Dependencies, name: FunctionName) -> Provisionable:
    """The version or alias that the request names. Raises ResourceNotFoundException."""
    qualifier = name.qualifier or LATEST
    function = await deps.store.get(name.key)
    found: Provisionable | None = None
    if isinstance(function, Function):
        found = await (read_version if is_version(qualifier) else read_alias)(deps.store, function, qualifier)
    if found is not None:
        return found
    missing = "Function not found" if is_version(qualifier) else "Cannot find alias arn"
    raise ResourceNotFoundException(f"{missing}: {name.qualified_arn(qualifier)}")


def _check(deps: Dependencies, target: Provisionable, *, wanted: int, claims: Claims) -> None:
    parent = Key("Function", target.account, target.region, target.name)
    others = [one for one in claims.provisioned_for(parent) if one.key != target.key]
    rules.check_target(target, others)
    function = claims.functions.get(parent)
    of_function = rules.total(others)
    rules.check_amount(
        deps.limits,
        wanted=wanted,
        of_function=of_function,
        reserved=None if function is None else function.reserved_concurrency,
        unreserved=unreserved(deps.limits, claims.amounts(but=parent)) - of_function,
    )


def _config(deps: Dependencies, target: Provisionable) -> dict[str, Any]:
    """As Get answers and List shows it."""
    assert target.provisioned is not None, "only what is configured is shown"
    known = deps.provisioned(target.key)
    state = rules.shown_state(target, known if known is not None else target.provisioned.state)
    return present(
        {
            "RequestedProvisionedConcurrentExecutions": target.provisioned.requested,
            "AvailableProvisionedConcurrentExecutions": state.ready,
            "AllocatedProvisionedConcurrentExecutions": state.allocated,
            "Status": state.status,
            "StatusReason": state.reason,
            # Where a store does not say it: then it was so lately that nobody has noted it yet.
            "LastModified": _without_milliseconds(timestamp(target.provisioned.modified_ms or deps.clock())),
        }
    )


def _without_milliseconds(shown: str) -> str:
    """As AWS shows this one."""
    return f"{shown[:19]}{shown[-5:]}"


def _place(one: Provisionable) -> Place:
    return (rules.qualifier_of(one),)


def _order(qualifier: str) -> tuple[int, int, str]:
    return (0, int(qualifier), "") if is_version(qualifier) else (1, 0, qualifier)


def _contended(name: FunctionName) -> ResourceConflictException:
    return ResourceConflictException(
        f"The operation cannot be performed at this time. An update is in progress for resource: {name.arn}"
    )
