"""EnvironmentProvider: starts execution environments for the scaler. Stopping goes over the link (retire), this is the hard way."""

from __future__ import annotations

from typing import Protocol

from kappa_core.spec import VersionSpec


class ProviderError(Exception):
    """The environment could not be started; the message says why, for the function's conditions and for waiters."""


class EnvironmentProvider(Protocol):
    async def start(self, spec: VersionSpec, environment_ids: list[str], /) -> None:
        """Bring up one environment for each id. Returns when the start is under way; readiness is their arrival on the link,
        failure to ever arrive is noticed by the scaler's start deadline. Raises ProviderError."""

    async def stop(self, revision: str, environment_ids: list[str], /) -> None:
        """End environments that did not arrive on the link in time, with whatever hosts them. Idempotent."""

    async def stop_version(self, revision: str, /) -> None:
        """End whatever still runs for this revision. Idempotent."""

    async def close(self) -> None: ...
