"""The settler: brings about what accepted changes promise, until no function is Pending and no update InProgress.

Level-triggered: it looks at what is, not at what happened, so that a start after ``kill -9`` finishes what was under way. For each
function and version it has brought about what running it needs (:mod:`.preparing`) and writes Active, or Failed with the reason. Also
finishes interrupted publications and, where nobody else does, collects versions and aliases of functions that are gone. Of several
gateways one settles at a time, and the others only wait for it. It never starts a runtime.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final

import msgspec

from kappa_core.ports.store import Conflict, NotFound, ResourceStore, StoreUnavailable
from kappa_core.resources import (
    Alias,
    Configuration,
    EventInvokeConfig,
    Function,
    FunctionStatus,
    FunctionVersion,
    Key,
    Resource,
)
from kappa_core.rules import publish, states
from kappa_core.rules.deletion import belongs
from kappa_gateway.clock import epoch_ms
from kappa_gateway.operations.changing import delete_quietly, finish_publication
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.preparing import Preparation, Unready

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
"""Functions and versions prepared at the same time."""
_RETRY_SECONDS: Final = 1.0
"""After the store could not be reached."""
PASSING_SECONDS: Final = 30.0
"""After which a failure is looked at again whose cause may pass by itself."""
_REREAD_SECONDS: Final = 0.5
"""How often a waiter looks for itself: another process settles, and the watch that tells may just be broken."""

_Child = FunctionVersion | Alias | EventInvokeConfig
"""What goes with its function."""


class Settler:
    """Settles functions and versions in tasks of its own.

    Parameters
    ----------
    delay
        How many seconds settling takes at least.
    holds
        Whether this process is the one that settles; see :meth:`take_over`.
    collects
        Whether what a deleted function leaves behind is this settler's to delete.
    """

    def __init__(
        self,
        *,
        store: ResourceStore,
        preparation: Preparation,
        locks: KeyedLocks,
        delay: float = 0.0,
        holds: Callable[[], bool] = lambda: True,
        collects: bool = True,
        clock_ms: Callable[[], int] = epoch_ms,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._preparation = preparation
        self._locks = locks
        self._delay = delay
        self._holds = holds
        self._collects = collects
        self._clock_ms = clock_ms
        self._sleep = sleep
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._deleted: set[Key] = set()
        self._retried: set[Key] = set()
        self._later: dict[Key, asyncio.Task[None]] = {}
        self._taking_over: asyncio.Task[None] | None = None
        self._waiters: dict[Key, list[asyncio.Future[None]]] = {}
        self._stopping = False

    # -- what operations call ------------------------------------------------------------------------------------------

    def changed(self, key: Key, /) -> None:
        """Look at this function or version soon; while it is being looked at, look again afterwards."""
        if self._stopping or not self._holds():
            return
        if key in self._tasks:
            self._again.add(key)
        else:
            self._tasks[key] = asyncio.create_task(self._work(key), name=f"settle {key.kind} {key.name}")

    def renew(self, key: Key, /) -> None:
        """Prepare this function anew although it is settled: what it is made of may have changed outside of it."""
        if not self._stopping and self._holds():
            self._retried.add(key)
            self.changed(key)

    async def await_settled(self, key: Key, seconds: float, /) -> bool:
        """Wait until nothing is under way for a function or version, or it is gone. False after ``seconds``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            woken: asyncio.Future[None] = loop.create_future()
            self._waiters.setdefault(key, []).append(woken)
            try:
                if _settled(await self._store.get(key)):
                    return True
                if loop.time() >= deadline:
                    return False
                await asyncio.wait([woken], timeout=min(_REREAD_SECONDS, deadline - loop.time()))
            finally:
                waiting = self._waiters.get(key, [])
                if woken in waiting:
                    waiting.remove(woken)
                if not waiting:
                    self._waiters.pop(key, None)

    # -- its life ------------------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """This process settles from now on, in place of another one: look at everything there is."""
        if not self._stopping and (self._taking_over is None or self._taking_over.done()):
            self._taking_over = asyncio.create_task(self._take_over(), name="take over from another settler")

    async def _take_over(self) -> None:
        while self._holds():
            try:
                await self._catch_up()
                return
            except StoreUnavailable as error:
                _log.warning("the settler cannot read the store yet and tries again: %s", error)
            await self._sleep(_RETRY_SECONDS)

    async def run(self) -> None:
        """Settle everything there is, then whatever changes, through any process, until :meth:`stop`."""
        while not self._stopping:
            try:
                await self._follow()
            except StoreUnavailable as error:
                _log.warning("the settler lost the store and tries again: %s", error)
            if not self._stopping:
                await self._sleep(_RETRY_SECONDS)

    async def _follow(self) -> None:
        """One watch, until it ends."""
        async with aclosing(self._store.watch()) as changes:
            if self._holds():
                await self._catch_up()
            async for change in changes:
                self._wake(change.key)
                if change.type == "DELETE":
                    if self._collects and isinstance(change.resource, Function):
                        self._deleted.add(change.key)
                        self.changed(change.key)
                elif _needs_work(change.resource):
                    self.changed(change.key)

    async def _catch_up(self) -> None:
        """Look at everything, and at what only a start looks at: leftovers of functions that are gone, and failures whose cause (a
        missing runtime, a full disk) may be gone as well."""
        versions, aliases = await self._store.list("FunctionVersion"), await self._store.list("Alias")
        configs = await self._store.list("EventInvokeConfig")
        # Functions last: one that another gateway creates meanwhile must not look as if its version had outlived it.
        functions = {one.key: one for one in await self._store.list("Function") if isinstance(one, Function)}
        for child in [*versions, *aliases, *configs] if self._collects else []:
            if isinstance(child, _Child) and not belongs(child, functions.get(_parent(child))):
                await delete_quietly(self._store, child.key, resource_version=child.meta.resource_version)
        for resource in [*functions.values(), *versions]:
            if isinstance(resource, Function | FunctionVersion) and resource.status.last_update_status == "Failed":
                self._retried.add(resource.key)
                self.changed(resource.key)
            elif _needs_work(resource):
                self.changed(resource.key)

    async def idle(self) -> None:
        """Wait until nothing is being settled."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def stop(self) -> None:
        """End all tasks. What they were at is taken up again by the next start."""
        self._stopping = True
        tasks = [*self._tasks.values(), *self._later.values()]
        if self._taking_over is not None:
            tasks.append(self._taking_over)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one resource --------------------------------------------------------------------------------------------------

    async def _work(self, key: Key) -> None:
        try:
            while True:
                self._again.discard(key)
                try:
                    await self._settle(key)
                except StoreUnavailable as error:
                    _log.warning("settling %s %s is put off: %s", key.kind, key.name, error)
                    await self._sleep(_RETRY_SECONDS)
                    continue
                except Exception:  # noqa: BLE001 - a bug about one function must not end the watch over all others
                    _log.exception("settling %s %s failed unexpectedly", key.kind, key.name)
                self._wake(key)
                if key not in self._again:
                    return
        finally:
            self._again.discard(key)
            del self._tasks[key]

    async def _settle(self, key: Key) -> None:
        resource = await self._store.get(key)
        if self._collects and key.kind == "Function" and (resource is None or key in self._deleted):
            self._deleted.discard(key)
            await self._collect_children(key)
        if resource is None:
            self._retried.discard(key)
        match resource:
            case Function():
                await self._settle_function(resource)
            case FunctionVersion():
                if belongs(resource, await self._function_of(resource)):
                    await self._settle_version(resource)
                elif self._collects:
                    await delete_quietly(self._store, key, resource_version=resource.meta.resource_version)
            case _:
                return

    async def _settle_function(self, function: Function) -> None:
        if publish.pending(function) is not None:
            function = await self._finish(function)
        if not self._is_due(function):
            return
        configuration, status = await self._outcome(function)
        settled = states.settled(configuration) if status is None else status
        outcome = msgspec.structs.replace(function, configuration=configuration, status=settled)
        before = function.configuration.code.sha256
        if states.is_settled(function.status) and before and configuration.code.sha256 != before:
            outcome = msgspec.structs.replace(outcome, modified_ms=self._clock_ms())  # an update that nobody has asked for
        await self._record(function, outcome)

    async def _settle_version(self, version: FunctionVersion) -> None:
        if not self._is_due(version):
            return
        _, status = await self._outcome(version)
        await self._record(version, msgspec.structs.replace(version, status=states.settled(None) if status is None else status))

    async def _finish(self, function: Function) -> Function:
        async with self._locks.hold(function.key):
            current = await self._store.get(function.key)
            if not isinstance(current, Function):
                return function
            publication = publish.pending(current)
            try:
                current = await finish_publication(self._store, current)
            except (Conflict, NotFound):
                self.changed(function.key)
            if publication is not None:
                self.changed(publish.version_of(current, publication).key)
            return current

    async def _outcome(self, resource: Function | FunctionVersion) -> tuple[Configuration, FunctionStatus | None]:
        """What can be run, and the status of a failure; None where there is none."""
        if self._delay:
            await self._sleep(self._delay)
        try:
            async with self._at_once:
                return await self._preparation.prepare(resource), None
        except Unready as unready:
            if unready.passing:
                self._look_again(resource.key)
            return resource.configuration, states.failed(resource.status, reason=unready.reason, code=unready.code)

    def _look_again(self, key: Key) -> None:
        """Later, once."""
        if key in self._later or self._stopping:
            return

        async def later() -> None:
            await self._sleep(PASSING_SECONDS)
            del self._later[key]
            self._retried.add(key)
            self.changed(key)

        self._later[key] = asyncio.create_task(later(), name=f"look again at {key.kind} {key.name}")

    async def _record(self, prepared: Function | FunctionVersion, outcome: Function | FunctionVersion) -> None:
        """Write the outcome, unless the resource has become another one meanwhile."""
        while True:
            current = await self._store.get(prepared.key)
            if not isinstance(current, Function | FunctionVersion) or current.meta.uid != prepared.meta.uid:
                self.changed(prepared.key)
                return
            if current.configuration != prepared.configuration or current.status != prepared.status:
                self.changed(prepared.key)
                return
            if current.status == outcome.status and current.configuration == outcome.configuration:
                return
            try:
                await self._store.update(
                    msgspec.structs.replace(
                        current,
                        configuration=outcome.configuration,
                        status=outcome.status,
                        modified_ms=max(current.modified_ms, outcome.modified_ms),
                    )
                )
            except Conflict:
                continue
            except NotFound:
                return
            return

    # -- what functions leave behind -----------------------------------------------------------------------------------

    async def _collect_children(self, key: Key) -> None:
        for kind in ("Alias", "FunctionVersion", "EventInvokeConfig"):
            for child in await self._store.list(kind, account=key.account, region=key.region, name=key.name):
                if isinstance(child, _Child) and not belongs(child, await self._function_of(child)):
                    await delete_quietly(self._store, child.key, resource_version=child.meta.resource_version)

    async def _function_of(self, child: _Child) -> Function | None:
        function = await self._store.get(_parent(child))
        return function if isinstance(function, Function) else None

    # -- small things --------------------------------------------------------------------------------------------------

    def _is_due(self, resource: Function | FunctionVersion) -> bool:
        retry = resource.key in self._retried
        self._retried.discard(resource.key)
        return retry or not states.is_settled(resource.status)

    def _wake(self, key: Key) -> None:
        for waiter in self._waiters.pop(key, []):
            if not waiter.done():
                waiter.set_result(None)


def _needs_work(resource: Resource) -> bool:
    match resource:
        case Function():
            return not states.is_settled(resource.status) or publish.pending(resource) is not None
        case FunctionVersion():
            return not states.is_settled(resource.status)
        case _:
            return False


def _settled(resource: Resource | None) -> bool:
    return not isinstance(resource, Function | FunctionVersion) or states.is_settled(resource.status)


def _parent(child: _Child) -> Key:
    return Key("Function", child.account, child.region, child.name)
