"""Runs a supervisor: joins the environments of one function version (Host) with its gateways (LinkClient) until it has to end.

The nursery calls :func:`run` in a forked process, ``python -m kappa_runtime.supervisor`` in one of its own. A spare boots what it can
know ahead (the interpreter's zygote, what sandboxing works here) and becomes the supervisor of a version by ASSIGN. On its end it
leaves no process and no file. It refuses to decide anything: when an environment starts or ends is said by Parking.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kappa_core.link.frames import CHUNK, Invoke, LogLine
from kappa_core.link.transport import Transfer
from kappa_core.nursery import SupervisorOptions
from kappa_core.spec import INIT_FAILURE, VersionSpec
from kappa_runtime.link.client import End, LinkClient
from kappa_runtime.nursery import descent
from kappa_runtime.supervisor.errors import EnvironmentClosed, SupervisorError
from kappa_runtime.supervisor.started import Started

# What runs environments is not needed to greet a gateway. The nursery has loaded it before it forks; a pod loads it meanwhile.
if TYPE_CHECKING:
    from kappa_runtime.supervisor import sandbox
    from kappa_runtime.supervisor.host import Environment, Host
    from kappa_runtime.supervisor.zygote import Zygote

logger = logging.getLogger("kappa.supervisor")

NO_LIFELINE: Final = -1
GC_THRESHOLD: Final = (20_000, 20, 50)


_supports: dict[str, sandbox.Support] = {}
"""What sandboxing works here, by mode: found out once by the nursery and inherited by every supervisor that it forks."""


def prepare(options: SupervisorOptions) -> None:
    """Find out, in the nursery, what is the same for all supervisors. Idempotent; what fails here fails, and is told, in the
    supervisor."""
    if options.sandbox in _supports:
        return
    with contextlib.suppress(SupervisorError, OSError):
        _supports[options.sandbox] = _probe(options)


def _probe(options: SupervisorOptions) -> sandbox.Support:
    from kappa_runtime.supervisor import sandbox  # noqa: PLC0415 - see above

    scratch = Path(options.work_dir) / "probe"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        return sandbox.probe(options.sandbox, scratch=scratch)
    finally:
        scratch.rmdir()


def run(options: SupervisorOptions, lifeline: int) -> int:
    """Be a supervisor until its end; the exit code. ``lifeline``: a descriptor whose end of file says that the nursery is gone."""
    # Every invocation makes and drops a hundred small objects, none of them in cycles: the default would collect all the time.
    gc.set_threshold(*GC_THRESHOLD)
    logging.basicConfig(level=logging.WARNING, format=f"kappa supervisor {options.supervisor_id}: %(message)s")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(options, lifeline))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loops; None for asyncio's own where uvloop is not built: slower, and the same otherwise."""
    try:
        from uvloop import new_event_loop  # noqa: PLC0415 - it may not be there
    except ImportError:
        return None
    return new_event_loop


async def _run(options: SupervisorOptions, lifeline: int) -> int:
    return await Supervisor(options).serve(lifeline)


class Supervisor:
    """See the module. What it does for the link is the :class:`kappa_runtime.link.client.Environments` protocol.

    What is different in a pod is in the methods that :mod:`kappa_runtime.pod` overrides.
    """

    own_machine = False
    """See Host."""
    started: Started | None = None
    """A spare's zygote, if its process was started before the supervisor."""

    def __init__(self, options: SupervisorOptions) -> None:
        self._options = options
        self._work_dir = Path(options.work_dir)
        self._client = self._make_client()
        self._environments: dict[int, Environment] = {}
        self._host: Host | None = None
        self._prepared: asyncio.Future[Host] | None = None
        self._spare: asyncio.Task[Zygote | None] | None = None
        self._support = _supports.get(options.sandbox)
        self._stopped: dict[int, str] = {}
        """Streams that were told to end before their environment was there, with the reason."""
        self._invocations: dict[int, asyncio.Task[None]] = {}
        """The last one of each stream."""
        self._tasks: set[asyncio.Task[None]] = set()

    def _make_client(self) -> LinkClient:
        options = self._options
        return LinkClient(
            supervisor_id=options.supervisor_id,
            gateways=options.gateways,
            environments=self,
            spec=options.spec,
            spare_for=options.spare_for,
            token=lambda: options.token,
            gone_seconds=options.gone_seconds,
        )

    # -- life ---------------------------------------------------------------------------------------------------------
    async def serve(self, lifeline: int) -> int:
        """Until the end; the exit code."""
        loop = asyncio.get_running_loop()
        descent.adopt_orphans()
        loop.add_signal_handler(signal.SIGTERM, self._told_to_end)
        if lifeline != NO_LIFELINE:
            loop.add_reader(lifeline, self._lifeline_ended, lifeline)
        if self._options.spec is not None:
            self.assign(self._options.spec, b"")
        else:
            self._spare = loop.create_task(self._boot_ahead())
        self._client.start(self._options.environment_ids)
        code = await self._end()
        await self._close()
        return code

    async def _end(self) -> int:
        """Returns, with the exit code, when there is nothing left to do."""
        why: End = await self._client.ended
        logger.debug("ends: %s", why)
        return 0

    def _told_to_end(self) -> None:
        """SIGTERM."""
        self._client.drain("the supervisor was told to end")

    def _unusable(self, reason: str) -> None:
        """It cannot become the supervisor of the version that it was given."""
        # What was in the way (a full disk) may go; another supervisor can find out, this one has had its chance.
        self._client.drain(reason)

    def _lifeline_ended(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self._client.orphaned()

    async def _close(self) -> None:
        """What runs is ended, what was said is sent, what was made is removed."""
        spare = await self._ahead()
        if self._prepared is not None:
            with contextlib.suppress(SupervisorError, OSError):  # then there is nothing to close
                await self._prepared
        if self._host is not None:
            await self._host.close()
        elif spare is not None:
            await spare.closed()
        with contextlib.suppress(OSError):  # a spare has made it and the host, if there was one, removed it
            self._work_dir.rmdir()
        await self._client.close()
        unfinished = [*self._tasks, *self._invocations.values()]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    # -- becoming ready -----------------------------------------------------------------------------------------------
    async def _boot_ahead(self) -> Zygote | None:
        """What a spare can do before it knows its function."""
        if self._support is None:
            self._support = _probe(self._options)
        if not self._options.command or not hasattr(os, "pidfd_open"):
            return None
        from kappa_runtime.supervisor.zygote import Zygote  # noqa: PLC0415 - see above

        zygote = Zygote(self._options.command, started=self.started)
        try:
            await zygote.boot()
        except SupervisorError as error:
            logger.warning("%s", error)
            return None
        return zygote

    async def _ahead(self) -> Zygote | None:
        if self._spare is None:
            return None
        try:
            return await self._spare
        except (SupervisorError, OSError):
            # It will fail again in prepare(), where the waiting invocations get to know why.
            return None

    async def _prepare(self, spec: VersionSpec, _code: bytes) -> Host:
        from kappa_runtime.supervisor.host import Host  # noqa: PLC0415 - see above

        host = self._host = Host(
            spec=spec,
            work_dir=self._work_dir,
            on_log=self._log,
            on_exit=self._exited,
            zygote=await self._ahead(),
            mode=self._options.sandbox,
            support=self._support,
            hidden=tuple(map(Path, self._options.hidden)),
            own_process=True,
            own_machine=self.own_machine,
        )
        await host.prepare()
        return host

    def _log(self, _environment: Environment, lines: list[LogLine]) -> None:
        self._client.log(lines)

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- Environments, for the link -----------------------------------------------------------------------------------
    def assign(self, spec: VersionSpec, code: bytes, /) -> None:
        self._prepared = asyncio.get_running_loop().create_task(self._prepare(spec, code))

    def start(self, stream: int, environment_id: str, /) -> None:
        self._do(self._start(stream, environment_id))

    async def _start(self, stream: int, environment_id: str) -> None:
        if self._prepared is None:
            self._client.gone(stream, "no function version was assigned to its supervisor")
            return
        try:
            host = await asyncio.shield(self._prepared)
            environment = await host.start(environment_id)
        except (SupervisorError, OSError) as error:
            with contextlib.suppress(TimeoutError):
                # A failure is often faster than the first link, and the reason is worth waiting for somebody to tell it to.
                await asyncio.wait_for(self._client.linked.wait(), self._options.gone_seconds)
            self._client.gone(stream, str(error))
            if self._prepared.done() and self._prepared.exception() is not None:
                self._unusable(str(error))
            return
        environment.stream = stream
        self._environments[stream] = environment
        self._client.name_log_stream(stream, environment.log_stream)
        if stream not in self._stopped:
            await environment.init()
        if stream in self._stopped:
            await self._stop(stream, self._stopped.pop(stream))
        elif environment.provisioned and environment.init_error:
            await self._stop(stream, f"{INIT_FAILURE}: {environment.init_error}")
        elif environment.state != "closed":
            self._client.ready(stream)

    def _exited(self, environment: Environment, reason: str) -> None:
        """The runtime of an idle environment ended. One of provisioned concurrency would not be ready: another is to take its place."""
        if environment.provisioned:
            self._client.retire(environment.stream, reason)

    def run(self, stream: int, invoke: Invoke, payload: bytes, /) -> None:
        # An environment runs one at a time, so the next one takes the place of this one: the loop itself keeps no task alive.
        self._invocations[stream] = asyncio.get_running_loop().create_task(self._run(stream, invoke, payload))

    async def _run(self, stream: int, invoke: Invoke, payload: bytes) -> None:
        environment = self._environments[stream]
        pieces = _Pieces(self._client, stream) if invoke.streaming else None
        try:
            result, answer = await environment.invoke(invoke, payload, on_data=pieces.take if pieces is not None else None)
        except EnvironmentClosed:
            return  # GONE follows, or has gone out already, and names this invocation
        if invoke.streaming and result.function_error:
            answer = _short(answer)
        if environment.provisioned and environment.state == "cold":
            self._client.finished(stream, result, answer, then="end")
            await self._stop(stream, "its runtime was reset")
        else:
            self._client.finished(stream, result, answer, then="park")

    def stop(self, stream: int, reason: str, /) -> None:
        environment = self._environments.get(stream)
        if environment is None or environment.state in {"new", "starting"}:
            # _start goes on to the end of this environment instead of its readiness.
            self._stopped[stream] = reason
            if environment is not None:
                self._do(environment.shutdown(reason))
        else:
            self._do(self._stop(stream, reason))

    async def _stop(self, stream: int, reason: str) -> None:
        environment = self._environments.pop(stream, None)
        if environment is not None:
            await environment.shutdown(reason)
        self._invocations.pop(stream, None)
        self._client.gone(stream, reason)


class _Error(msgspec.Struct):
    errorType: str = "Function.Unknown"  # noqa: N815 - AWS's spelling
    errorMessage: str = ""  # noqa: N815


def _short(error: bytes) -> bytes:
    """An error JSON that fits the one frame which ends a streamed response."""
    if len(error) <= CHUNK:
        return error
    try:
        kind = msgspec.json.decode(error, type=_Error).errorType[:256]
    except msgspec.DecodeError:
        kind = _Error.errorType
    return msgspec.json.encode(_Error(kind, f"The error has {len(error)} bytes; a streamed response ends with at most {CHUNK}."))


class _Pieces:
    """Passes a streamed response on, as fast as the gateway takes it. Nothing is begun for a function that does not stream."""

    def __init__(self, client: LinkClient, stream: int) -> None:
        self._client = client
        self._stream = stream
        self._room = asyncio.Event()
        self._begun = False
        self._transfer: Transfer | None = None

    async def take(self, data: bytes) -> None:
        """A piece; returns when the next one may come. Dropped if the link was lost: the response then ends as a truncated one."""
        if not self._begun:
            self._begun = True
            self._transfer = self._client.respond(self._stream, on_drain=self._room.set)
        transfer = self._transfer
        if transfer is None or transfer.over:
            return
        self._room.clear()
        while not transfer.write(data) and not transfer.over:
            data = b""
            with contextlib.suppress(TimeoutError):
                # The end of the link is no event of the transfer; it is looked at now and then.
                await asyncio.wait_for(self._room.wait(), 1.0)
