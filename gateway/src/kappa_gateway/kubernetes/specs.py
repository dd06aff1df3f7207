"""Makes the VersionSpec of a resolved function version for pods: links to its code and layers, keys for Kappa's API, endpoints.

A spec is kept by revision for as long as the gateway runs, while links and keys last for a bounded time: whoever sends one to a pod
sends :meth:`PodSpecs.renewed` of it. The links lead to the gateways' own Service and are signed with the key that all gateways share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from kappa_core.errors import InvalidParameterValueException, InvalidRuntimeException
from kappa_core.names import function_arn
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import Code, Sha256
from kappa_core.spec import Archive, VersionSpec
from kappa_gateway.auth.session_keys import SessionKeys
from kappa_gateway.code.links import CodeLinks
from kappa_gateway.hot.version import Version
from kappa_gateway.operations.reading import read_layers
from kappa_gateway.specs import CachedSpecs, ServiceEndpoints, session_variables, version_spec

TASK_ROOT: Final = "/var/task"
OPT_ROOT: Final = "/opt"


class PodSpecs(CachedSpecs):
    """See the module. ``endpoints.gateway`` is where pods reach the gateways, ``session_seconds`` how long their keys are good."""

    def __init__(
        self,
        *,
        store: ResourceStore,
        endpoints: ServiceEndpoints,
        links: CodeLinks,
        session_keys: SessionKeys,
        session_seconds: float,
        init_seconds: float,
        runtimes: frozenset[str],
        now: Callable[[], float],
    ) -> None:
        super().__init__()
        self._store = store
        self._endpoints = endpoints
        self._links = links
        self._session_keys = session_keys
        self._session_seconds = session_seconds
        self._init_seconds = init_seconds
        self._runtimes = runtimes
        self._now = now

    def renewed(self, spec: VersionSpec, /) -> VersionSpec:
        """The same spec, also one that another gateway made, with links and keys that begin to age now; its revision stays."""
        given = spec.platform_variables
        token = given.get("AWS_SESSION_TOKEN")
        keys: dict[str, str] = {}
        if token is not None:
            claims = self._session_keys.claims(given["AWS_ACCESS_KEY_ID"], session_token=token, now=0.0)  # however old
            keys = self._keys(account=claims.account, region=spec.region, role=claims.role, function_arn=claims.function_arn)
        return msgspec.structs.replace(
            spec,
            platform_variables=given | keys,
            code=None if spec.code is None else self._archive(spec.code.sha256, spec.code.size),
            layers=tuple(self._archive(layer.sha256, layer.size) for layer in spec.layers),
        )

    async def _build(self, version: Version) -> VersionSpec:
        """Raises InvalidRuntimeException where no image is configured, InvalidParameterValueException where a layer is not there."""
        configuration = version.configuration
        if (configuration.runtime or "") not in self._runtimes:
            raise InvalidRuntimeException(f"No image is configured for the runtime {configuration.runtime or '(none)'}.")
        layers = await self._layers(configuration.layers)
        arn = function_arn(version.account, version.region, version.function)
        keys = self._keys(account=version.account, region=version.region, role=configuration.role, function_arn=arn)
        return version_spec(
            version,
            platform_variables=self._endpoints.variables() | keys,
            task_root=TASK_ROOT,
            opt_root=OPT_ROOT if layers else None,
            init_seconds=self._init_seconds,
            code=self._archive(configuration.code.sha256, configuration.code.size),
            layers=tuple(self._archive(layer.sha256, layer.size) for layer in layers),
        )

    async def _layers(self, arns: Sequence[str]) -> list[Code]:
        found = await read_layers(self._store, arns)
        for arn in arns:
            if arn not in found:
                raise InvalidParameterValueException(f"Layer version {arn} does not exist.")
        return [found[arn].code for arn in arns]

    def _archive(self, sha256: str, size: int) -> Archive:
        return Archive(
            url=self._endpoints.gateway + self._links.path(Sha256(sha256), name="code"),
            sha256=sha256,
            size=size,
        )

    def _keys(self, *, account: str, region: str, role: str, function_arn: str) -> dict[str, str]:
        return session_variables(
            self._session_keys,
            account=account,
            region=region,
            role=role,
            function_arn=function_arn,
            now=self._now(),
            seconds=self._session_seconds,
        )
