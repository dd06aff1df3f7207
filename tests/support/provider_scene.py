"""A DeploymentProvider over a cluster in memory: orders go in, greetings are played, and what came of it can be looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from deployments_twin import NAMESPACE, DeploymentsTwin
from kappa_core.spec import VersionSpec
from kappa_gateway.kubernetes.fleet import Ceiling
from kappa_gateway.kubernetes.provider import DeploymentProvider
from kappa_gateway.links.server import PodIdentity
from made_specs import version_spec
from pod_links import Links

REVISION = "uid-f.$LATEST.1"


def spec_of(revision: str = REVISION, **changes: Any) -> VersionSpec:
    return version_spec("f", **({"revision": revision} | changes))


class Scene:
    """A cluster, the links, and a provider with what it says."""

    def __init__(self, *, ceiling: Ceiling, revision: str = REVISION) -> None:
        self.cluster = DeploymentsTwin()
        self.links = Links()
        self.ended: list[tuple[str, list[str], str]] = []
        self.causes: list[tuple[str, str]] = []
        self.holds = True
        self.revision = revision
        self.brought: list[str] = []
        self.bring_seconds = 0.0
        self.provider = DeploymentProvider(
            self.cluster,
            links=self.links,
            identity=self._identity,
            on_ended=lambda supervisor, environments, why: self.ended.append((supervisor, environments, why)),
            on_cause=lambda revision, cause: self.causes.append((revision, cause)),
            locate=self._locate,
            ceiling=ceiling,
            bring=self._bring,
            holds=lambda: self.holds,
        )

    def _identity(self, uid: str) -> PodIdentity | None:
        return PodIdentity(NAMESPACE, f"f-{uid}", uid, self.revision)

    async def _bring(self, spec: VersionSpec) -> bytes:
        self.brought.append(spec.revision)
        await asyncio.sleep(self.bring_seconds)
        return b"the zip"

    async def _locate(self, spec: VersionSpec) -> tuple[str, str] | None:
        return NAMESPACE, f"f.{spec.version}"

    async def quiet(self, seconds: float = 0.01) -> None:
        """Let everything that is due happen."""
        await asyncio.sleep(seconds)

    async def start(self, *environment_ids: str) -> None:
        await self.provider.start(spec_of(self.revision), list(environment_ids))
        await self.quiet()

    async def greet(self, uid: str, *, life: str = "1", running: tuple[str, ...] = ()) -> str:
        supervisor = f"{uid}.{life}"
        self.links.linked[supervisor] = list(running)
        self.provider.supervisor_up(supervisor)
        await self.quiet()
        return supervisor

    async def environment_ends(self, supervisor: str, environment_id: str) -> None:
        self.links.linked[supervisor].remove(environment_id)
        self.provider.environment_gone(supervisor, environment_id)
        await self.quiet()

    async def unlink(self, supervisor: str) -> None:
        del self.links.linked[supervisor]
        self.provider.supervisor_down(supervisor)
        await self.quiet()

    async def come_up(self, *environment_ids: str) -> list[str]:
        """Order, and have the pods made, run and greet; the supervisors in order."""
        before = set(self.cluster.pods())
        await self.start(*environment_ids)
        self.cluster.settle("f")
        await self.quiet()
        supervisors = []
        for uid in self.cluster.pods():
            if uid not in before:
                self.cluster.run(uid)
                supervisors.append(await self.greet(uid))
        return supervisors

    def running(self) -> dict[str, list[str]]:
        return {supervisor: list(running) for supervisor, running in self.links.linked.items() if running}


@asynccontextmanager
async def scene(
    *, ceiling: Ceiling | None = None, deployment: bool = True, revision: str = REVISION, begin: bool = True
) -> AsyncIterator[Scene]:
    made = Scene(ceiling=ceiling or Ceiling(100, 100), revision=revision)
    if deployment:
        made.cluster.deployment("f", revision)
    if begin:
        await made.provider.open()
        made.provider.inherit()
        made.provider.begin()
        await made.quiet()
    try:
        yield made
    finally:
        await made.provider.close()
