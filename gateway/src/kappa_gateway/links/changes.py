"""What the index sees of changes, passed on to the links: the Observer of :mod:`kappa_gateway.hot.index`.

A revision that serves no longer drains once the spec of its successor is made; that may take a moment (code has to be where
environments find it), so it is a task of its own. It refuses to know what a revision consists of, and to start anything: an
invocation does that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from kappa_core.resources import Alias, FunctionVersion
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.version import Version
from kappa_gateway.links.shell import InvocationPort

_log = logging.getLogger(__name__)

MakeSpec = Callable[[Version], Awaitable[VersionSpec]]
OnProvisionable = Callable[[Alias | FunctionVersion, bool], None]
"""Takes a version or alias as it is now, and whether it is gone."""


class Changes:
    """See the module. ``on_appeared`` is told of every function that serves for the first time since the gateway started."""

    def __init__(
        self,
        port: InvocationPort,
        *,
        make_spec: MakeSpec,
        on_appeared: Callable[[Version], None] = lambda version: None,
    ) -> None:
        self._port = port
        self._make_spec = make_spec
        self._on_appeared = on_appeared
        self.on_provisionable: OnProvisionable = lambda resource, gone: None
        """Told of every version and alias."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Drop what is under way. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- Observer -----------------------------------------------------------------------------------------------------
    def superseded(self, function_key: str, old_revision: str, version: Version | None, /) -> None:
        if version is None:
            self._port.supersede(old_revision, None, function_key)
            return
        task = asyncio.ensure_future(self._supersede(function_key, old_revision, version))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _supersede(self, function_key: str, old_revision: str, version: Version) -> None:
        try:
            spec: VersionSpec | None = await self._make_spec(version)
        except Exception:  # noqa: BLE001 - whatever the new version lacks, the old one is to end; an invocation says what is wrong
            _log.warning("%s has no environment to go to", version.function, exc_info=True)
            spec = None
        self._port.supersede(old_revision, spec, function_key)

    def reserved_changed(self, function_key: str, reserved: int | None, /) -> None:
        self._port.set_reserved(function_key, reserved)

    def removed(self, function_key: str, /) -> None:
        self._port.retire_function(function_key)

    def appeared(self, version: Version, /) -> None:
        self._on_appeared(version)

    def provisionable(self, resource: Alias | FunctionVersion, gone: bool, /) -> None:
        self.on_provisionable(resource, gone)
