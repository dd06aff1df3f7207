"""The links of an embedded gateway: listener, dispatcher, scaler and ProcessProvider, and what the index tells them.

One scaler per data directory: this gateway's, or with the setting ``scaler`` that of a peer, which then also starts the processes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Self

from prometheus_client.core import GaugeMetricFamily

from kappa_core.spec import VersionSpec
from kappa_gateway.embedded.data_dir import DataDir
from kappa_gateway.embedded.provider import ProcessProvider
from kappa_gateway.hot.version import Version
from kappa_gateway.links.assembly import GatewayLinks, Membership
from kappa_gateway.links.shell import InvocationPort, OnLogs
from kappa_gateway.settings import Settings

_log = logging.getLogger(__name__)

MakeSpec = Callable[[Version], Awaitable[VersionSpec]]


class EmbeddedLinks:
    """See the module. Use :meth:`open`; implements the Observer of :mod:`kappa_gateway.hot.index` for a given way to make specs."""

    def __init__(self, links: GatewayLinks, provider: ProcessProvider | None, causes: dict[str, str]) -> None:
        self.port = links.port
        self.causes = causes
        """By revision: why its environments cannot be started."""
        self._links = links
        self._provider = provider
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
        await self._links.close()

    def observer(self, make_spec: MakeSpec) -> Changes:
        """What the index tells of changes."""
        return Changes(self.port, self._provider, make_spec=make_spec, run=self._run)

    def gauges(self) -> Iterable[GaugeMetricFamily]:
        """For each scrape."""
        stats = self.port.stats()
        environments = GaugeMetricFamily("kappa_gateway_environments", "Execution environments by state.", labels=("state",))
        for state, number in stats.environments.items():
            environments.add_metric((state,), number)
        yield environments
        yield GaugeMetricFamily("kappa_gateway_waiting", "Invocations that wait for an environment.", value=stats.waiting)
        yield GaugeMetricFamily("kappa_gateway_supervisors", "Linked supervisors.", value=stats.supervisors)

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


class Changes:
    """Passes what the index saw on to the links. Implements its Observer."""

    def __init__(
        self,
        port: InvocationPort,
        provider: ProcessProvider | None,
        *,
        make_spec: MakeSpec,
        run: Callable[[Awaitable[None]], None],
    ) -> None:
        self._port = port
        self._provider = provider
        self._make_spec = make_spec
        self._run = run
        self._expected: set[str] = set()

    def superseded(self, function_key: str, old_revision: str, version: Version | None, /) -> None:
        if version is None:
            self._port.supersede(old_revision, None, function_key)
        else:
            self._run(self._supersede(function_key, old_revision, version))

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
        """The first function of a runtime has a spare supervisor made ready; the others find one."""
        runtime = version.configuration.runtime or ""
        if self._provider is not None and runtime not in self._expected:
            self._expected.add(runtime)
            self._run(self._expect(version))

    async def _expect(self, version: Version) -> None:
        assert self._provider is not None
        try:
            self._provider.expect(await self._make_spec(version))
        except Exception:  # noqa: BLE001 - a spare is a convenience; the invocation says what is wrong
            _log.info("no spare for %s", version.configuration.runtime, exc_info=True)
