"""Makes the VersionSpec of a resolved function version: where its code and layers lie, which interpreter runs it, what it may know.

Specs are cached by revision. The first one of a revision unpacks its code (the settler has usually done so before); after that the
hot path gets it without waiting. Nothing here starts anything.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from kappa_core.errors import InvalidRuntimeException
from kappa_core.names import parse_layer_version_arn
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import Configuration, Key, Resource, Sha256
from kappa_core.rules.resolve import layer_digests
from kappa_core.spec import VersionSpec
from kappa_gateway.hot.version import Version

_CACHED: Final = 4096
CLIENT_VARIABLE: Final = "KAPPA_RUNTIME_CLIENT"
"""A function's own environment variable that selects AWS's runtime interface client instead of Kappa's: ``official``."""


class Trees(Protocol):
    """Unpacked code; see kappa_gateway.code.trees."""

    async def task_root(self, sha256: Sha256, /) -> Path: ...
    async def opt_root(self, layers: Sequence[Sha256], /) -> Path | None: ...


class Runtimes(Protocol):
    """Interpreters on this machine; see kappa_gateway.embedded.runtimes."""

    async def look(self, runtime: str, /) -> None: ...
    def command(self, runtime: str, /) -> tuple[str, ...] | str: ...


class ServiceEndpoints(NamedTuple):
    """Where functions find AWS services."""

    gateway: str
    default: str | None
    services: Mapping[str, str]

    def variables(self) -> dict[str, str]:
        """AWS_ENDPOINT_URL and its per-service forms. What has no endpoint goes to the gateway, which says that it has none:
        better one clear error than session keys sent to the real AWS."""
        found = {"AWS_ENDPOINT_URL": self.default or self.gateway, "AWS_ENDPOINT_URL_LAMBDA": self.gateway}
        for service, url in self.services.items():
            found[f"AWS_ENDPOINT_URL_{service.upper()}"] = url
        return found


class Specs:
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
        self._store = store
        self._trees = trees
        self._endpoints = endpoints
        self._runtimes = runtimes
        self._credentials = credentials
        self._sdk_variables = sdk_variables
        self._init_seconds = init_seconds
        self._made: OrderedDict[str, VersionSpec] = OrderedDict()

    def cached(self, revision: str) -> VersionSpec | None:
        """The spec, if it was made before."""
        return self._made.get(revision)

    async def make(self, version: Version) -> VersionSpec:
        """The spec of a version. Raises InvalidRuntimeException where its runtime is not there, and what unpacking raises."""
        revision = version.revision
        spec = self._made.get(revision)
        if spec is None:
            spec = await self._build(version, revision)
            self._made[revision] = spec
            if len(self._made) > _CACHED:
                self._made.popitem(last=False)
        return spec

    async def _build(self, version: Version, revision: str) -> VersionSpec:
        configuration = version.configuration
        runtime = configuration.runtime or ""
        await self._runtimes.look(runtime)
        command = self._runtimes.command(runtime)
        if isinstance(command, str):
            raise InvalidRuntimeException(command)
        task_root = await self._trees.task_root(configuration.code.sha256)
        layers = await _layers(self._store, configuration)
        opt_root = await self._trees.opt_root(layers) if layers else None
        variables = dict(configuration.environment or {})
        client = variables.pop(CLIENT_VARIABLE, "own")
        return VersionSpec(
            revision=revision,
            function_uid=version.function_uid,
            account=version.account,
            region=version.region,
            function_name=version.function,
            version=version.version,
            function_arn=f"arn:aws:lambda:{version.region}:{version.account}:function:{version.function}",
            runtime=runtime,
            handler=configuration.handler or "",
            memory_mb=configuration.memory_size,
            timeout=float(configuration.timeout),
            ephemeral_mb=configuration.ephemeral_storage_mb,
            variables=variables,
            platform_variables=self._endpoints.variables() | self._credentials(version) | self._sdk_variables(),
            task_root=str(task_root),
            opt_root=None if opt_root is None else str(opt_root),
            log_group=configuration.logging.log_group,
            log_format=configuration.logging.log_format,
            application_log_level=configuration.logging.application_log_level,
            system_log_level=configuration.logging.system_log_level,
            tracing_mode=configuration.tracing_mode,
            init_seconds=self._init_seconds,
            client="official" if client == "official" else "own",
            command=command,
        )


async def _layers(store: ResourceStore, configuration: Configuration) -> tuple[Sha256, ...]:
    """The archives of the layers in merge order."""
    found: dict[Key, Resource] = {}
    for arn in configuration.layers:
        name = parse_layer_version_arn(arn)
        layer = None if name is None else await store.get(name.key)
        if layer is not None:
            found[layer.key] = layer
    return layer_digests(found, configuration)
