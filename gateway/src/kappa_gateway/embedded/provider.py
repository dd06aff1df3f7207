"""ProcessProvider: the EnvironmentProvider of one machine. One supervisor process per function revision, made by the nursery.

The scaler asks for environments of a revision. If the revision has a supervisor, it is told over the link to start them; else a
spare of the right interpreter becomes its supervisor (ASSIGN and START on a link that is up already: this is the 30 ms cold path);
else the nursery makes one. Only a few supervisors boot at once, the rest wait in line. A supervisor without environments is kept
for a moment, because the next invocation often comes soon, and then retired.

It refuses to decide how many environments there are, and it never speaks to an environment: that is the link's.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from kappa_core.nursery import Ended, Fork, Forked, Kill, Report, SandboxMode, SupervisorOptions
from kappa_core.ports.environments import ProviderError
from kappa_core.spec import VersionSpec
from kappa_gateway.embedded.nursery import NurseryProcess, nursery_environment

logger = logging.getLogger("kappa.provider")

SPARE_IDLE_SECONDS: Final = 600.0
"""An interpreter that no environment was started for in this time loses its spare."""
LINGER_SECONDS: Final = 10.0
"""How long a supervisor without environments stays."""
ORPHAN_SECONDS: Final = 3.0
"""After the nursery's death: a supervisor that has been without a link for this long has ended."""
REFILL_SECONDS: Final = 0.25
"""A new spare is made this long after the last start, so as not to compete with it for the processor."""


class SupervisorLinks(Protocol):
    """The links of supervisors, as far as a provider needs them. Each returns False where the supervisor is not linked now."""

    def assign(self, supervisor_id: str, spec: VersionSpec, /) -> bool: ...

    def start(self, supervisor_id: str, environment_ids: list[str], /) -> bool: ...

    def retire_supervisor(self, supervisor_id: str, reason: str, /) -> bool: ...


class _Phase(enum.Enum):
    QUEUED = "queued"
    BOOTING = "booting"
    UP = "up"


class _Supervisor:
    """What is known of one supervisor process."""

    __slots__ = ("asked", "farewell", "id", "key", "linger", "orphan", "pending", "phase", "revision", "spec", "unlinked")

    def __init__(self, supervisor_id: str, *, key: str, spec: VersionSpec | None) -> None:
        self.id = supervisor_id
        self.key = key
        self.spec = spec
        self.revision = spec.revision if spec is not None else ""
        self.phase = _Phase.QUEUED
        self.pending: list[str] = []
        """Environments to start that it has not been told of."""
        self.asked: set[str] = set()
        """Environments that it was or is to be asked for and that have not ended."""
        self.linger: asyncio.TimerHandle | None = None
        self.farewell = ""
        """Why it is to end as soon as it says hello: nobody wanted it any more while it booted."""
        self.orphan = False
        """The nursery that made it is gone, and with it whoever would report its end."""
        self.unlinked: asyncio.TimerHandle | None = None


class ProcessProvider:
    """See the module.

    ``on_ended(supervisor_id, environment_ids, reason)`` is told when a supervisor has ended: those of its environments that had not been
    reported as gone are gone with it.
    """

    def __init__(
        self,
        *,
        work_dir: Path,
        gateways: list[str],
        links: SupervisorLinks,
        on_ended: Callable[[str, list[str], str], None],
        sandbox: SandboxMode = "auto",
        hidden: Sequence[Path] = (),
        token: str = "",
        spawn: bool = False,
        parallel_boots: int | None = None,
        spares: bool = True,
        linger_seconds: float = LINGER_SECONDS,
        spare_idle_seconds: float = SPARE_IDLE_SECONDS,
    ) -> None:
        self._work_dir = work_dir
        self._gateways = gateways
        self._links = links
        self._on_ended = on_ended
        self._sandbox = sandbox
        self._hidden = [str(path) for path in hidden]
        """Host directories that functions must not see."""
        self._token = token
        self._parallel = parallel_boots or 2 * (os.cpu_count() or 1)
        self._with_spares = spares
        self._linger_seconds = linger_seconds
        self._spare_idle_seconds = spare_idle_seconds
        self._nursery = NurseryProcess(
            on_report=self._reported, on_lost=self._nursery_lost, spawn=spawn, environment=nursery_environment()
        )
        self._loop = asyncio.get_running_loop()
        self._supervisors: dict[str, _Supervisor] = {}
        self._of_revision: dict[str, _Supervisor] = {}
        self._spares: dict[str, _Supervisor] = {}
        self._used: dict[str, tuple[float, VersionSpec]] = {}
        self._queue: deque[_Supervisor] = deque()
        self._booting = 0
        self._refill: asyncio.TimerHandle | None = None
        self._pump: asyncio.Task[None] | None = None
        self._prefix = f"s{os.getpid():x}-"
        self._number = 0
        self._closing = False

    @property
    def nursery_pid(self) -> int | None:
        return self._nursery.pid

    # -- EnvironmentProvider ------------------------------------------------------------------------------------------
    async def start(self, spec: VersionSpec, environment_ids: list[str], /) -> None:
        """See the port. An existing supervisor or a spare is told before this returns."""
        self.begin(spec, environment_ids)

    def begin(self, spec: VersionSpec, environment_ids: list[str]) -> None:
        """``start`` without a task: nothing in it waits. Raises ProviderError."""
        if self._closing:
            raise ProviderError("The gateway is stopping.")
        key = interpreter_key(spec)
        self._used[key] = (self._loop.time(), spec)
        supervisor = self._of_revision.get(spec.revision)
        if supervisor is None:
            supervisor = self._take_spare(key, spec) or self._enqueue(key, spec)
            self._of_revision[spec.revision] = supervisor
        self._stay(supervisor)
        supervisor.asked.update(environment_ids)
        if supervisor.phase is not _Phase.UP or not self._links.start(supervisor.id, environment_ids):
            supervisor.pending += environment_ids
        self._refill_later()

    async def stop(self, revision: str, environment_ids: list[str], /) -> None:
        """See the port. Only asked for what is not linked, so its supervisor is not, either: it is ended as a whole."""
        silent = set(environment_ids)
        for supervisor in [one for one in self._supervisors.values() if one.revision == revision and one.asked & silent]:
            self._nursery.send_if_running(Kill(supervisor_id=supervisor.id))
            if supervisor.phase is _Phase.QUEUED:
                self._failed(supervisor, "it was not started in time")

    async def stop_version(self, revision: str, /) -> None:
        """See the port."""
        for supervisor in [one for one in self._supervisors.values() if one.revision == revision]:
            self._nursery.send_if_running(Kill(supervisor_id=supervisor.id))
            self._forget(supervisor)

    async def close(self) -> None:
        """End every process, whatever it does. Idempotent."""
        self._closing = True
        timers = [timer for one in self._supervisors.values() for timer in (one.linger, one.unlinked)]
        for timer in (self._refill, *timers):
            if timer is not None:
                timer.cancel()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        await self._nursery.close()
        self._supervisors.clear()
        await asyncio.to_thread(shutil.rmtree, self._work_dir, ignore_errors=True)

    def expect(self, spec: VersionSpec) -> None:
        """A function with this runtime was created or is about to be invoked: have a spare of its interpreter ready."""
        self._used[interpreter_key(spec)] = (self._loop.time(), spec)
        self._refill_later()

    # -- told by the links --------------------------------------------------------------------------------------------
    def supervisor_up(self, supervisor_id: str) -> None:
        """A supervisor has said hello: tell it what it has to start."""
        supervisor = self._supervisors.get(supervisor_id)
        if supervisor is None:
            if supervisor_id.startswith(self._prefix):
                self._links.retire_supervisor(supervisor_id, "it was given up while it booted")
            return
        if supervisor.unlinked is not None:
            supervisor.unlinked.cancel()
            supervisor.unlinked = None
        if supervisor.phase is _Phase.BOOTING:
            self._booting -= 1
            self._pump_queue()
        supervisor.phase = _Phase.UP
        if supervisor.farewell:
            self._links.retire_supervisor(supervisor_id, supervisor.farewell)
            return
        pending, supervisor.pending = supervisor.pending, []
        if pending and not self._links.start(supervisor_id, pending):
            supervisor.pending = pending

    def supervisor_down(self, supervisor_id: str) -> None:
        """A supervisor's link is lost. Whether it has ended is reported by the nursery, unless that is gone, too: a supervisor
        without nursery and link ends at once by itself."""
        supervisor = self._supervisors.get(supervisor_id)
        if supervisor is not None and supervisor.orphan and supervisor.unlinked is None and not self._closing:
            reason = "its supervisor ended after the nursery had"
            supervisor.unlinked = self._loop.call_later(ORPHAN_SECONDS, self._failed, supervisor, reason)

    def environment_gone(self, supervisor_id: str, environment_id: str) -> None:
        """An environment has ended; a supervisor without any is retired after a while."""
        supervisor = self._supervisors.get(supervisor_id)
        if supervisor is None:
            return
        supervisor.asked.discard(environment_id)
        if not supervisor.asked and supervisor.linger is None and supervisor.revision:
            supervisor.linger = self._loop.call_later(self._linger_seconds, self._retire, supervisor, "it has no environments")

    def retired(self, supervisor_id: str) -> None:
        """This supervisor ends when what it runs is done: its revision gets a new one if it is needed again."""
        supervisor = self._supervisors.get(supervisor_id)
        if supervisor is not None:
            self._unassign(supervisor)

    def kill(self, supervisor_id: str) -> None:
        """End a supervisor and all its descendants now."""
        self._nursery.send_if_running(Kill(supervisor_id=supervisor_id))

    # -- supervisors --------------------------------------------------------------------------------------------------
    def _take_spare(self, key: str, spec: VersionSpec) -> _Supervisor | None:
        spare = self._spares.pop(key, None)
        if spare is None:
            return None
        if spare.phase is _Phase.UP and not self._links.assign(spare.id, spec):
            self._links_lost(spare)
            return None
        if spare.phase is not _Phase.UP:
            # Still booting: it will serve somebody, but this invocation would only wait for the rest of its boot.
            self._spares[key] = spare
            return None
        spare.spec = spec
        spare.revision = spec.revision
        return spare

    def _links_lost(self, spare: _Supervisor) -> None:
        self._nursery.send_if_running(Kill(supervisor_id=spare.id))
        self._forget(spare)

    def _enqueue(self, key: str, spec: VersionSpec | None) -> _Supervisor:
        self._number += 1
        supervisor = _Supervisor(f"{self._prefix}{self._number}", key=key, spec=spec)
        self._supervisors[supervisor.id] = supervisor
        self._queue.append(supervisor)
        self._pump_queue()
        return supervisor

    def _pump_queue(self) -> None:
        if self._queue and self._pump is None and not self._closing:
            self._pump = self._loop.create_task(self._boot_queued())

    async def _boot_queued(self) -> None:
        try:
            while self._queue and self._booting < self._parallel:
                supervisor = self._queue.popleft()
                if supervisor.id not in self._supervisors:
                    continue
                supervisor.phase = _Phase.BOOTING
                self._booting += 1
                pending, supervisor.pending = supervisor.pending, []
                try:
                    await self._nursery.send(Fork(options=self._options(supervisor, pending)))
                except ProviderError as error:
                    self._failed(supervisor, str(error))
        finally:
            self._pump = None

    def _options(self, supervisor: _Supervisor, environment_ids: list[str]) -> SupervisorOptions:
        command: tuple[str, ...] = ()
        if supervisor.spec is None:
            command = self._used[supervisor.key][1].command
        return SupervisorOptions(
            supervisor_id=supervisor.id,
            gateways=self._gateways,
            work_dir=str(self._work_dir / supervisor.id),
            spec=supervisor.spec,
            environment_ids=environment_ids,
            spare_for=supervisor.key if supervisor.spec is None else "",
            command=command if supervisor.key else (),
            sandbox=self._sandbox,
            hidden=self._hidden,
            token=self._token,
        )

    def _failed(self, supervisor: _Supervisor, reason: str) -> None:
        lost = sorted(supervisor.asked)
        self._forget(supervisor)
        if supervisor.revision or lost:
            self._on_ended(supervisor.id, lost, reason)

    def _unassign(self, supervisor: _Supervisor) -> None:
        if self._of_revision.get(supervisor.revision) is supervisor:
            del self._of_revision[supervisor.revision]
        if self._spares.get(supervisor.key) is supervisor:
            del self._spares[supervisor.key]

    def _forget(self, supervisor: _Supervisor) -> None:
        if self._supervisors.pop(supervisor.id, None) is None:
            return
        self._stay(supervisor)
        self._unassign(supervisor)
        if supervisor.phase is _Phase.BOOTING:
            self._booting -= 1
            self._pump_queue()

    def _stay(self, supervisor: _Supervisor) -> None:
        if supervisor.linger is not None:
            supervisor.linger.cancel()
            supervisor.linger = None

    def _retire(self, supervisor: _Supervisor, reason: str) -> None:
        supervisor.linger = None
        self._unassign(supervisor)
        if supervisor.phase is _Phase.QUEUED:
            self._forget(supervisor)
        elif supervisor.phase is _Phase.BOOTING:
            supervisor.farewell = reason
        elif not self._links.retire_supervisor(supervisor.id, reason):
            self._nursery.send_if_running(Kill(supervisor_id=supervisor.id))

    # -- the nursery's reports ----------------------------------------------------------------------------------------
    def _reported(self, report: Report) -> None:
        if isinstance(report, Forked):
            logger.debug("supervisor %s is process %d", report.supervisor_id, report.pid)
        elif isinstance(report, Ended):
            supervisor = self._supervisors.get(report.supervisor_id)
            if report.reason != "exit 0":
                revision = supervisor.revision if supervisor is not None else ""
                logger.warning("supervisor %s of %s ended: %s", report.supervisor_id, revision or "no version", report.reason)
            if supervisor is not None:
                self._failed(supervisor, f"its supervisor ended: {report.reason}")

    def _nursery_lost(self) -> None:
        # Supervisors that are up drain by themselves (their lifeline is closed) and say so on their links. One that had not said
        # hello yet may or may not do so; its environments are given up and the scaler starts others.
        for supervisor in list(self._supervisors.values()):
            if supervisor.phase is _Phase.BOOTING:
                self._failed(supervisor, "the nursery has died")
            elif supervisor.phase is _Phase.UP:
                supervisor.orphan = True
                self._unassign(supervisor)
        self._refill_later()

    # -- spares -------------------------------------------------------------------------------------------------------
    def _refill_later(self) -> None:
        if not self._with_spares or self._closing:
            return
        if self._refill is not None:
            self._refill.cancel()
        self._refill = self._loop.call_later(REFILL_SECONDS, self._refill_spares)

    def _refill_spares(self) -> None:
        self._refill = None
        now = self._loop.time()
        for key, (used, _) in list(self._used.items()):
            if now - used > self._spare_idle_seconds:
                del self._used[key]
                spare = self._spares.get(key)
                if spare is not None:
                    self._retire(spare, "its interpreter is not in use")
            elif key not in self._spares and not self._queue:
                self._spares[key] = self._enqueue(key, None)
        if self._used:
            wait = REFILL_SECONDS if self._queue else self._spare_idle_seconds / 2
            self._refill = self._loop.call_later(wait, self._refill_spares)


def interpreter_key(spec: VersionSpec) -> str:
    """What a spare for this version must have booted; empty where any supervisor will do."""
    if spec.client == "own" and spec.runtime.startswith("python"):
        return " ".join(spec.command)
    return ""
