"""PodSupervisor: the supervisor of one machine's functions, with what is different where it is the first process of a pod.

Its gateways come and go and are found by name; it fetches its code itself; and it never ends on its own account. An environment that
was retired is followed by another one of the same revision or by SIGTERM; gateways that are away are dialled for as long as the pod
lives, while what runs is finished. It ends with an error only where its code is not to be had: the next life of the container, which
the kubelet makes, greets as a spare again and is given a new link.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from kappa_core.nursery import SupervisorOptions
from kappa_core.spec import VersionSpec
from kappa_runtime.link.client import LinkClient
from kappa_runtime.link.dialling import Trust
from kappa_runtime.link.discovery import Discovery
from kappa_runtime.pod.settings import PodSettings
from kappa_runtime.supervisor.host import Host
from kappa_runtime.supervisor.serve import GC_THRESHOLD, NO_LIFELINE, Supervisor, loop_factory
from kappa_runtime.supervisor.started import Started

if TYPE_CHECKING:
    from kappa_runtime.pod.archives import Archives

logger = logging.getLogger("kappa.supervisor")

UNUSABLE: Final = 1
"""Exit code of a container that could not get its code."""


def run(settings: PodSettings, zygote: Started | None) -> int:
    """Be the supervisor of a pod until its end; the exit code. ``zygote``: one that is booting. Raises AddressError."""
    logging.basicConfig(level=logging.WARNING, format=f"kappa supervisor of {settings.namespace}/{settings.name}: %(message)s")
    gc.set_threshold(*GC_THRESHOLD)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(settings, zygote))


async def _run(settings: PodSettings, zygote: Started | None) -> int:
    supervisor = PodSupervisor(settings)
    supervisor.started = zygote
    return await supervisor.serve(NO_LIFELINE)


class PodSupervisor(Supervisor):
    """See the module. Raises AddressError."""

    def __init__(self, settings: PodSettings) -> None:
        self._settings = settings
        self._over = asyncio.Event()
        self._code = 0
        self._archives: Archives | None = None
        self._making: asyncio.Task[Archives] | None = None
        self._named = [address for address in settings.gateways if address.startswith("dns:")]
        super().__init__(
            SupervisorOptions(
                supervisor_id=settings.supervisor_id(),
                gateways=[address for address in settings.gateways if address not in self._named],
                work_dir=str(settings.work / "supervisor"),
                spare_for=" ".join(settings.command) if settings.forks else "",
                command=settings.command if settings.forks else (),
                sandbox="plain",
            )
        )
        self.own_machine = settings.own_machine
        self._discovery = Discovery(self._named, on_found=self._client.follow, complete=lambda: self._client.complete)

    def _make_client(self) -> LinkClient:
        settings, options = self._settings, self._options
        return LinkClient(
            supervisor_id=options.supervisor_id,
            gateways=options.gateways,
            environments=self,
            spec=None,
            spare_for=options.spare_for,
            token=self._token,
            trust=Trust(settings.authority, name=settings.link_name),
            gone_seconds=None,
        )

    def _token(self) -> str:
        # Read at every greeting: the kubelet replaces it before it expires.
        return self._settings.token.read_text(encoding="ascii", errors="replace").strip()

    # -- life ---------------------------------------------------------------------------------------------------------
    async def serve(self, lifeline: int) -> int:
        if self._named:
            self._discovery.start()
        self._making = asyncio.get_running_loop().create_task(asyncio.to_thread(_archives, self._settings))
        return await super().serve(lifeline)

    async def _end(self) -> int:
        await self._over.wait()
        await self._client.ended
        await self._discovery.close()
        return self._code

    def _told_to_end(self) -> None:
        if self._archives is not None:
            self._archives.stop()
        self._over.set()
        super()._told_to_end()

    def _unusable(self, reason: str) -> None:
        if not self._over.is_set():
            logger.error("%s", reason)
            self._code = UNUSABLE
            self._over.set()
        super()._unusable(reason)

    # -- becoming ready -----------------------------------------------------------------------------------------------
    async def _prepare(self, spec: VersionSpec) -> Host:
        assert self._making is not None
        settings = self._settings
        self._archives = await self._making
        if self._over.is_set():
            self._archives.stop()
        await asyncio.to_thread(self._archives.place, spec)
        command = settings.command if not spec.runtime.startswith("provided") else ()
        opt = str(settings.opt) if spec.layers else None
        placed = msgspec.structs.replace(spec, task_root=str(settings.task), opt_root=opt, command=command)
        return await super()._prepare(placed)


def _archives(settings: PodSettings) -> Archives:
    # What reads zips and speaks HTTP takes as long to load as to greet a gateway; the two are done side by side.
    from kappa_runtime.pod.archives import Archives  # noqa: PLC0415

    return Archives(settings.work / "archives", task=settings.task, opt=settings.opt)
