"""What every VersionSpec says, whether a laptop or a pod runs it: the configuration, and where the function finds services.

Specs are kept by revision, so that the hot path gets them without waiting. Where code and layers lie, and which interpreter runs them, is
added by :mod:`kappa_gateway.embedded.specs` and :mod:`kappa_gateway.kubernetes.specs`. Nothing here starts anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

from kappa_core.names import function_arn
from kappa_core.spec import Archive, VersionSpec
from kappa_gateway.auth.session_keys import SessionKeys
from kappa_gateway.hot.version import Version

_CACHED: Final = 4096
CLIENT_VARIABLE: Final = "KAPPA_RUNTIME_CLIENT"
"""A function's own environment variable that selects AWS's runtime interface client instead of Kappa's: ``official``."""


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


class CachedSpecs(ABC):
    """Specs by revision: made once, the least recently made go first."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, VersionSpec] = OrderedDict()

    def cached(self, revision: str) -> VersionSpec | None:
        """The spec, if it was made before."""
        return self._made.get(revision)

    async def make(self, version: Version) -> VersionSpec:
        """The spec of a version. Raises LambdaError where it cannot be run here, and what making it meets."""
        revision = version.revision
        spec = self._made.get(revision)
        if spec is None:
            spec = await self._build(version)
            self._made[revision] = spec
            if len(self._made) > _CACHED:
                self._made.popitem(last=False)
        return spec

    @abstractmethod
    async def _build(self, version: Version) -> VersionSpec: ...


def version_spec(
    version: Version,
    *,
    platform_variables: dict[str, str],
    task_root: str,
    opt_root: str | None,
    init_seconds: float,
    command: tuple[str, ...] = (),
    code: Archive | None = None,
    layers: tuple[Archive, ...] = (),
) -> VersionSpec:
    """The spec of a version whose code is, or will be, at ``task_root``."""
    configuration = version.configuration
    variables = dict(configuration.environment or {})
    client = variables.pop(CLIENT_VARIABLE, "own")
    return VersionSpec(
        revision=version.revision,
        function_uid=version.function_uid,
        account=version.account,
        region=version.region,
        function_name=version.function,
        version=version.version,
        function_arn=function_arn(version.account, version.region, version.function),
        runtime=configuration.runtime or "",
        handler=configuration.handler or "",
        memory_mb=configuration.memory_size,
        timeout=float(configuration.timeout),
        ephemeral_mb=configuration.ephemeral_storage_mb,
        variables=variables,
        platform_variables=platform_variables,
        task_root=task_root,
        opt_root=opt_root,
        code=code,
        layers=layers,
        log_group=configuration.logging.log_group,
        log_format=configuration.logging.log_format,
        application_log_level=configuration.logging.application_log_level,
        system_log_level=configuration.logging.system_log_level,
        tracing_mode=configuration.tracing_mode,
        init_seconds=init_seconds,
        client="official" if client == "official" else "own",
        command=command,
    )


def session_variables(
    keys: SessionKeys, *, account: str, region: str, role: str, function_arn: str, now: float, seconds: float
) -> dict[str, str]:
    """The region, and keys for Kappa's own API, as a function finds them in its environment. ``now``: Unix seconds."""
    minted = keys.mint(account, role=role, function_arn=function_arn, now=now, ttl=seconds)
    return {
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ACCESS_KEY_ID": minted.access_key_id,
        "AWS_SECRET_ACCESS_KEY": minted.secret_access_key,
        "AWS_SESSION_TOKEN": minted.session_token,
    }
