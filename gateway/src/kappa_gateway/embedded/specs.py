"""Makes the VersionSpec of a resolved function version on one machine: its code and layers unpacked, its interpreter found.

The first spec of a revision unpacks its code (the settler has usually done so before); after that the hot path gets it without waiting.
Nothing here starts anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from kappa_core.errors import InvalidRuntimeException
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import Sha256
from kappa_core.rules.resolve import layer_digests
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.version import Version
from kappa_gateway.operations.preparing import by_key
from kappa_gateway.operations.reading import read_layers
from kappa_gateway.specs import CachedSpecs, ServiceEndpoints, version_spec


class Trees(Protocol):
    """Unpacked code; see kappa_gateway.code.trees."""

    async def task_root(self, sha256: Sha256, /) -> Path: ...
    async def opt_root(self, layers: Sequence[Sha256], /) -> Path | None: ...


class Runtimes(Protocol):
    """Interpreters on this machine; see kappa_gateway.embedded.runtimes."""

    async def look(self, runtime: str, /) -> None: ...
    def command(self, runtime: str, /) -> tuple[str, ...] | str: ...


class Specs(CachedSpecs):
    """The cache. ``credentials`` makes the session variables of a function."""

    def __init__(
        self,
        *,
        store: ResourceStore,
        trees: Trees,
        endpoints: ServiceEndpoints,
        runtimes: Runtimes,
        credentials: Callable[[Version], dict[str, str]],
        sdk_variables: Callable[[], dict[str, str]],
        init_seconds: float,
    ) -> None:
        super().__init__()
        self._store = store
        self._trees = trees
        self._endpoints = endpoints
        self._runtimes = runtimes
        self._credentials = credentials
        self._sdk_variables = sdk_variables
        self._init_seconds = init_seconds

    async def _build(self, version: Version) -> VersionSpec:
        """Raises InvalidRuntimeException where the runtime is not there, and what unpacking raises."""
        configuration = version.configuration
        runtime = configuration.runtime or ""
        await self._runtimes.look(runtime)
        command = self._runtimes.command(runtime)
        if isinstance(command, str):
            raise InvalidRuntimeException(command)
        task_root = await self._trees.task_root(configuration.code.sha256)
        layers = layer_digests(by_key(await read_layers(self._store, configuration.layers)), configuration)
        opt_root = await self._trees.opt_root(layers) if layers else None
        return version_spec(
            version,
            platform_variables=self._endpoints.variables() | self._credentials(version) | self._sdk_variables(),
            task_root=str(task_root),
            opt_root=None if opt_root is None else str(opt_root),
            init_seconds=self._init_seconds,
            command=command,
        )
