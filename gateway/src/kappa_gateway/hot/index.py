"""The index: every resource in memory, fed by the store's watch, and the routes made from it for the invoke path.

What this process writes it is told at once, what other gateways write a watch's delay later; what it does not have it reads through
once. So a change may come twice, and an older one after a newer one. A function whose first configuration has not settled is waited
for here (or refused, in strict mode), so that a client may invoke right after a create, as it does with AWS and a waiter. When the
configuration that a version serves changes, the links are told, so that old environments drain.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from kappa_core.names import FunctionName, parse_function
from kappa_core.ports.store import Change, ResourceStore
from kappa_core.resources import LATEST, AccountId, Alias, Function, FunctionVersion, Key, Region, Resource
from kappa_core.rules.resolve import Target, resolve
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.path import Caller
from kappa_gateway.hot.routes import Record, Route, RoutedVersion
from kappa_gateway.hot.version import Version

_log = logging.getLogger(__name__)

BURIED: Final = 10_000
"""Uids of deleted resources that are remembered, so that a read or watch that was slower than the deletion does not revive one."""
ROUTES: Final = 50_000
"""Routes kept before all are dropped and made again: names, ARNs and qualifiers are the caller's to vary."""
SETTLE_SECONDS: Final = 30.0
"""How long an invocation waits for a function that is being created."""

RouteKey = tuple[str, str, str, str | None]
MakeSpec = Callable[[Version], Awaitable[VersionSpec]]


class Observer(Protocol):
    """Told what changed in what may run; see the embedded wiring."""

    def superseded(self, function_key: str, old_revision: str, version: Version | None, /) -> None:
        """``old_revision`` serves no longer; ``version`` takes its place, or nothing does."""

    def reserved_changed(self, function_key: str, reserved: int | None, /) -> None: ...

    def removed(self, function_key: str, /) -> None:
        """The function was deleted."""

    def appeared(self, version: Version, /) -> None:
        """A function serves for the first time since the gateway started."""

    def provisionable(self, resource: Alias | FunctionVersion, gone: bool, /) -> None:
        """A version or alias, which may have provisioned concurrency, is so now, or is gone."""


class FunctionIndex:
    """Resources by key, and routes by (account, region, name, qualifier)."""

    def __init__(
        self,
        *,
        store: ResourceStore,
        make_spec: MakeSpec,
        recorder: Callable[[str, str, str], Record],
        settled: Callable[[Key, float], Awaitable[object]] | None,
        draw: Callable[[], float],
        observer: Observer,
    ) -> None:
        self._store = store
        self._make_spec = make_spec
        self._recorder = recorder
        self._settled = settled
        """Waits until a Pending resource has settled; None in strict mode."""
        self._draw = draw
        self._observer = observer
        self._resources: dict[Key, Resource] = {}
        self._buried: OrderedDict[str, None] = OrderedDict()
        self._routes: dict[RouteKey, Route[Version]] = {}
        self._routes_of: dict[tuple[str, str, str], set[RouteKey]] = {}

    # -- what the invoke path asks -----------------------------------------------------------------------------------
    def cached(self, caller: Caller, name: str, qualifier: str | None, /) -> Route[Version] | None:
        """The route, if it was made before and nothing of its function has changed since."""
        return self._routes.get((caller.account, caller.region, name, qualifier))

    async def find(self, caller: Caller, name: str, qualifier: str | None, /) -> Route[Version]:
        """Make the route. Raises the errors of names and resolve, and what waiting for a Pending function ends in."""
        parsed = parse_function(name, qualifier, account=AccountId(caller.account), region=Region(caller.region))
        target = await self._resolve(parsed)
        if target.configuration is None and target.status.state == "Pending" and self._settled is not None:
            await self._settled(target.key, SETTLE_SECONDS)
            await self._read_through(parsed)
            target = resolve(self, parsed)
        route = self._route(parsed, target)
        if len(self._routes) >= ROUTES:
            self._routes.clear()
            self._routes_of.clear()
        key = (caller.account, caller.region, name, qualifier)
        self._routes[key] = route
        self._routes_of.setdefault((parsed.account, parsed.region, parsed.name), set()).add(key)
        return route

    def get(self, key: Key, /) -> Resource | None:
        """A resource as far as the index has seen it (the Index of kappa_core.rules.resolve)."""
        return self._resources.get(key)

    async def _resolve(self, name: FunctionName) -> Target:
        known = self._resources.get(name.key)
        if known is None or (name.qualifier not in (None, LATEST) and not self._knows_qualifier(name)):
            await self._read_through(name)
        return resolve(self, name)

    def _knows_qualifier(self, name: FunctionName) -> bool:
        return any(key in self._resources for key in _qualified_keys(name))

    async def _read_through(self, name: FunctionName) -> None:
        keys = [name.key, *(_qualified_keys(name) if name.qualifier not in (None, LATEST) else ())]
        for key in keys:
            found = await self._store.get(key)
            if found is not None:
                self._put(found)
                if isinstance(found, Alias):
                    keys += [Key("FunctionVersion", key.account, key.region, key.name, version) for version in _versions(found)]

    def _route(self, name: FunctionName, target: Target) -> Route[Version]:
        function = target.function
        alias = self._resources.get(Key("Alias", name.account, name.region, name.name, name.qualifier or ""))
        weight, additional = 0.0, None
        if isinstance(alias, Alias) and alias.additional_version_weights:
            weight = next(iter(alias.additional_version_weights.values()))
            if weight > 0.0:
                additional = self._routed(resolve(self, name, draw=0.0))
        return Route(
            function_arn=name.given_arn,
            function_key=function_key(function),
            reserved=function.reserved_concurrency,
            primary=self._routed(target),
            additional=additional,
            weight=weight,
            draw=self._draw,
            record=self._recorder(name.account, name.name, name.qualifier or LATEST),
            loops=function.recursive_loop == "Allow",
        )

    def _routed(self, target: Target) -> RoutedVersion[Version]:
        version = Version(
            account=target.function.account,
            region=target.function.region,
            function=target.function.name,
            function_uid=target.function.meta.uid,
            version=target.version,
            configuration=target.runnable(),
        )
        return RoutedVersion(version, label=target.version, make=self._make_spec)

    # -- what the watch brings ---------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Follow the store until cancelled."""
        watch = self._store.watch(replay=True)
        try:
            async for change in watch:
                self.apply(change)
        finally:
            await watch.aclose()

    def apply(self, change: Change) -> None:
        """Take one change in; an older state than the one known changes nothing."""
        if change.type == "PUT":
            self._put(change.resource)
        else:
            self._bury(change.resource.meta.uid)
            known = self._resources.get(change.key)
            if known is not None and known.meta.uid == change.resource.meta.uid:
                del self._resources[change.key]
                self._forget_routes(change.key)
                if isinstance(known, Function):
                    self._observer.removed(function_key(known))
                elif isinstance(known, FunctionVersion):
                    self._version_gone(known)
                if isinstance(known, Alias | FunctionVersion):
                    self._observer.provisionable(known, True)

    def _put(self, resource: Resource) -> None:
        if resource.meta.uid in self._buried:
            return
        known = self._resources.get(resource.key)
        same = known is not None and known.meta.uid == resource.meta.uid
        if known is not None and same and known.meta.generation >= resource.meta.generation:
            return
        if known is not None and not same:
            self._bury(known.meta.uid)  # its name is taken by another one
        self._resources[resource.key] = resource
        self._forget_routes(resource.key)
        if isinstance(resource, Function):
            if isinstance(known, Function) and not same:
                self._observer.removed(function_key(known))
            self._function_changed(known if isinstance(known, Function) and same else None, resource)
        elif isinstance(resource, Alias | FunctionVersion):
            self._observer.provisionable(resource, False)

    def _bury(self, uid: str) -> None:
        self._buried[uid] = None
        if len(self._buried) > BURIED:
            self._buried.popitem(last=False)

    def _forget_routes(self, key: Key) -> None:
        if key.kind == "LayerVersion":
            return
        for route in self._routes_of.pop((key.account, key.region, key.name), ()):
            self._routes.pop(route, None)

    def _function_changed(self, old: Function | None, new: Function) -> None:
        before = None if old is None else _latest(old)
        after = _latest(new)
        if before is None:
            if after is not None:
                self._observer.appeared(after)
        elif after is None or after.revision != before.revision:
            self._observer.superseded(function_key(new), before.revision, after)
        if old is not None and old.reserved_concurrency != new.reserved_concurrency:
            self._observer.reserved_changed(function_key(new), new.reserved_concurrency)

    def _version_gone(self, version: FunctionVersion) -> None:
        if version.status.state == "Active":
            key = f"{version.account}/{version.region}/{version.name}/{version.function_uid}"
            self._observer.superseded(key, f"{version.function_uid}.{version.version}.{version.configuration.digest()}", None)

    def functions(self) -> list[Function]:
        """Every function the index knows."""
        return [each for each in self._resources.values() if isinstance(each, Function)]


def function_key(function: Function) -> str:
    """Names a function to the scaler: concurrency is counted under it."""
    return f"{function.account}/{function.region}/{function.name}/{function.meta.uid}"


def _latest(function: Function) -> Version | None:
    serving = function.status.serving
    if serving is None:
        return None
    return Version(
        account=function.account,
        region=function.region,
        function=function.name,
        function_uid=function.meta.uid,
        version=LATEST,
        configuration=serving,
    )


def _qualified_keys(name: FunctionName) -> tuple[Key, Key]:
    qualifier = name.qualifier or ""
    return (
        Key("FunctionVersion", name.account, name.region, name.name, qualifier),
        Key("Alias", name.account, name.region, name.name, qualifier),
    )


def _versions(alias: Alias) -> list[str]:
    return [version for version in (alias.function_version, *alias.additional_version_weights) if version != LATEST]
