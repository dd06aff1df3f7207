"""One key at a time: gather the facts from the cache, have the pure functions decide, write what is missing.

Every reconcile begins from nothing and ends with what there should be, whatever brought it about; two in a row for the same facts write
once. What the API server refuses for good becomes a condition, what it refuses for now comes back later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, cast

from kappa_core.names import parse_layer_version_arn
from kappa_core.resources import Alias, Configuration, EventInvokeConfig, Function, FunctionVersion, LayerVersion
from kappa_crds import labels
from kappa_crds.api import ApiError, Conflict, Forbidden, Invalid, NotFound, Object
from kappa_crds.convert import from_object
from kappa_crds.times import milliseconds
from kappa_operator.cache import Cache, Named, OwnedBy, Ref, Within, function_of, region_of
from kappa_operator.namespaces import Accounts, Namespaces
from kappa_operator.reconcile import environments, names_taken, references
from kappa_operator.reconcile.conditions import NAME_CONFLICT, READY, Condition, not_ready, transitions, written
from kappa_operator.reconcile.function import Decision, Facts, conditions, decide
from kappa_operator.reconcile.roles import service_account
from kappa_operator.settings import PodSettings
from kappa_operator.workqueue import Later
from kappa_operator.writer import Writer

_NOT_SERVED: Final = not_ready(
    "NamespaceNotServed", f"the namespace has no account: label it {labels.ACCOUNT_ID} with twelve digits"
)

log = logging.getLogger(__name__)


class Reconciler:
    """Callable with a key; returns the seconds after which it wants to see it again, or None."""

    def __init__(
        self,
        *,
        cache: Cache,
        writer: Writer,
        accounts: Accounts,
        namespaces: Namespaces,
        pods: PodSettings,
        region: str,
        wanted_seconds: float,
        linger_seconds: float,
        enqueue: Callable[[Ref], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cache = cache
        self._writer = writer
        self._accounts = accounts
        self._namespaces = namespaces
        self._pods = pods
        self._region = region
        self._wanted_seconds = wanted_seconds
        self._linger_seconds = linger_seconds
        self._enqueue = enqueue
        self._now = now
        self._unneeded: dict[Ref, dict[str, float]] = {}
        self._miscounted: dict[Ref, float] = {}
        """Functions whose status says another number of environments than there is, since when."""

    async def __call__(self, ref: Ref) -> float | None:
        """Raises Later for whatever may end differently another time."""
        try:
            return await self._reconcile(ref)
        except (Forbidden, Invalid) as error:
            log.warning("%s: the API server refuses: %s", ref, error)
            raise Later(str(error)) from error
        except (NotFound, Conflict) as error:  # what was seen is no longer so; the watch says what is
            raise Later(str(error)) from error
        except ApiError as error:
            log.info("%s: %s", ref, error)
            raise Later(str(error)) from error

    async def _reconcile(self, ref: Ref) -> float | None:
        if ref.kind == "Namespace":
            await self._prepare(ref.name)
            return None
        thing = self._cache.get(ref)
        if thing is None:
            self._unneeded.pop(ref, None)
            self._miscounted.pop(ref, None)
            return None
        if thing["metadata"].get("deletionTimestamp") or self._accounts.leaving(ref.namespace):
            return None  # the API server's garbage collector takes the children
        account = self._accounts.of(ref.namespace)
        if account is None:
            if not _spoken_of(thing):
                await self._say(ref.kind, thing, [_NOT_SERVED])
            return None
        match ref.kind:
            case "Function":
                return await self._function(ref, thing, account)
            case "FunctionVersion" | "Alias" | "EventInvokeConfig":
                await self._child(ref.kind, thing, account)
            case "LayerVersion":
                layer = cast(LayerVersion, self._read(thing, account))
                has_content = bool(layer.code.sha256)
                await self._say(
                    ref.kind, thing, [references.layer_version_condition(has_content=has_content, deleted=layer.deleted)]
                )
            case "Layer":
                await self._say(ref.kind, thing, [_layer(thing)])
            case "EventSourceMapping":
                await self._say(ref.kind, thing, [references.event_source_mapping_condition()])
            case _:
                raise AssertionError(f"nobody asks for {ref}")
        return None

    # -- namespaces ----------------------------------------------------------------------------------------------------
    async def _prepare(self, namespace: str) -> None:
        before = self._namespaces.ready(namespace)
        await self._namespaces.prepare(namespace)
        if not before and self._namespaces.ready(namespace):
            for each in self._cache.lookup("Function", Within(namespace)):
                self._enqueue(Ref("Function", namespace, each["metadata"]["name"]))

    # -- functions -----------------------------------------------------------------------------------------------------
    async def _function(self, ref: Ref, thing: Object, account: str) -> float | None:
        facts = self._facts(thing, account)
        decision = decide(
            facts,
            settings=self._pods,
            unneeded_since=self._unneeded.get(ref, {}),
            now=self._now().timestamp(),
            wanted_seconds=self._wanted_seconds,
            linger_seconds=self._linger_seconds,
        )
        self._unneeded[ref] = decision.deployments.unneeded_since
        if decision.deployments.create and not self._namespaces.ready(ref.namespace):
            self._enqueue(Ref("Namespace", "", ref.namespace))
            waiting = "the namespace does not have what pods need yet: their NetworkPolicy and the links' authority"
            await self._say("Function", thing, conditions(facts, settings=self._pods, waiting=waiting))
            raise Later(waiting)
        refused = None
        try:
            await self._carry_out(decision, namespace=ref.namespace, account=account)
        except (Forbidden, Invalid) as error:
            refused = str(error)
        facts = self._facts(thing, account)
        await self._say("Function", thing, conditions(facts, settings=self._pods, refused=refused))
        if refused is not None:
            raise Later(refused)
        waits = [seconds for seconds in (decision.again, await self._count(ref, thing, facts)) if seconds is not None]
        return min(waits, default=None)

    async def _count(self, ref: Ref, thing: Object, facts: Facts) -> float | None:
        """Seconds after which the number of environments has to be looked at again."""
        total = environments.counted(facts.deployments)
        if total == environments.said(thing):
            self._miscounted.pop(ref, None)
            return None
        now = self._now().timestamp()
        left = self._miscounted.setdefault(ref, now) + environments.STEADY_SECONDS - now
        if left > 0:
            return left
        await self._writer.environments(thing, total)
        del self._miscounted[ref]
        return None

    async def _carry_out(self, decision: Decision, *, namespace: str, account: str) -> None:
        for role in decision.roles:
            await self._writer.create("ServiceAccount", service_account(role, namespace=namespace, account=account))
        for wanted in decision.deployments.create:
            await self._writer.create("Deployment", wanted)
        for found, wanted in decision.deployments.reshape:
            await self._writer.reshape(found, wanted)
        for found in decision.deployments.delete:
            await self._writer.delete("Deployment", found)

    def _facts(self, thing: Object, account: str) -> Facts:
        metadata = thing["metadata"]
        namespace, uid = metadata["namespace"], metadata["uid"]
        function = cast(Function, self._read(thing, account))
        versions = self._named("FunctionVersion", thing)
        owned = self._cache.lookup("Deployment", OwnedBy(namespace, metadata["name"]))
        return Facts(
            thing=thing,
            function=function,
            versions=tuple(cast(FunctionVersion, self._read(each, account)) for each in versions),
            aliases=tuple(cast(Alias, self._read(each, account)) for each in self._named("Alias", thing)),
            wanted={str(each["spec"]["version"]): when for each in versions if (when := _wanted(each)) is not None},
            deployments=tuple(each for each in owned if _is_owned(each, uid)),
            service_accounts=tuple(self._cache.lookup("ServiceAccount", Within(namespace))),
            taken_by=self._taken_by(thing, account),
            layers_missing=self._missing(function.configuration),
        )

    def _taken_by(self, thing: Object, account: str) -> str | None:
        mine = names_taken.claim(thing)
        others = self._cache.lookup("Function", self._name_of(thing))
        claims = [names_taken.claim(each) for each in others if self._accounts.of(each["metadata"]["namespace"]) == account]
        first = names_taken.holder([mine, *claims])
        return None if first.uid == mine.uid else first.place

    # -- versions, aliases, configurations -----------------------------------------------------------------------------
    async def _child(self, kind: str, thing: Object, account: str) -> None:
        parents = sorted(self._named("Function", thing), key=names_taken.claim)
        parent = parents[0] if parents else None
        child = cast(FunctionVersion | Alias | EventInvokeConfig, self._read(thing, account))
        if parent is not None and not child.function_uid and not parent["metadata"].get("deletionTimestamp"):
            await self._writer.adopt(kind, thing, owner=parent)
            return  # its answer comes back as a change
        function = None if parent is None else cast(Function, self._read(parent, account))
        versions = [cast(FunctionVersion, self._read(each, account)) for each in self._named("FunctionVersion", thing)]
        condition: Condition
        match child:
            case FunctionVersion():
                missing = self._missing(child.configuration)
                condition = references.version_condition(child, function=function, layers_missing=missing)
            case Alias():
                condition = references.alias_condition(child, function=function, versions=versions)
            case _:
                aliases = [cast(Alias, self._read(each, account)) for each in self._named("Alias", thing)]
                condition = references.event_invoke_config_condition(child, function=function, versions=versions, aliases=aliases)
        await self._say(kind, thing, [condition])

    # -- shared --------------------------------------------------------------------------------------------------------
    async def _say(self, kind: str, thing: Object, wanted: list[Condition]) -> None:
        """Write conditions where they are news, and an event where they are bad news or the end of such."""
        ref = Ref(kind, thing["metadata"]["namespace"], thing["metadata"]["name"])
        thing = self._cache.get(ref) or thing
        stated = written(thing, wanted, now_ms=round(self._now().timestamp() * 1000))
        if stated is None:
            return
        news = transitions(thing, wanted)
        await self._writer.conditions(kind, thing, stated)
        for each in news:
            good = each.condition.type == READY and each.condition.status != "False"
            if each.condition.type in {READY, NAME_CONFLICT} and not (good and each.first) and each.condition.status != "Unknown":
                await self._writer.event(kind, thing, each.condition)

    def _read(self, thing: Object, account: str) -> object:
        return from_object(thing, account=account, default_region=self._region)

    def _name_of(self, thing: Object) -> Named:
        return Named(region_of(thing, default_region=self._region), function_of(thing))

    def _named(self, kind: str, thing: Object) -> list[Object]:
        """The objects of a kind that are about the same function, in the same namespace."""
        namespace = thing["metadata"]["namespace"]
        return [each for each in self._cache.lookup(kind, self._name_of(thing)) if each["metadata"]["namespace"] == namespace]

    def _missing(self, configuration: Configuration) -> tuple[str, ...]:
        return tuple(arn for arn in configuration.layers if not self._has_layer(arn))

    def _has_layer(self, arn: str) -> bool:
        name = parse_layer_version_arn(arn)
        if name is None:
            return False
        found: Iterable[Object] = self._cache.lookup("LayerVersion", Named(name.region, name.name))
        return any(
            each["spec"]["version"] == name.version and self._accounts.of(each["metadata"]["namespace"]) == name.account
            for each in found
        )


def _layer(thing: Object) -> Condition:
    status = thing.get("status") or {}
    current = status.get("observedGeneration", 0) >= thing["metadata"].get("generation", 1)
    failures = [
        each.get("message") or each["reason"]
        for each in status.get("conditions") or ()
        if each["type"] == "CodeReady" and each["status"] == "False"
    ]
    name = thing["spec"].get("layerName") or thing["metadata"]["name"]
    newest = status.get("version") if current else None
    return references.layer_condition(name, newest=newest, failure=failures[0] if failures else None)


def _wanted(thing: Object) -> float | None:
    when = milliseconds((thing["metadata"].get("annotations") or {}).get(labels.WANTED))
    return when / 1000 if when else None


def _spoken_of(thing: Object) -> bool:
    """Whether an operator that does serve the namespace, which may be one of another release, has said something."""
    return any(
        each["type"] == READY and each["reason"] != _NOT_SERVED.reason
        for each in (thing.get("status") or {}).get("conditions") or ()
    )


def _is_owned(thing: Object, uid: str) -> bool:
    return any(each["uid"] == uid for each in thing["metadata"].get("ownerReferences") or ())
