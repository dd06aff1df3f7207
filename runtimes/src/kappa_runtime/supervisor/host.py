"""Host: all execution environments of one function version in one supervisor process. The face of this package.

    host = Host(spec=spec, work_dir=folder, on_log=…, on_exit=…, zygote=spare_zygote)
    await host.prepare()
    environment = await host.start("an id")
    await environment.init()
    result, payload = await environment.invoke(frames.Invoke(…), b"{}")
    await host.close()

It owns what the environments share: the zygote, the sandbox plan, the memory watch. It decides nothing about how many there are.
``close`` leaves no process and no file behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kappa_core.link.frames import LogLine
from kappa_core.rules.log_lines import lines_for
from kappa_core.spec import VersionSpec
from kappa_runtime.nursery import descent
from kappa_runtime.supervisor import environment_variables, launching, sandbox, storage
from kappa_runtime.supervisor.environment_variables import Identity, Places
from kappa_runtime.supervisor.errors import SandboxConflict, SpawnFailed, SupervisorError, ZygoteLost
from kappa_runtime.supervisor.lifecycle import Environment
from kappa_runtime.supervisor.process import Launch
from kappa_runtime.supervisor.runtime_session import RuntimeSession
from kappa_runtime.supervisor.sandbox import Layout, Mode, Plan, Support
from kappa_runtime.supervisor.storage import StorageWatch
from kappa_runtime.supervisor.zygote import Zygote

__all__ = ["Environment", "Host", "Zygote"]

MEMORY_WATCH_SECONDS: Final = 0.05
REAP_SECONDS: Final = 1.0
_TEMPORARY: Final = Path("/tmp")  # noqa: S108 - a pod's own

OnLog = Callable[[Environment, list[LogLine]], None]
OnExit = Callable[[Environment, str], None]


class Host:
    """See the module.

    ``work_dir``      a directory of this host alone; made if missing, removed by ``close``
    ``on_log``        takes lines as they come, from the event loop; must not block or raise
    ``on_exit``       an idle environment lost its runtime; its next invocation starts a new one
    ``zygote``        a booted one for the interpreter of ``spec.command``, taken over; otherwise ``prepare`` boots one
    ``support``       what ``sandbox.probe`` found; None probes
    ``hidden``        host directories that functions must not see
    ``own_process``   this process is a supervisor and nothing else: every child that is not the host's is an orphan to be reaped
    ``own_machine``   /var/task, /opt, /var/runtime and /tmp are what the function is to see, as in its pod: no sandbox, no stand-ins
    """

    def __init__(
        self,
        *,
        spec: VersionSpec,
        work_dir: Path,
        on_log: OnLog,
        on_exit: OnExit = lambda _environment, _reason: None,
        zygote: Zygote | None = None,
        mode: Mode = "auto",
        support: Support | None = None,
        hidden: tuple[Path, ...] = (),
        own_process: bool = False,
        own_machine: bool = False,
    ) -> None:
        self.spec = spec
        self.on_log = on_log
        self.on_exit = on_exit
        self.environments: dict[str, Environment] = {}
        self.support = support or Support("plain")
        self.sandboxed = False
        self._work_dir = work_dir
        self._zygote = zygote
        self._booting: asyncio.Lock = asyncio.Lock()
        self._mode = mode
        self._probed = support is not None
        self._hidden = hidden
        self._own_process = own_process
        self._own_machine = own_machine
        self._plan: Plan | None = None
        self._layout = Layout(task=spec.task_root)
        self._forks = False
        self._closed = False
        self._memory_timer: asyncio.TimerHandle | None = None
        self._watched: set[Environment] = set()
        self._storage: StorageWatch[Environment] | None = None
        self.lines = lines_for(spec, "")

    async def prepare(self) -> None:
        """Probe, plan, boot the zygote. Raises SandboxUnavailable; a zygote that does not boot is told by the first init."""
        spec = self.spec
        self._work_dir.mkdir(parents=True, exist_ok=True)
        for name in ("root", "empty", "tmp"):
            (self._work_dir / name).mkdir(exist_ok=True)
        descent.adopt_orphans()
        if self._own_process:
            # An environment needs about eight descriptors here, and there may be a thousand environments.
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            self._reap_timer = asyncio.get_running_loop().call_later(REAP_SECONDS, self._reap_orphans)
        if not self._probed:
            self.support = sandbox.probe(self._mode, scratch=self._work_dir / "root")
        self._forks = launching.forks_from_zygote(spec) and hasattr(os, "pidfd_open")
        if self._forks:
            try:
                await self._ready_zygote()
            except SupervisorError:
                self._forks = False  # the interpreter is started for each environment, and says itself what is wrong with it
        self.lines = lines_for(spec, self._zygote.version if self._zygote is not None else "")
        self._layout = self._make_layout()
        if self.support.kind == "namespaces":
            opt = tuple(sorted(os.listdir(spec.opt_root))) if spec.opt_root else ()  # noqa: PTH208 - names only
            try:
                self._plan = sandbox.plan(
                    self._layout,
                    root=str(self._work_dir / "root"),
                    entries=sandbox.host_entries(),
                    opt_entries=opt,
                    support=self.support,
                )
                self.sandboxed = True
            except SandboxConflict:
                if self._mode == "namespaces":
                    raise
        self._storage = self._storage_watch()

    def _make_layout(self) -> Layout:
        spec = self.spec
        keep = launching.visible_paths(spec)
        if self._zygote is not None and self._zygote.prefix not in ("", "/", "/usr", "/usr/local"):
            keep = (*keep, self._zygote.prefix)
        return Layout(
            task=spec.task_root,
            opt=spec.opt_root,
            runtime=launching.runtime_folder(spec),
            language_bin=str(Path(spec.command[0]).resolve().parent) if spec.command else None,
            ephemeral_mb=spec.ephemeral_mb,
            keep=keep,
            hidden=tuple(str(path.resolve()) for path in self._hidden),
        )

    async def _ready_zygote(self) -> Zygote:
        async with self._booting:
            if self._closed:
                raise SpawnFailed("the supervisor ends")
            if self._zygote is None or not self._zygote.alive:
                zygote = Zygote(self.spec.command)
                await zygote.boot()
                self._zygote = zygote
            return self._zygote

    async def start(self, environment_id: str) -> Environment:
        """A new environment, listening; call its ``init`` next."""
        day = time.strftime("%Y/%m/%d", time.gmtime())
        log_stream = f"{day}/[{self.spec.version}]{secrets.token_hex(16)}"
        environment = Environment(self, environment_id, log_stream=log_stream)
        await environment.api.listen()
        self.environments[environment_id] = environment
        return environment

    def forget(self, environment: Environment) -> None:
        """Told by an environment that has been shut down."""
        self.environments.pop(environment.id, None)
        self._watched.discard(environment)
        if not self._own_machine:
            shutil.rmtree(self._temporary(environment), ignore_errors=True)
        elif not self.environments:
            storage.empty(_TEMPORARY)  # the next environment is to find nothing of this one

    def _temporary(self, environment: Environment) -> Path:
        return self._work_dir / "tmp" / environment.log_stream[-32:]

    # -- starting a runtime, for the environments -------------------------------------------------------------------------
    async def start_runtime(self, environment: Environment, *, namespaces: tuple[int, ...]) -> RuntimeSession:
        """Raises InvalidEntrypoint, SpawnFailed."""
        if self._closed:
            raise SpawnFailed("the supervisor ends")
        spec = self.spec
        places = Places()
        if not self.sandboxed and not self._own_machine:
            temporary = self._temporary(environment)
            temporary.mkdir(exist_ok=True)
            places = sandbox.stand_ins(self._layout, temporary=str(temporary), empty=str(self._work_dir / "empty"))
        identity = Identity(
            runtime_api=environment.api.address,
            log_stream=environment.log_stream,
            initialization_type=environment.initialization_type,
        )
        if self._forks:
            variables = environment_variables.variables(spec, places, identity, extra=launching.python_extra(places))
            launch = Launch(argv=(), variables=variables, directory=places.task, sandbox=self._plan)
            for _ in range(2):
                # A zygote can die between being found alive and forking: once more with a new one, then without.
                try:
                    return await self._start(environment, launch, zygote=await self._ready_zygote(), namespaces=namespaces)
                except ZygoteLost:
                    continue
        command = launching.command(spec, places)
        variables = environment_variables.variables(spec, places, identity, extra=command.extra)
        launch = Launch(argv=command.argv, variables=variables, directory=places.task, sandbox=self._plan)
        return await self._start(environment, launch, zygote=None, namespaces=namespaces)

    async def _start(
        self, environment: Environment, launch: Launch, *, zygote: Zygote | None, namespaces: tuple[int, ...]
    ) -> RuntimeSession:
        session = RuntimeSession(
            budget=environment.budget,
            clock=asyncio.get_running_loop().time,
            on_lines=environment.take_lines,
            on_end=environment.runtime_ended,
        )
        await session.start(environment.id, launch, zygote=zygote, namespaces=namespaces)
        return session

    def own_children(self) -> set[int]:
        """Children of this process that are not orphans: the zygote and the runtimes."""
        pids = {environment.pid for environment in self.environments.values()}
        if self._zygote is not None:
            pids.add(self._zygote.pid)
        return pids

    # -- memory ------------------------------------------------------------------------------------------------------
    def watch_memory(self, environment: Environment) -> None:
        """Something runs in it: look at its memory, and at its /tmp where that has no size, until nothing does."""
        self._watched.add(environment)
        if self._storage is not None:
            self._storage.watch(environment)
        if self._memory_timer is None:
            self._memory_timer = asyncio.get_running_loop().call_later(MEMORY_WATCH_SECONDS, self._look_at_memory)

    def _look_at_memory(self) -> None:
        self._memory_timer = None
        limit = self.spec.memory_mb * 1024
        self._watched = {environment for environment in self._watched if environment.busy}
        for environment in self._watched:
            environment.send_start_line()
            if environment.memory_usage_kib() > limit:
                environment.end_for_memory()
        if self._watched:
            self._memory_timer = asyncio.get_running_loop().call_later(MEMORY_WATCH_SECONDS, self._look_at_memory)

    # -- /tmp --------------------------------------------------------------------------------------------------------
    def _storage_watch(self) -> StorageWatch[Environment] | None:
        """None where the filesystem itself says when it is full."""
        limit_mb = self.spec.ephemeral_mb
        if self.sandboxed or (self._own_machine and storage.has_size(_TEMPORARY, limit_mb=limit_mb)):
            return None
        return StorageWatch(limit_mb=limit_mb, folder_of=self._folder_of)

    def _folder_of(self, environment: Environment) -> Path:
        return _TEMPORARY if self._own_machine else self._temporary(environment)

    async def empty_storage(self, environment: Environment) -> None:
        """Remove what it keeps in /tmp; nothing of it runs."""
        with contextlib.suppress(OSError):
            await asyncio.to_thread(storage.empty, self._folder_of(environment))

    # -- the end -----------------------------------------------------------------------------------------------------
    def _reap_orphans(self) -> None:
        # By the clock: uvloop keeps SIGCHLD for itself, and a zombie may well wait for a moment.
        self._reap_timer = asyncio.get_running_loop().call_later(REAP_SECONDS, self._reap_orphans)
        for pid in descent.children(os.getpid()) - self.own_children():
            with contextlib.suppress(ChildProcessError):  # reaped between the listing and here
                os.waitpid(pid, os.WNOHANG)

    async def close(self) -> None:
        """End every environment and the zygote, with all descendants, and remove the files."""
        self._closed = True
        if self._memory_timer is not None:
            self._memory_timer.cancel()
            self._memory_timer = None
        if self._storage is not None:
            self._storage.close()
        await asyncio.gather(*(environment.shutdown("the supervisor ends") for environment in list(self.environments.values())))
        if self._zygote is not None:
            await self._zygote.closed()
        if self._own_process:
            descent.kill_all(descent.descendants(os.getpid()))
            self._reap_orphans()
            self._reap_timer.cancel()
        shutil.rmtree(self._work_dir, ignore_errors=True)
