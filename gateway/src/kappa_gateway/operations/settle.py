"""The settler: brings about what accepted changes promise, until no function is Pending and no update InProgress.

Level-triggered: it looks at what is, not at what happened, so that a start after ``kill -9`` finishes what was under way. For each
function and version it unpacks code and layers, checks that the runtime is installed, and writes Active, or Failed with the reason.
Also finishes interrupted publications and collects versions and aliases of functions that are gone. It never starts a runtime.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final, Protocol

import msgspec

from kappa_core.errors import InvalidParameterValueException, LambdaError
from kappa_core.ports.blobs import BlobError, BlobNotFound
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
    Sha256,
)
from kappa_core.rules import publish, states
from kappa_core.rules.deletion import belongs
from kappa_core.rules.resolve import layer_digests
from kappa_gateway.code.trees import TreesUnavailable
from kappa_gateway.operations.changing import delete_quietly, finish_publication
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.reading import read_layers

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 4
"""Archives unpacked at the same time."""
_RETRY_SECONDS: Final = 1.0
"""After the store could not be reached."""
_REREAD_SECONDS: Final = 0.5
"""How often a waiter looks for itself: another process settles, and the watch that tells may just be broken."""

_Child = FunctionVersion | Alias | EventInvokeConfig
"""What goes with its function."""


class Trees(Protocol):
    """Unpacked code; see kappa_gateway.code.trees."""

    async def task_root(self, sha256: Sha256, /) -> Path: ...
    async def opt_root(self, layers: Sequence[Sha256], /) -> Path | None: ...


class Runtimes(Protocol):
    """What is installed to run functions."""

    async def look(self, runtime: str, /) -> None:
        """Find out about a runtime, however long that takes; `available` answers at once afterwards."""

    def available(self, runtime: str, /) -> str | None:
        """None, or one sentence that says what is missing and what was found instead."""


class _Unready(Exception):
    """A configuration that cannot be run here; ``code`` is one of AWS's StateReasonCode."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Settler:
    """Settles functions and versions in tasks of its own. ``delay`` is how many seconds settling takes at least."""

    def __init__(
        self,
        *,
        store: ResourceStore,
        trees: Trees,
        runtimes: Runtimes,
        locks: KeyedLocks,
        delay: float = 0.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._trees = trees
        self._runtimes = runtimes
        self._locks = locks
        self._delay = delay
        self._sleep = sleep
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._deleted: set[Key] = set()
        self._retried: set[Key] = set()
        self._waiters: dict[Key, list[asyncio.Future[None]]] = {}
        self._stopping = False

    # -- what operations call ------------------------------------------------------------------------------------------

    def changed(self, key: Key, /) -> None:
        """Look at this function or version soon; while it is being looked at, look again afterwards."""
        if self._stopping:
            return
        if key in self._tasks:
            self._again.add(key)
        else:
            self._tasks[key] = asyncio.create_task(self._work(key), name=f"settle {key.kind} {key.name}")

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
            await self._catch_up()
            async for change in changes:
                self._wake(change.key)
                if change.type == "DELETE":
                    if isinstance(change.resource, Function):
                        self._deleted.add(change.key)
                        self.changed(change.key)
                elif _needs_work(change.resource):
                    self.changed(change.key)

    async def _catch_up(self) -> None:
        """What only a start looks at: leftovers of functions that are gone, and failures whose cause (a missing runtime, a full
        disk) may be gone as well."""
        versions, aliases = await self._store.list("FunctionVersion"), await self._store.list("Alias")
        configs = await self._store.list("EventInvokeConfig")
        # Functions last: one that another gateway creates meanwhile must not look as if its version had outlived it.
        functions = {one.key: one for one in await self._store.list("Function") if isinstance(one, Function)}
        for child in [*versions, *aliases, *configs]:
            if isinstance(child, _Child) and not belongs(child, functions.get(_parent(child))):
                await delete_quietly(self._store, child.key, resource_version=child.meta.resource_version)
        for resource in [*functions.values(), *versions]:
            if isinstance(resource, Function | FunctionVersion) and resource.status.last_update_status == "Failed":
                self._retried.add(resource.key)
                self.changed(resource.key)

    async def idle(self) -> None:
        """Wait until nothing is being settled."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def stop(self) -> None:
        """End all tasks. What they were at is taken up again by the next start."""
        self._stopping = True
        tasks = list(self._tasks.values())
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
        if key.kind == "Function" and (resource is None or key in self._deleted):
            self._deleted.discard(key)
            await self._collect_children(key)
        match resource:
            case Function():
                await self._settle_function(resource)
            case FunctionVersion():
                if belongs(resource, await self._function_of(resource)):
                    await self._settle_version(resource)
                else:
                    await delete_quietly(self._store, key, resource_version=resource.meta.resource_version)
            case _:
                return

    async def _settle_function(self, function: Function) -> None:
        if publish.pending(function) is not None:
            function = await self._finish(function)
        if not self._is_due(function):
            return
        status = await self._outcome(function.configuration, function.status, serving=function.configuration)
        await self._record(function, status)

    async def _settle_version(self, version: FunctionVersion) -> None:
        if not self._is_due(version):
            return
        status = await self._outcome(version.configuration, version.status, serving=None)
        await self._record(version, status)

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

    async def _outcome(
        self, configuration: Configuration, status: FunctionStatus, *, serving: Configuration | None
    ) -> FunctionStatus:
        if self._delay:
            await self._sleep(self._delay)
        try:
            async with self._at_once:
                await self._prepare(configuration)
        except _Unready as unready:
            return states.failed(status, reason=unready.reason, code=unready.code)
        return states.settled(serving)

    async def _prepare(self, configuration: Configuration) -> None:
        await self._runtimes.look(configuration.runtime or "")
        missing = self._runtimes.available(configuration.runtime or "")
        if missing is not None:
            raise _Unready(missing, states.INVALID_RUNTIME)
        try:
            layers = layer_digests(_by_key(await read_layers(self._store, configuration.layers)), configuration)
            await self._trees.task_root(configuration.code.sha256)
            await self._trees.opt_root(layers)
        except StoreUnavailable:
            raise
        except InvalidParameterValueException as error:
            raise _Unready(error.message or "The code is not usable.", states.INVALID_ZIP) from error
        except BlobNotFound as error:
            raise _Unready("The code of the function is no longer there. Upload it again.", states.INTERNAL_ERROR) from error
        except (LambdaError, BlobError, TreesUnavailable, OSError) as error:
            raise _Unready(f"The code could not be unpacked: {error}", states.INTERNAL_ERROR) from error
        except Exception as error:
            _log.exception("unpacking failed unexpectedly")
            raise _Unready(f"The code could not be unpacked: {error!r}", states.INTERNAL_ERROR) from error

    async def _record(self, prepared: Function | FunctionVersion, status: FunctionStatus) -> None:
        """Write the outcome, unless the resource has become another one meanwhile."""
        while True:
            current = await self._store.get(prepared.key)
            if not isinstance(current, Function | FunctionVersion) or current.meta.uid != prepared.meta.uid:
                self.changed(prepared.key)
                return
            if current.configuration != prepared.configuration or current.status != prepared.status:
                self.changed(prepared.key)
                return
            if current.status == status:
                return
            try:
                await self._store.update(msgspec.structs.replace(current, status=status))
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


def _by_key(layers: Mapping[str, Resource]) -> dict[Key, Resource]:
    return {layer.key: layer for layer in layers.values()}
