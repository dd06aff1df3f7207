"""PodSupervisor: the supervisor of one machine's functions, with what is different where it is the first process of a pod.

Its gateways come and go and are found by name; it fetches code that did not come along itself; and it never ends on its own account.
An environment that was retired is followed by another one of the same revision or by SIGTERM; gateways that are away are dialled for
as long as the pod lives, while what runs is finished. It ends with an error only where its code is not to be had: the next life of
the container, which the kubelet makes, greets as a spare again and is given a new link.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from kappa_core.nursery import SupervisorOptions
from kappa_core.spec import VersionSpec
from kappa_runtime.link.client import LinkClient
from kappa_runtime.link.dialling import Trust
from kappa_runtime.link.discovery import Discovery, resolve
from kappa_runtime.pod.ahead import Look
from kappa_runtime.pod.settings import PodSettings
from kappa_runtime.supervisor.serve import GC_THRESHOLD, NO_LIFELINE, Supervisor, loop_factory
from kappa_runtime.supervisor.started import Started

if TYPE_CHECKING:
    from kappa_runtime.pod.archives import Archives
    from kappa_runtime.supervisor.host import Host
    from kappa_runtime.supervisor.zygote import Zygote

logger = logging.getLogger("kappa.supervisor")

UNUSABLE: Final = 1
"""Exit code of a container that could not get its code."""
LOADING_SWITCH_SECONDS: Final = 0.0005
"""How long a thread that loads modules keeps the interpreter from the one that greets; the default is ten times that, at each step."""


def run(settings: PodSettings, zygote: Started | None, looks: Mapping[str, Look]) -> int:
    """Be the supervisor of a pod until its end; the exit code. ``zygote``: one that is booting; ``looks``: names that are being looked
    up. Raises AddressError."""
    logging.basicConfig(level=logging.WARNING, format=f"kappa supervisor of {settings.namespace}/{settings.name}: %(message)s")
    gc.set_threshold(*GC_THRESHOLD)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(settings, zygote, looks))


async def _run(settings: PodSettings, zygote: Started | None, looks: Mapping[str, Look]) -> int:
    supervisor = PodSupervisor(settings, looks)
    supervisor.started = zygote
    return await supervisor.serve(NO_LIFELINE)


class PodSupervisor(Supervisor):
    """See the module. Raises AddressError."""

    def __init__(self, settings: PodSettings, looks: Mapping[str, Look]) -> None:
        self._settings = settings
        self._looks = dict(looks)
        self._over = asyncio.Event()
        self._code = 0
        self._archives: Archives | None = None
        self._loading: asyncio.Task[Archives] | None = None
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
        self._discovery = Discovery(
            self._named, on_found=self._client.follow, complete=lambda: self._client.complete, resolve=self._resolve
        )

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

    async def _resolve(self, host: str, port: int) -> set[str]:
        look = self._looks.pop(host, None)
        if look is not None:
            await asyncio.to_thread(look.join)
        return (look.found if look is not None else None) or await resolve(host, port)

    # -- life ---------------------------------------------------------------------------------------------------------
    async def serve(self, lifeline: int) -> int:
        if self._named:
            self._discovery.start()
        self._loading = asyncio.get_running_loop().create_task(asyncio.to_thread(_load, self._settings))
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
    async def _boot_ahead(self) -> Zygote | None:
        # A module that another thread is loading would stop the event loop until it is there.
        assert self._loading is not None
        await self._loading
        return await super()._boot_ahead()

    async def _prepare(self, spec: VersionSpec, code: bytes) -> Host:
        assert self._loading is not None
        settings = self._settings
        self._archives = await self._loading
        if self._over.is_set():
            self._archives.stop()
        await asyncio.to_thread(self._archives.place, spec, code)
        command = settings.command if not spec.runtime.startswith("provided") else ()
        opt = str(settings.opt) if spec.layers else None
        placed = msgspec.structs.replace(
            spec, task_root=str(settings.task), opt_root=opt, command=command, variables=spec.variables | settings.values
        )
        return await super()._prepare(placed, b"")


def _load(settings: PodSettings) -> Archives:
    # What reads zips and runs environments takes as long to load as to greet a gateway; the two are done side by side.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(LOADING_SWITCH_SECONDS)
    try:
        from kappa_runtime.pod.archives import Archives  # noqa: PLC0415
        from kappa_runtime.supervisor import host as _host  # noqa: F401, PLC0415
    finally:
        sys.setswitchinterval(interval)

    return Archives(settings.work / "archives", task=settings.task_written, opt=settings.opt_written)
