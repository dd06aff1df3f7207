"""The links of an embedded gateway: listener, dispatcher, scaler and ProcessProvider, and what the index tells them.

One scaler per data directory: this gateway's, or with the setting ``scaler`` that of a peer, which then also starts the processes.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Self

from prometheus_client.core import GaugeMetricFamily

from kappa_core.spec import VersionSpec
from kappa_gateway.embedded.provider import ProcessProvider
from kappa_gateway.hot.version import Version
from kappa_gateway.links.scaling import Scaling
from kappa_gateway.links.server import LinkServer
from kappa_gateway.links.shell import InvocationPort, OnLogs
from kappa_gateway.settings import Settings

_log = logging.getLogger(__name__)

MakeSpec = Callable[[Version], Awaitable[VersionSpec]]


class EmbeddedLinks:
    """See the module. Use :meth:`open`; implements the Observer of :mod:`kappa_gateway.hot.index` for a given way to make specs."""

    def __init__(self, settings: Settings, *, on_logs: OnLogs, address: str) -> None:
        self.causes: dict[str, str] = {}
        """By revision: why its environments cannot be started."""
        self.port = InvocationPort(limits=settings.limits, on_logs=on_logs)
        self._scaling = Scaling(
            me=address,
            holder=settings.scaler is None,
            gateways=list(settings.peers),
            port=self.port,
            limits=settings.limits,
            new_id=lambda: uuid.uuid4().hex,
            idle_seconds=settings.idle_seconds,
            on_cause=self._cause,
        )
        self.port.news = self._scaling
        self._server = LinkServer(
            gateway_id=address, on_supervisor=self.port.supervisor_connected, on_peer=lambda link, hello: None
        )
        self._provider: ProcessProvider | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, settings: Settings, *, work_dir: Path, socket: Path, on_logs: OnLogs) -> Self:
        """Listen and be ready to start environments. Raises ListenError."""
        address = settings.link or f"unix:{socket}"
        links = cls(settings, on_logs=on_logs, address=address)
        address = await links._server.listen(address)
        if settings.scaler is None:
            links._provider = ProcessProvider(
                work_dir=work_dir / "supervisors",
                gateways=[address, *settings.peers],
                links=links.port,
                on_ended=links._scaling.supervisor_ended,
                sandbox=settings.sandbox,
            )
            links._scaling.provide(links._provider, news=links._provider)
        return links

    async def close(self) -> None:
        """End every environment and stop listening."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._scaling.close()
        if self._provider is not None:
            await self._provider.close()
        self.port.close()
        await self._server.close()

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

    def _cause(self, revision: str, cause: str) -> None:
        if cause:
            self.causes[revision] = cause
            _log.warning("environments of %s cannot be started: %s", revision, cause)
        else:
            self.causes.pop(revision, None)

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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
