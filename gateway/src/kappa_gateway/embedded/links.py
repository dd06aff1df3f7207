"""The links of an embedded gateway: listener, dispatcher, scaler and ProcessProvider, and what the index tells them.

One scaler per data directory: this gateway's, or with the setting ``scaler`` that of a peer, which then also starts the processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Iterable
from typing import Self

from prometheus_client.core import GaugeMetricFamily

from kappa_gateway.embedded.data_dir import DataDir
from kappa_gateway.embedded.provider import ProcessProvider
from kappa_gateway.hot.version import Version
from kappa_gateway.links.assembly import GatewayLinks, Membership
from kappa_gateway.links.changes import Changes, MakeSpec
from kappa_gateway.links.shell import OnLogs
from kappa_gateway.observe.links import link_gauges
from kappa_gateway.settings import Settings

_log = logging.getLogger(__name__)


class EmbeddedLinks:
    """See the module. Use :meth:`open`."""

    def __init__(self, links: GatewayLinks, provider: ProcessProvider | None, causes: dict[str, str]) -> None:
        self.port = links.port
        self.scaling = links.scaling
        self.causes = causes
        """By revision: why its environments cannot be started."""
        self._links = links
        self._provider = provider
        self._changes: Changes | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, settings: Settings, *, data_dir: DataDir, on_logs: OnLogs) -> Self:
        """Listen and be ready to start environments. Raises ListenError."""
        work_dir = data_dir.work_dir()
        address = settings.link or f"unix:{data_dir.socket(work_dir)}"
        membership = Membership(me=address, others=settings.peers, holder=settings.scaler or "")
        token = hmac.digest(data_dir.secret, b"kappa link", hashlib.sha256).hex()
        causes: dict[str, str] = {}
        links = await GatewayLinks.open(
            membership=membership,
            limits=settings.limits,
            policy=settings.scaling_policy,
            idle_seconds=settings.idle_seconds,
            on_logs=on_logs,
            on_cause=lambda revision, cause: _note(causes, revision, cause),
            token=token,
        )
        provider = None
        if membership.holds:
            provider = ProcessProvider(
                work_dir=work_dir / "supervisors",
                gateways=[address, *settings.peers],
                links=links.port,
                on_ended=links.scaling.supervisor_ended,
                sandbox=settings.sandbox,
                hidden=[data_dir.root],
                token=token,
            )
            links.provide(provider, news=provider)
        return cls(links, provider, causes)

    async def close(self) -> None:
        """End every environment and stop listening."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._changes is not None:
            await self._changes.close()
        await self._links.close()

    def observer(self, make_spec: MakeSpec, /) -> Changes:
        """What the index tells of changes. The first function of a runtime has a spare supervisor made ready; the others find one."""
        expected: set[str] = set()

        def appeared(version: Version) -> None:
            runtime = version.configuration.runtime or ""
            if self._provider is not None and runtime not in expected:
                expected.add(runtime)
                self._run(_expect(self._provider, make_spec, version))

        self._changes = Changes(self.port, make_spec=make_spec, on_appeared=appeared)
        return self._changes

    def gauges(self) -> Iterable[GaugeMetricFamily]:
        """For each scrape."""
        return link_gauges(self.port.stats())

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _note(causes: dict[str, str], revision: str, cause: str) -> None:
    if cause:
        causes[revision] = cause
        _log.warning("environments of %s cannot be started: %s", revision, cause)
    else:
        causes.pop(revision, None)


async def _expect(provider: ProcessProvider, make_spec: MakeSpec, version: Version) -> None:
    try:
        provider.expect(await make_spec(version))
    except Exception:  # noqa: BLE001 - a spare is a convenience; the invocation says what is wrong
        _log.info("no spare for %s", version.configuration.runtime, exc_info=True)
