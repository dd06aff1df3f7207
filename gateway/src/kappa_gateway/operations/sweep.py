"""The sweeper: removes code that nothing has referred to for a day, and layer versions that were deleted and are no longer used.

The day spares what is just being created: a blob is stored before the resource that refers to it, and storing it again renews it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

import msgspec

from kappa_core.names import layer_arn
from kappa_core.ports.blobs import BlobError, BlobStore
from kappa_core.ports.store import ResourceStore, StoreError
from kappa_core.resources import Configuration, Function, FunctionVersion, LayerVersion, Sha256
from kappa_gateway.operations.changing import delete_quietly

_log = logging.getLogger(__name__)

SPARED_MS: Final = 24 * 60 * 60 * 1000
INTERVAL_SECONDS: Final = 60 * 60.0


class Trees(Protocol):
    """Unpacked code; see kappa_gateway.code.trees."""

    async def sweep(self, keep: Iterable[Sha256 | tuple[Sha256, ...]], /) -> object:
        """Remove the trees of all archives, and of all lists of layers (tuples), that are not in ``keep``, but for recent ones."""


class Swept(msgspec.Struct, frozen=True):
    """What one sweep removed."""

    blobs: int
    layers: int


class Sweeper:
    """Sweeps every hour. ``clock`` is epoch milliseconds."""

    def __init__(
        self,
        *,
        store: ResourceStore,
        blobs: BlobStore,
        trees: Trees,
        clock: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._trees = trees
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Sweep now and then every hour, until cancelled."""
        while True:
            try:
                swept = await self.sweep()
            except (StoreError, BlobError, OSError) as error:
                _log.warning("the sweep is put off: %s", error)
            else:
                if swept.blobs or swept.layers:
                    _log.info("swept %d archives and %d layer versions", swept.blobs, swept.layers)
            await self._sleep(INTERVAL_SECONDS)

    async def sweep(self) -> Swept:
        """Once. Raises StoreError, BlobError and OSError; what has been removed by then is removed."""
        older_than_ms = self._clock() - SPARED_MS
        configurations = await self._configurations()
        layers, removed = await self._sweep_layers({arn for one in configurations for arn in one.layers}, older_than_ms)
        keep = {one.code.sha256 for one in configurations} | {layer.code.sha256 for layer in layers}
        blobs = await self._blobs.sweep(keep, older_than_ms=older_than_ms)
        archive_of = {_arn(layer): layer.code.sha256 for layer in layers}
        merged = {tuple(archive_of[arn] for arn in one.layers if arn in archive_of) for one in configurations if one.layers}
        await self._trees.sweep([*(one.code.sha256 for one in configurations), *merged])
        return Swept(len(blobs), removed)

    async def _configurations(self) -> list[Configuration]:
        found: list[Configuration] = []
        for resource in [*await self._store.list("Function"), *await self._store.list("FunctionVersion")]:
            if isinstance(resource, Function | FunctionVersion):
                found.append(resource.configuration)
                if resource.status.serving is not None:
                    found.append(resource.status.serving)
        return found

    async def _sweep_layers(self, used: set[str], older_than_ms: int) -> tuple[list[LayerVersion], int]:
        """The layer versions that stay, and how many went. Deleted ones get a day as well: an update that was accepted just
        before may not be in the list yet."""
        kept: list[LayerVersion] = []
        removed = 0
        for layer in await self._store.list("LayerVersion"):
            assert isinstance(layer, LayerVersion)
            if layer.deleted and _arn(layer) not in used and layer.meta.updated_ms < older_than_ms:
                await delete_quietly(self._store, layer.key, resource_version=layer.meta.resource_version)
                removed += 1
            else:
                kept.append(layer)
        return kept, removed


def _arn(layer: LayerVersion) -> str:
    return layer_arn(layer.account, layer.region, layer.name, layer.version)
