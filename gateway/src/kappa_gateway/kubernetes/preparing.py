"""What has to be there before a function may be invoked in a cluster: its code in the BlobStore, its layers, an image for its runtime.

The settler's :class:`~kappa_gateway.operations.preparing.Preparation` on Kubernetes. A resource made by ``kubectl`` says where its code
is; it is taken in here, and what is returned names the archive. What the Lambda API checks in a request and the schema cannot is
checked here once more, because nobody has done so for a manifest. Nothing is unpacked: pods do that themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from kappa_core.errors import LambdaError
from kappa_core.limits import Limits
from kappa_core.ports.blobs import BlobError, BlobStore
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import Code, Configuration, Function, FunctionVersion, Key, LayerVersion, Sha256
from kappa_core.rules import states
from kappa_core.rules.configuration import NO_CODE
from kappa_core.rules.environment import check_names, check_variables
from kappa_crds.code import code_due
from kappa_gateway.kubernetes.code_sources import CodeSources, SourceMissing
from kappa_gateway.operations.preparing import Unready
from kappa_gateway.operations.reading import read_layers


class Objects(Protocol):
    """The objects behind resources; see kappa_gateway.kubernetes.store."""

    async def read(self, key: Key, /) -> Mapping[str, Any] | None: ...


class ClusterPreparation:
    """See the module. ``runtimes`` are those that an image is configured for."""

    def __init__(
        self,
        *,
        store: ResourceStore,
        objects: Objects,
        blobs: BlobStore,
        sources: CodeSources,
        runtimes: frozenset[str],
        limits: Limits,
    ) -> None:
        self._store = store
        self._objects = objects
        self._blobs = blobs
        self._sources = sources
        self._runtimes = runtimes
        self._limits = limits

    async def prepare(self, resource: Function | FunctionVersion, /) -> Configuration:
        configuration = resource.configuration
        self._check(configuration)
        layers = await self._layers(configuration)
        if isinstance(resource, Function):
            configuration = await self._with_code(resource)
        await self._check_stored(configuration.code.sha256, "The code of the function is no longer there. Upload it again.")
        unzipped = configuration.code.unzipped_size + sum(layer.code.unzipped_size for layer in layers)
        if unzipped > self._limits.unzipped_bytes:
            raise Unready(
                f"Function code combined with layers exceeds the maximum allowed size of {self._limits.unzipped_bytes} bytes. "
                f"The actual size is {unzipped} bytes.",
                states.INVALID_ZIP,
            )
        return configuration

    def _check(self, configuration: Configuration) -> None:
        runtime = configuration.runtime or ""
        if configuration.package_type != "Zip":
            raise Unready("Container images cannot run here: provide the code as a zip archive.", states.INVALID_RUNTIME)
        if runtime not in self._runtimes:
            raise Unready(
                f"No image is configured for the runtime {runtime or '(none)'}; there are images for "
                f"{', '.join(sorted(self._runtimes))}.",
                states.INVALID_RUNTIME,
            )
        if configuration.timeout > self._limits.timeout_max:
            raise Unready(f"The timeout is over the limit of {self._limits.timeout_max} seconds.", states.INTERNAL_ERROR)
        if not configuration.handler and not runtime.startswith("provided"):
            raise Unready(f"A function of the runtime {runtime} needs a handler.", states.INTERNAL_ERROR)
        try:
            check_variables(configuration.environment or {})
            check_names(configuration.value_sources)
        except LambdaError as error:
            raise Unready(error.message or "The environment variables are not allowed.", states.INTERNAL_ERROR) from error

    async def _layers(self, configuration: Configuration) -> list[LayerVersion]:
        found = await read_layers(self._store, configuration.layers)
        for arn in configuration.layers:
            if arn not in found:
                raise Unready(f"Layer version {arn} does not exist.", states.INVALID_ZIP, passing=True)
            await self._check_stored(found[arn].code.sha256, f"The content of layer version {arn} is no longer there.")
        return [found[arn] for arn in configuration.layers]

    async def _with_code(self, function: Function) -> Configuration:
        found = await self._objects.read(function.key)
        if found is None:
            return function.configuration  # deleted meanwhile: what is written for it goes nowhere
        return msgspec.structs.replace(function.configuration, code=await self._code(found, function))

    async def _code(self, found: Mapping[str, Any], function: Function) -> Code:
        code, due = function.configuration.code, code_due(found)
        if due is None:
            if code == NO_CODE:
                raise Unready("The function has no code.", states.INVALID_ZIP)
            return code
        try:
            return await self._sources.take(due, namespace=found["metadata"]["namespace"], region=function.region)
        except SourceMissing:
            if code == NO_CODE:
                raise
            return code  # what was taken in stays

    async def _check_stored(self, sha256: Sha256, missing: str) -> None:
        try:
            stored = await self._blobs.stat(sha256)
        except BlobError as error:
            raise Unready(f"The code cannot be looked for: {error}", states.INTERNAL_ERROR, passing=True) from error
        if stored is None:
            raise Unready(missing, states.INTERNAL_ERROR)
