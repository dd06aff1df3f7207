"""The life of one execution environment: init, invocations one at a time, reset after what AWS resets for, end.

    new ──init──► ready ──invoke──► ready             the runtime waits on /next in between
      │              └─ timeout, exit, out of memory ─► cold        processes gone, /tmp kept
      └─ init failed or took over 10 s ───────────────► cold
    cold ──invoke──► init again, now inside the function's timeout ("suppressed init"), then the event

What the caller gets for each way to fail, and what the log says, is spelled as recorded from AWS. The timer of an invocation runs
from the delivery of the event. An environment never answers for an invocation that it was not given, and never runs two at once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

from kappa_core.limits import LOG_TAIL_BYTES, PROVISIONED_INIT_SECONDS
from kappa_core.link.frames import Invoke, LogLine, Result
from kappa_core.rules.log_lines import Report, Status, billed
from kappa_core.spec import initialization_type
from kappa_runtime.supervisor import process
from kappa_runtime.supervisor.errors import EnvironmentClosed, SpawnFailed
from kappa_runtime.supervisor.launching import InvalidEntrypoint, entrypoint_failure
from kappa_runtime.supervisor.log_capture import LogBudget
from kappa_runtime.supervisor.response_stream import ResponseStream
from kappa_runtime.supervisor.runtime_api import Answer, RuntimeApi
from kappa_runtime.supervisor.runtime_session import RuntimeSession

if TYPE_CHECKING:
    from kappa_core.rules.log_lines import Lines
    from kappa_core.spec import VersionSpec
    from kappa_runtime.supervisor.process import Ended
    from kappa_runtime.supervisor.sandbox import Support

OnData = Callable[[bytes], Awaitable[None]]
State = Literal["new", "starting", "ready", "cold", "closed"]

_ANSWER_GRACE: Final = 0.01
"""Seconds between the end of a process and the verdict that it did not answer: its last bytes may be on their way."""
_BROKEN_GRACE: Final = 0.2
"""Seconds for the end of the process to explain a response that broke off."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an init or an invocation failed."""

    error_type: str
    text: str = ""
    """For platform-made errors: the sentence after ``RequestId: … Error: ``."""
    body: bytes | None = None
    """The runtime's own error JSON, passed verbatim."""
    status: Status = "failure"

    def payload(self, request_id: str) -> bytes:
        if self.body is not None:
            return self.body
        return _encode(_PlatformError(self.error_type, f"RequestId: {request_id} Error: {self.text}"))


class _PlatformError(msgspec.Struct):
    """Key order as recorded."""

    errorType: str  # noqa: N815 - AWS's spelling
    errorMessage: str  # noqa: N815


class _TooLarge(msgspec.Struct):
    errorMessage: str  # noqa: N815
    errorType: str = "Function.ResponseSizeTooLarge"  # noqa: N815


_encode = msgspec.json.Encoder().encode


class Invocation:
    """What runs."""

    __slots__ = ("began", "deadline", "frame", "future", "on_data", "start_line", "started", "streamer", "tail")

    def __init__(self, frame: Invoke, future: asyncio.Future[Answer | Failure], on_data: OnData | None, started: float) -> None:
        self.frame = frame
        self.future = future
        self.on_data = on_data
        self.started = started
        """On the loop's clock, for timers."""
        self.began = time.perf_counter()
        """The same moment for durations: uvloop's clock advances once per turn, in whole milliseconds."""
        self.deadline = 0.0
        self.streamer: asyncio.Task[None] | None = None
        self.start_line = ""
        """START, until it is sent together with the next line, or by the memory watch."""
        self.tail: bytearray | None = bytearray() if frame.tail else None


class Surroundings(Protocol):
    """What an environment has in common with the others of its supervisor, and who hears of it: the host, as environments see it."""

    spec: VersionSpec
    environments: dict[str, Environment]
    lines: Lines
    sandboxed: bool
    support: Support
    on_log: Callable[[Environment, list[LogLine]], None]
    on_exit: Callable[[Environment, str], None]

    async def start_runtime(self, environment: Environment, *, namespaces: tuple[int, ...]) -> RuntimeSession: ...

    def watch_memory(self, environment: Environment) -> None: ...

    async def empty_storage(self, environment: Environment) -> None: ...

    def own_children(self) -> set[int]: ...

    def forget(self, environment: Environment) -> None: ...


class Environment:
    """See the module. ``stream`` is free for whoever owns the link; log lines carry it."""

    def __init__(self, host: Surroundings, environment_id: str, *, log_stream: str) -> None:
        self.id = environment_id
        self.initialization_type = initialization_type(environment_id)
        self.stream = 0
        self.log_stream = log_stream
        self.state: State = "new"
        self.api = RuntimeApi(
            self, response_bytes=host.spec.response_bytes, streamed_response_bytes=host.spec.streamed_response_bytes
        )
        self.init_ms = 0.0
        """Of the last init that succeeded on its own; reported with the first invocation."""
        self.init_error = ""
        """Type of the error that :meth:`init` ended with; empty if with none."""
        self.max_memory_mb = 0
        self._host = host
        self._spec = host.spec
        self._loop = asyncio.get_running_loop()
        self._session: RuntimeSession | None = None
        self._invocation: Invocation | None = None
        self._booting: asyncio.Future[Failure | None] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._namespaces: tuple[int, ...] = ()
        self._budget = LogBudget(self._loop.time())
        self._out_of_memory = False
        self._out_of_storage = False
        self._marker = f"AWS_LAMBDA_LOG_STREAM_NAME={log_stream}".encode()
        self._ending: asyncio.Task[None] | None = None

    @property
    def provisioned(self) -> bool:
        """Whether it is one of provisioned concurrency, which is of use only while its runtime is initialised."""
        return self.initialization_type == "provisioned-concurrency"

    @property
    def pid(self) -> int:
        """Of the runtime; 0 while there is none."""
        return 0 if self._session is None else self._session.pid

    # -- init --------------------------------------------------------------------------------------------------------
    async def init(self) -> None:
        """Start the runtime; return when it asks for its first event, or when init failed or took over its limit.

        A failure is kept back: the environment is then cold, and its first invocation runs init again and tells. (Of provisioned
        concurrency, which may take longer, it would be no use cold: whoever owns it ends it.)
        """
        if self.state != "new":
            return
        self._log(self._host.lines.init_start(time.time(), self.initialization_type))
        began = time.perf_counter()
        failure = await self._boot(self._init_seconds())
        elapsed = (time.perf_counter() - began) * 1000
        if failure is None:
            # Nobody waits for the init of what was provisioned: it is no part of the first invocation's account.
            self.init_ms = 0.0 if self.provisioned else elapsed
            return
        self.init_error = failure.error_type
        await self._reset()
        self._report_init(elapsed, "init", failure)

    def _init_seconds(self) -> float:
        return max(PROVISIONED_INIT_SECONDS, self._spec.timeout) if self.provisioned else self._spec.init_seconds

    def _report_init(self, elapsed: float, phase: str, failure: Failure | None) -> None:
        status: Status = "success" if failure is None else "timeout" if failure.status == "timeout" else "error"
        error_type = failure.error_type if failure is not None and status == "error" else ""
        line = self._host.lines.init_report(
            time.time(), self.initialization_type, duration_ms=elapsed, phase=phase, status=status, error_type=error_type
        )
        self._log(line)

    async def _boot(self, limit: float) -> Failure | None:
        """Start a runtime and wait for its first ``/next``; None if it came."""
        self.state = "starting"
        self._out_of_memory = False
        booting: asyncio.Future[Failure | None] = self._loop.create_future()
        self._booting = booting
        timer = self._loop.call_later(limit, self._boot_timed_out)
        self._host.watch_memory(self)
        try:
            try:
                self._session = await self._host.start_runtime(self, namespaces=self._namespaces)
            except InvalidEntrypoint as error:
                return Failure(error_type="Runtime.InvalidEntrypoint", text=str(error))
            except SpawnFailed as error:
                return Failure(error_type="Sandbox.Failure", text=str(error))
            failure = await booting
            if self._host.environments.get(self.id) is not self:
                await self._reset()  # shut down while its process was being made
        finally:
            timer.cancel()
            self._booting = None
        if failure is None:
            self.state = "ready"
            self._remember_namespaces()
        return failure

    def _boot_timed_out(self) -> None:
        if self._booting is not None and not self._booting.done():
            self._booting.set_result(Failure(error_type="Sandbox.Timedout", text=self._timeout_text(), status="timeout"))

    def _timeout_text(self) -> str:
        return f"Task timed out after {self._spec.timeout:.2f} seconds"

    def _remember_namespaces(self) -> None:
        """Hold the filesystem open, so that a reset finds the same /tmp."""
        if self._namespaces or self._session is None or not self._host.sandboxed:
            return
        names = ("mnt", "user") if self._host.support.user_namespace else ("mnt",)
        try:
            self._namespaces = tuple(os.open(f"/proc/{self._session.pid}/ns/{name}", os.O_RDONLY) for name in names)
        except OSError:
            self._namespaces = ()  # it has ended already; the next runtime makes a fresh one

    # -- invoke ------------------------------------------------------------------------------------------------------
    async def invoke(self, invoke: Invoke, payload: bytes, *, on_data: OnData | None = None) -> tuple[Result, bytes]:
        """Run one event. ``on_data`` takes a streamed response as it comes (it must not raise); what it got is not in the payload.

        Raises EnvironmentClosed if the environment ended before the event was delivered.
        """
        if self.state == "closed":
            raise EnvironmentClosed(self.id)
        assert self._invocation is None, "one invocation at a time"
        loop = self._loop
        invocation = Invocation(invoke, loop.create_future(), on_data, loop.time())
        self._invocation = invocation
        try:
            outcome = await self._run(invocation, payload)
            return await self._finish(invocation, outcome)
        finally:
            self._invocation = None
            if self.state == "ready" and self._session is not None and self._session.ended is not None:
                # It answered and ended before it could ask for more.
                self._ending = self._loop.create_task(self._end_idle(process.exit_text(self._session.ended.status)))

    async def _run(self, invocation: Invocation, payload: bytes) -> Answer | Failure:
        lines = self._host.lines
        request_id = invocation.frame.request_id
        again = not self._runs()
        if not again and self.api.parked is None:
            # The result of the last event has come, the question for the next one has not.
            self._arm(invocation, invocation.started + self._spec.timeout)
            self._waiting = self._loop.create_future()
            await asyncio.wait((self._waiting, invocation.future), return_when=asyncio.FIRST_COMPLETED)
            self._waiting = None
            if invocation.future.done():
                self._log(lines.start(time.time(), request_id))
                return invocation.future.result()
            again = not self._runs()
        if again:
            failure = await self._boot_for(invocation)
            self._log(lines.start(time.time(), request_id))
            if failure is not None:
                return failure
        else:
            invocation.started, invocation.began = self._loop.time(), time.perf_counter()
            invocation.start_line = lines.start(time.time(), request_id)
        self._arm(invocation, invocation.started + self._spec.timeout)
        self._host.watch_memory(self)
        left = invocation.deadline - self._loop.time()
        self.api.deliver(invocation.frame, payload, int((time.time() + left) * 1000))
        return await invocation.future

    def _runs(self) -> bool:
        return self.state == "ready" and self._session is not None and self._session.ended is None

    async def _boot_for(self, invocation: Invocation) -> Failure | None:
        """Init inside the invocation: the same clock runs on, and what goes wrong is the caller's to hear."""
        if self._ending is not None:
            await self._ending
        await self._reset()
        failure = await self._boot(self._spec.timeout)
        self._report_init((time.perf_counter() - invocation.began) * 1000, "invoke", failure)
        return failure

    def _arm(self, invocation: Invocation, deadline: float) -> None:
        """One timer per environment, moved on when it fires early: cheaper than one per invocation."""
        invocation.deadline = deadline
        if self._timer is None or self._timer_at > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        invocation = self._invocation
        if invocation is None or not invocation.deadline or invocation.future.done():
            return
        if self._loop.time() < invocation.deadline - 0.0005:
            self._timer_at = invocation.deadline
            self._timer = self._loop.call_at(invocation.deadline, self._on_timer)
            return
        failure = Failure(error_type="Sandbox.Timedout", text=self._timeout_text(), status="timeout")
        invocation.future.set_result(failure)
        if self._session is not None and self._session.pid:
            process.kill_group(self._session.pid)

    async def _finish(self, invocation: Invocation, outcome: Answer | Failure) -> tuple[Result, bytes]:
        """Accounts, the end of the log, the reset where one is due; the Result."""
        if invocation.streamer is not None:
            outcome = await self._end_stream(invocation.streamer, invocation, outcome)
        elapsed = (time.perf_counter() - invocation.began) * 1000
        init_ms, self.init_ms = self.init_ms, 0.0
        session = self._session
        if session is not None:
            session.flush()
        status: Status = "success"
        function_error, error_type, content_type = "Unhandled", "", "application/json"
        request_id = invocation.frame.request_id
        if isinstance(outcome, Failure):
            payload, status, error_type = outcome.payload(request_id), outcome.status, outcome.error_type
            if status == "timeout":
                elapsed = min(elapsed, self._spec.timeout * 1000)
        elif outcome.too_large:
            text = f"Response payload size exceeded maximum allowed payload size ({outcome.too_large} bytes)."
            payload, error_type = _encode(_TooLarge(text)), "Function.ResponseSizeTooLarge"
        else:
            payload, error_type, content_type = outcome.body, outcome.error_type, outcome.content_type
            if not outcome.failed:
                function_error = ""
        if function_error and status == "success":
            status = "error"
        if isinstance(outcome, Failure):
            await self._reset()
            if self._out_of_storage:
                self._out_of_storage = False
                await self._host.empty_storage(self)
            self._log_failure(request_id, outcome)
        self._say_dropped()
        report = Report(
            request_id=request_id,
            duration_ms=elapsed,
            billed_ms=billed(elapsed, init_ms),
            max_memory_mb=self._memory_mb(session),
            init_ms=init_ms,
            status=status,
            error_type="Runtime.OutOfMemory" if self._out_of_memory else error_type,
        )
        lines, now = self._host.lines, time.time()
        self._log(lines.end(request_id), lines.report(now, report))
        tail = b"" if invocation.tail is None else bytes(invocation.tail[-LOG_TAIL_BYTES:])
        result = Result(
            request_id=request_id,
            function_error=function_error,
            error_type=report.error_type,
            content_type=content_type,
            duration_ms=elapsed,
            billed_ms=report.billed_ms,
            init_ms=init_ms,
            max_memory_mb=report.max_memory_mb,
            log_tail=tail,
        )
        return result, payload

    async def _end_stream(
        self, streamer: asyncio.Task[None], invocation: Invocation, outcome: Answer | Failure
    ) -> Answer | Failure:
        """Wait until all that was streamed has been taken; what the invocation then ends in."""
        left = 0.0  # what came before a failure has been passed on; a taker that is slow now must not hold up the reset
        if isinstance(outcome, Answer):
            # The function's time goes on until its response has left it, as on AWS.
            left = max(invocation.deadline - self._loop.time(), _ANSWER_GRACE)
        if not (await asyncio.wait((streamer,), timeout=left))[0]:
            streamer.cancel()
            await asyncio.wait((streamer,))
            if isinstance(outcome, Answer):
                outcome = Failure(error_type="Sandbox.Timedout", text=self._timeout_text(), status="timeout")
        invocation.streamer = None
        return outcome

    def _log_failure(self, request_id: str, failure: Failure) -> None:
        lines, now = self._host.lines, time.time()
        if failure.status == "timeout":
            self._log(lines.timed_out(now, request_id, failure.text))
        elif failure.body is None:
            self._log(lines.failed(now, request_id, failure.text, failure.error_type))

    def _memory_mb(self, session: RuntimeSession | None) -> int:
        if session is not None and session.meter is not None:
            kib = session.meter.sample(self._loop.time())
            # The limit is never exceeded on AWS: what was over it has been ended.
            self.max_memory_mb = min(self._spec.memory_mb, max(self.max_memory_mb, -(-kib // 1024)))
        return self.max_memory_mb

    # -- what the runtime does: Listener of the Runtime API ----------------------------------------------------------------
    def runtime_waits(self) -> None:
        if self._booting is not None:
            if not self._booting.done():
                self._booting.set_result(None)
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def init_failed(self, body: bytes, error_type: str) -> None:
        if self._booting is not None and not self._booting.done():
            self._booting.set_result(Failure(error_type=error_type, body=body))

    def answered(self, answer: Answer) -> None:
        invocation = self._invocation
        if invocation is not None and not invocation.future.done():
            invocation.future.set_result(answer)

    def stream_started(self, stream: ResponseStream, content_type: str) -> bool:
        invocation = self._invocation
        if invocation is None or invocation.on_data is None:
            return False
        invocation.streamer = self._loop.create_task(_forward(stream, invocation.on_data))
        return True

    def response_broken(self) -> None:
        self._loop.call_later(_BROKEN_GRACE, self._fail, self._invocation, Failure(
            error_type="Runtime.TruncatedResponse", text="Truncated response"
        ))  # fmt: skip

    def runtime_ended(self, session: RuntimeSession, ended: Ended) -> None:
        if session.dismissed:
            return
        text = process.exit_text(ended.status)
        failure = Failure(error_type="Runtime.ExitError", text=text)
        if session.launch_failure is not None:
            found = entrypoint_failure(self._spec, *session.launch_failure)
            if found is not None:
                failure = Failure(error_type="Runtime.InvalidEntrypoint", text=found)
        if self._booting is not None:
            if not self._booting.done():
                self._booting.set_result(failure)
        elif self._waiting is not None:
            if not self._waiting.done():
                self._waiting.set_result(None)
        elif self._invocation is not None:
            self._loop.call_later(_ANSWER_GRACE, self._fail, self._invocation, failure)
        elif self.state == "ready":
            self._ending = self._loop.create_task(self._end_idle(text))

    def _fail(self, invocation: Invocation | None, failure: Failure) -> None:
        if invocation is not None and invocation is self._invocation and not invocation.future.done():
            invocation.future.set_result(failure)

    async def _end_idle(self, text: str) -> None:
        await self._reset()
        self._ending = None
        self._host.on_exit(self, text)

    @property
    def busy(self) -> bool:
        """Whether something runs or starts."""
        return self._invocation is not None or self._booting is not None

    def memory_usage_kib(self) -> int:
        """Of the runtime and its descendants, now."""
        return 0 if self._session is None else self._session.memory_kib()

    def send_start_line(self) -> None:
        """START is sent with the line after it; who follows a long invocation must not wait that long."""
        if self._invocation is not None and self._invocation.start_line:
            self._log()

    def end_for_memory(self) -> None:
        """The runtime uses more than the function has: AWS's kernel would kill it."""
        self._out_of_memory = True
        if self._session is not None:
            process.kill_group(self._session.pid)

    def end_for_storage(self) -> None:
        """Its /tmp holds more than it may, and nothing refused to take it: on AWS a write would have failed before."""
        invocation = self._invocation
        if invocation is None or invocation.future.done():
            return
        self._out_of_storage = True
        text = f"No space left on device: /tmp holds more than {self._spec.ephemeral_mb} MB"
        invocation.future.set_result(Failure(error_type="Runtime.ExitError", text=text))
        if self._session is not None and self._session.pid:
            process.kill_group(self._session.pid)

    # -- reset and end -----------------------------------------------------------------------------------------------
    async def _reset(self) -> None:
        """End the processes, keep /tmp."""
        session, self._session = self._session, None
        if session is not None:
            session.dismissed = True
        if self.state != "closed":
            self.state = "cold"
        self.api.restart()
        if session is not None:
            self._session_peak(session)
            namespace = process.mount_namespace(session.pid) if self._host.sandboxed else 0
            if not namespace and self._namespaces:
                namespace = os.fstat(self._namespaces[0]).st_ino
            await session.end(marker=self._marker, namespace=namespace, spared=self._host.own_children)
            self._session_peak(session)

    def _session_peak(self, session: RuntimeSession) -> None:
        if session.meter is not None:
            self.max_memory_mb = min(self._spec.memory_mb, max(self.max_memory_mb, -(-session.meter.peak_kib // 1024)))

    async def shutdown(self, reason: str) -> None:
        """End the environment for good. What runs gets ``reason`` as its end; without extensions AWS kills at once, too."""
        if self.state == "closed":
            return
        self.state = "closed"
        failure = Failure(error_type="Sandbox.Failure", text=reason)
        self._fail(self._invocation, failure)
        if self._booting is not None and not self._booting.done():
            self._booting.set_result(failure)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ending is not None:
            await self._ending
        await self._reset()
        await self.api.close()
        for fd in self._namespaces:
            os.close(fd)
        self._namespaces = ()
        self._host.forget(self)

    # -- log ---------------------------------------------------------------------------------------------------------
    def take_lines(self, lines: list[str]) -> None:
        """What the runtime printed."""
        self._log(*lines)

    def _say_dropped(self) -> None:
        count, size = self._budget.settle()
        if count:
            self._log(self._host.lines.dropped(time.time(), lines=count, size=size))

    @property
    def budget(self) -> LogBudget:
        return self._budget

    def _log(self, *lines: str) -> None:
        invocation = self._invocation
        request_id = ""
        if invocation is not None:
            request_id = invocation.frame.request_id
            if invocation.start_line:
                lines = (invocation.start_line, *lines)
                invocation.start_line = ""
            if invocation.tail is not None:
                tail = invocation.tail
                tail += "".join(lines).encode()
                if len(tail) > 16 * LOG_TAIL_BYTES:
                    del tail[:-LOG_TAIL_BYTES]
        now = int(time.time() * 1000)
        stream = self.stream
        self._host.on_log(self, [LogLine(stream, now, request_id, line) for line in lines if line])


async def _forward(stream: ResponseStream, on_data: OnData) -> None:
    async for chunk in stream:
        await on_data(chunk)
