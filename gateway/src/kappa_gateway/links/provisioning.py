"""Brings provisioned concurrency about: from the versions and aliases that ask for it to what the scaler keeps, and back to their state.

    index ─► seen() ─► which revisions are to have how many ─► Scaling.set_provisioned
    scaler ─► changed() ─► states of the configurations ─► store, where every gateway reads them

Every gateway tells its own scaler, so that whichever holds it next knows at once; only the holder notes states. Level-triggered, function
by function: each turn reads what is configured from the store, so that a change that was missed or came twice does no harm. It refuses
to judge whether so much may be provisioned: the API has done so, and where others write the scaler goes by the room that there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

import msgspec

from kappa_core.errors import LambdaError
from kappa_core.limits import PROVISIONED_INIT_SECONDS
from kappa_core.ports.store import Conflict, NotFound, OwnedElsewhere, Rejected, ResourceStore, StoreUnavailable
from kappa_core.resources import LATEST, Alias, Function, FunctionVersion, Key, ProvisionedState
from kappa_core.rules.deletion import belongs
from kappa_core.rules.provisioned import Progress, Provisionable, qualifier_of, requested, states, version_of
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.version import Version
from kappa_gateway.links.provisioned_use import ProvisionedUse

_log = logging.getLogger("kappa.scaler")

NOTE_SECONDS: Final = 0.2
"""How long news of environments are gathered before the state is written."""
RETRY_SECONDS: Final = 1.0
START_SECONDS: Final = 60.0
"""For everything about the start of an environment but its init."""


class Scaling(Protocol):
    """The scaler, as far as this needs it; see kappa_gateway.links.scaling."""

    def set_provisioned(self, function_key: str, targets: dict[str, tuple[int, float]], /) -> None: ...

    def provisioned(self, revision: str, /) -> Progress | None: ...


class Port(Protocol):
    """The links, as far as this needs them; see kappa_gateway.links.shell."""

    provisioned_use: ProvisionedUse

    def learn(self, spec: VersionSpec, function_key: str, reserved: int | None) -> None: ...


class _Source(NamedTuple):
    """Whose environments are provisioned for a version or alias."""

    version: str
    revision: str = ""
    cause: str = ""
    """Why there can be none; then there is no revision."""


class Provisioning:
    """See the module. ``make_spec`` makes what the environments of a version are started from; ``clock_ms`` is epoch milliseconds."""

    def __init__(
        self,
        *,
        store: ResourceStore,
        scaling: Scaling,
        port: Port,
        make_spec: Callable[[Version], Awaitable[VersionSpec]],
        clock_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._scaling = scaling
        self._port = port
        self._make_spec = make_spec
        self._clock_ms = clock_ms
        self._sleep = sleep
        self._known: dict[Key, dict[Key, Provisionable]] = {}
        """By function: versions and aliases that have provisioned concurrency, or had it and are to be told so."""
        self._sources: dict[Key, _Source] = {}
        """By version or alias."""
        self._function_of: dict[str, Key] = {}
        """By revision."""
        self._workers: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()

    async def close(self) -> None:
        """Drop what is under way. Idempotent."""
        tasks = list(self._workers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- what is told --------------------------------------------------------------------------------------------------
    def seen(self, resource: Provisionable, gone: bool, /) -> None:
        """A version or alias is so now, or is gone."""
        function = Key("Function", resource.account, resource.region, resource.name)
        known = self._known.get(function)
        if resource.provisioned is None and known is None:
            return  # by far the most
        if known is None:
            known = self._known[function] = {}
        if gone or resource.provisioned is None:
            known.pop(resource.key, None)
        else:
            known[resource.key] = resource
        self._wake(function)

    def changed(self, revision: str) -> None:
        """The scaler has environments of this revision come or gone."""
        function = self._function_of.get(revision)
        if function is not None:
            self._wake(function)

    def state(self, key: Key) -> ProvisionedState | None:
        """The state of a version's or alias's configuration now; None where another gateway knows it best. Just after a start nothing
        is known of it yet: what is noted in the store may be from before the environments were lost."""
        if self._scaling.provisioned("") is None:
            return None
        known = self._known.get(Key("Function", key.account, key.region, key.name), {})
        return self._states(known).get(key, ProvisionedState(requested=0, function_version=""))

    # -- one function --------------------------------------------------------------------------------------------------
    def _wake(self, function: Key) -> None:
        self._again.add(function)
        if function not in self._workers:
            self._workers[function] = asyncio.create_task(self._work(function), name=f"provision {function.name}")

    async def _work(self, function: Key) -> None:
        try:
            while function in self._again:
                self._again.discard(function)
                try:
                    await self._bring_about(function)
                    await self._sleep(NOTE_SECONDS)
                    await self._note(function)
                except StoreUnavailable as error:
                    _log.warning("provisioned concurrency of %s is put off: %s", function.name, error)
                    self._again.add(function)
                    await self._sleep(RETRY_SECONDS)
        except Exception:  # noqa: BLE001 - a bug about one function must not end the provisioning of all others
            _log.exception("provisioning %s failed unexpectedly", function.name)
        finally:
            del self._workers[function]

    async def _bring_about(self, key: Key) -> None:
        """Tell the scaler what is to be kept."""
        function = await self._store.get(key)
        if not isinstance(function, Function):
            self._forget(key)  # the links have heard of its deletion themselves
            return
        function_key = f"{function.account}/{function.region}/{function.name}/{function.meta.uid}"
        targets: dict[str, tuple[int, float]] = {}
        found: dict[Key, _Source] = {}
        for resource in self._of(function):
            if not requested(resource):
                continue
            spec = await self._spec(function, resource)
            if isinstance(spec, str):
                found[resource.key] = _Source(version_of(resource), cause=spec)
                continue
            self._port.learn(spec, function_key, function.reserved_concurrency)
            number, _ = targets.get(spec.revision, (0, 0.0))
            start_seconds = START_SECONDS + max(PROVISIONED_INIT_SECONDS, spec.timeout)
            self._port.provisioned_use.configure(spec)
            targets[spec.revision] = (number + requested(resource), start_seconds)
            found[resource.key] = _Source(version_of(resource), revision=spec.revision)
        for one in self._known.get(key, ()):
            self._sources.pop(one, None)
        self._sources |= found
        for revision in [revision for revision, of in self._function_of.items() if of == key and revision not in targets]:
            self._port.provisioned_use.forget(revision)
        self._function_of = {revision: of for revision, of in self._function_of.items() if of != key} | dict.fromkeys(
            targets, key
        )
        self._scaling.set_provisioned(function_key, targets)
        if not self._known.get(key):
            self._forget(key)

    async def _spec(self, function: Function, resource: Provisionable) -> VersionSpec | str:
        """What is started for a configuration, or why nothing can be."""
        number = version_of(resource)
        version: FunctionVersion | None = None
        if isinstance(resource, FunctionVersion):
            version = resource
        elif number != LATEST:
            stored = await self._store.get(Key("FunctionVersion", function.account, function.region, function.name, number))
            version = stored if isinstance(stored, FunctionVersion) and belongs(stored, function) else None
        if version is None:
            return f"there is no published version {number}"
        if version.status.state != "Active":
            return version.status.state_reason or f"version {number} is {version.status.state}"
        try:
            return await self._make_spec(
                Version(
                    account=function.account,
                    region=function.region,
                    function=function.name,
                    function_uid=function.meta.uid,
                    version=number,
                    configuration=version.configuration,
                )
            )
        except StoreUnavailable:
            raise
        except LambdaError as error:
            return error.message or error.code
        except Exception as error:  # noqa: BLE001 - whatever its code lacks is said in the state; an invocation says the same
            _log.warning("nothing can be provisioned for %s:%s", function.name, number, exc_info=True)
            return str(error)

    def _of(self, function: Function) -> list[Provisionable]:
        """Its configurations: versions first, which have the first claim, then aliases by name."""
        mine = [one for one in self._known.get(function.key, {}).values() if belongs(one, function)]
        return sorted(mine, key=_precedence)

    def _forget(self, key: Key) -> None:
        for one in self._known.pop(key, ()):
            self._sources.pop(one, None)
        self._function_of = {revision: of for revision, of in self._function_of.items() if of != key}

    # -- states --------------------------------------------------------------------------------------------------------
    def _states(self, known: dict[Key, Provisionable]) -> dict[Key, ProvisionedState]:
        """Of every configuration that this gateway knows about best: the one that holds the scaler, when that acts."""
        together: dict[_Source, list[Provisionable]] = {}
        for resource in sorted(known.values(), key=_precedence):
            source = self._sources.get(resource.key)
            if source is None or source.version != version_of(resource):
                source = _Source(version_of(resource))  # nothing has been brought about yet
            together.setdefault(source, []).append(resource)
        found: dict[Key, ProvisionedState] = {}
        for source, resources in together.items():
            progress = self._scaling.provisioned(source.revision)
            if progress is not None:
                shown = states(resources, Progress(cause=source.cause) if source.cause else progress)
                found |= {one.key: state for one, state in zip(resources, shown, strict=True)}
        return found

    async def _note(self, key: Key) -> None:
        """Write what is not written yet."""
        for resource_key, state in self._states(self._known.get(key, {})).items():
            stored = await self._store.get(resource_key)
            if not isinstance(stored, Alias | FunctionVersion) or stored.provisioned is None:
                continue
            asked = stored.provisioned
            before = asked.state if asked.state is not None and asked.state.requested == state.requested else None
            since_ms = (before.since_ms if before is not None else 0) or asked.modified_ms or self._clock_ms()
            noted = msgspec.structs.replace(state, since_ms=since_ms)
            if asked.state == noted or asked.requested != state.requested or version_of(stored) != state.function_version:
                continue  # the last two: it has changed meanwhile, which will be told
            if asked.state is None and not asked.requested:
                continue  # nobody has ever said anything of it
            changed = msgspec.structs.replace(stored, provisioned=msgspec.structs.replace(asked, state=noted))
            try:
                await self._store.update(changed)
            except (Conflict, NotFound):
                self._again.add(key)
            except (OwnedElsewhere, Rejected) as error:
                _log.warning("the state of %s:%s cannot be noted: %s", stored.name, qualifier_of(stored), error)


def _precedence(resource: Provisionable) -> tuple[bool, str]:
    return isinstance(resource, Alias), qualifier_of(resource)
