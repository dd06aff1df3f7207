"""The operator's process: stands by, leads while it holds the Lease, and ends when it has lost it.

The leader watches, keeps the cache and works the queue; a standby does none of that, so it costs nearly nothing and begins with a cold
cache, which a list fills in a second. A leader that has lost the Lease ends the process instead of unwinding: whatever was under way
is repeated by the next leader, and every write names the state that it was decided on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from typing import Final

from kappa_crds import names
from kappa_crds.api import ApiError, KubernetesApi
from kappa_crds.leases import Election, Standing
from kappa_operator.controller import Controller
from kappa_operator.health import serving
from kappa_operator.kinds import WATCHED
from kappa_operator.metrics import Metrics
from kappa_operator.pulse import Pulse
from kappa_operator.resync import Resync
from kappa_operator.settings import Settings
from kappa_operator.watches import watch

LEASE: Final = "kappa-operator"
_DEFINITIONS_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Somebody else may lead now; this process has to end."""


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises LeaseLost; OSError where the port is taken; Unavailable where no cluster is configured."""
    api = await KubernetesApi.connect()
    try:
        await _Operator(settings, api).run()
    finally:
        await api.close()


class _Operator:
    """Both roles of one process."""

    def __init__(self, settings: Settings, api: KubernetesApi) -> None:
        self._settings = settings
        self._api = api
        self._metrics = Metrics()
        self._gained = asyncio.Event()
        self._lost = asyncio.Event()
        self._leader: _Leader | None = None
        self._election = Election(
            api,
            namespace=settings.namespace,
            name=LEASE,
            identity=settings.pod_name,
            field_manager=names.OPERATOR_MANAGER,
            lease_seconds=settings.lease_seconds,
            changed=self._stands,
        )

    async def run(self) -> None:
        settings = self._settings
        self._metrics.gauge("kappa_operator_leader", "1 for the one that leads.", lambda: float(self._election.standing.mine))
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):  # kopf puts its own in their place while it runs
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serving(
            host=settings.host, port=settings.port, healthy=self._unhealthy, ready=self._unready, metrics=self._metrics.render
        ) as port:
            log.info("standing by; health and metrics on port %s", port)
            election = asyncio.create_task(self._election.run(), name="election")
            try:
                if await _first(self._gained, stop) is self._gained:
                    await self._lead(stop)
            finally:
                election.cancel()
                with suppress(asyncio.CancelledError):
                    await election

    async def _lead(self, stop: asyncio.Event) -> None:
        log.info("leading, epoch %s", self._election.standing.epoch)
        self._leader = _Leader(self._settings, self._api, self._metrics)
        leading = asyncio.create_task(self._leader.run(), name="leader")
        ends = [asyncio.create_task(event.wait()) for event in (self._lost, stop)]
        await asyncio.wait({leading, *ends}, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if leading.done():
            leading.result()
            return
        leading.cancel()
        if not stop.is_set():
            raise LeaseLost("the Lease is lost; another replica leads")

    def _stands(self, standing: Standing) -> None:
        if standing.mine:
            self._gained.set()
        elif self._gained.is_set():
            self._lost.set()
        else:
            log.info("%s leads", standing.holder or "nobody")

    def _unhealthy(self) -> str | None:
        return self._leader.silent() if self._leader is not None else None

    def _unready(self) -> str | None:
        if self._leader is not None:
            return self._leader.behind()
        return None if self._election.standing.holder else "it is not known who leads"


class _Leader:
    """What the holder of the Lease does."""

    def __init__(self, settings: Settings, api: KubernetesApi, metrics: Metrics) -> None:
        self._settings = settings
        self._api = api
        self._controller = Controller(api, settings, reconciled=metrics.reconciled, wrote=metrics.wrote)
        self._resync = Resync(
            api,
            cache=self._controller.cache,
            namespaces=settings.watch_namespaces,
            hear=self._controller.hear,
            enqueue=self._controller.enqueue,
            seconds=settings.resync_seconds,
        )
        self._defined = False
        """The API server knows every kind; before that there is nothing to watch, and no fault of this process."""
        self._pulse = Pulse(self._resync.paths, listed_again=self._resync.soon)
        metrics.gauge("kappa_operator_workqueue_depth", "Objects that wait for a worker.", lambda: self._controller.queue.depth)
        metrics.gauges(
            "kappa_operator_watch_last_event_seconds", "Since an event or bookmark came.", "collection", self._pulse.silence
        )
        metrics.gauges("kappa_operator_objects", "Objects that are watched.", "kind", self._counts)

    async def run(self) -> None:
        """Until kopf ends, which it does on a signal or where it cannot go on."""
        await self._definitions()
        self._pulse.begin()
        self._defined = True
        others = [
            asyncio.create_task(self._controller.surroundings.run(), name="surroundings"),
            asyncio.create_task(self._controller.queue.run(), name="work"),
            asyncio.create_task(self._resync_from_start(), name="resync"),
        ]
        await asyncio.sleep(0.01)  # kopf waits, when it ends, for tasks that were not there when it began: the workers are
        watching = asyncio.create_task(
            watch(self._controller.hear, self._pulse, namespaces=self._settings.watch_namespaces), name="watches"
        )
        try:
            done, _ = await asyncio.wait({watching, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (watching, *others):
                task.cancel()
            await asyncio.wait({watching, *others})

    async def _resync_from_start(self) -> None:
        """kopf hands over its lists object by object and does not say when it is through: one list more, after its own, does."""
        await self._pulse.complete.wait()
        await self._resync.start()
        self._controller.begin()
        await self._resync.run()

    async def _definitions(self) -> None:
        """Wait until the API server knows every kind that is watched."""
        while True:
            try:
                for watched in WATCHED.values():
                    for path in watched.paths(self._settings.watch_namespaces):
                        await self._api.get(path, query={"limit": "1"})
            except ApiError as error:
                log.warning("waiting for the custom resources: %s", error)
                await asyncio.sleep(_DEFINITIONS_SECONDS)
            else:
                return

    def silent(self) -> str | None:
        """Which watch has gone dead."""
        if not self._defined:
            return None
        for path, seconds in self._pulse.silence().items():
            if seconds > self._settings.silence_seconds:
                return f"nothing has come on the watch of {path} for {seconds:.0f} s"
        return None

    def behind(self) -> str | None:
        """Why it does not lead in earnest yet."""
        return None if self._controller.begun else "not everything has been listed yet"

    def _counts(self) -> dict[str, float]:
        return {kind: float(self._controller.cache.count(kind)) for kind in WATCHED}


async def _first(*events: asyncio.Event) -> asyncio.Event:
    """The one that is set first."""
    tasks = {asyncio.create_task(event.wait()): event for event in events}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return tasks[done.pop()]
