"""InvocationPort: runs an event on an environment. The gateway's I/O shell around the dispatcher.

Stands between the hot path, which awaits one future per invocation, and the links: frames become calls of the
:class:`~kappa_core.link.dispatch.Dispatcher`, its effects become frames and answers. All of it happens in the callback that the frame
arrived in; there is no task, lock or queue per invocation. What the scaler has to know goes through ``Scaling``
(:mod:`kappa_gateway.links.scaling`), which lives in this process or behind a peer's link.

It refuses to decide: who runs next, who is throttled and how many environments there are is the state machines' business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from kappa_core.errors import EnvironmentLostException, ServiceUnavailableException, TooManyRequestsException
from kappa_core.limits import Limits
from kappa_core.link import effects, frames
from kappa_core.link.dispatch import Dispatcher
from kappa_core.link.effects import Effect
from kappa_core.link.frames import RESUME_SECONDS, Collected, Deny, Frame, FrameType, Hello, LogLine
from kappa_core.link.transport import Link
from kappa_core.spec import VersionSpec, initialization_type
from kappa_gateway.links.alarm import Alarm
from kappa_gateway.links.killed import Autopsy, killed
from kappa_gateway.links.news import EnvironmentNews
from kappa_gateway.links.provisioned_use import ProvisionedUse
from kappa_gateway.links.sealing import SpecSeal

logger = logging.getLogger("kappa.link")

RETRY_AFTER_SECONDS: Final = 1
"""Said with a 429; AWS's SDKs back off by themselves and ignore it mostly."""

SUPERSEDED_KEPT: Final = 256
"""Specs of old revisions that are remembered."""

Answer = tuple[frames.Result, bytes]
OnData = Callable[[bytes, Callable[[int], None]], None]
"""Takes a piece of a streamed response and a function to call with the number of bytes that were passed on."""
OnLogs = Callable[[VersionSpec, Sequence[LogLine], Mapping[int, str]], None]
"""Takes log lines and the log stream names by :attr:`LogLine.stream`."""


class Stats(NamedTuple):
    """A moment's numbers, for metrics."""

    environments: dict[str, int]
    """By state: ``init``, ``idle``, ``busy``, ``draining``."""
    in_flight: int
    waiting: int
    cold_starts: int
    """Invocations so far that waited for an init."""
    supervisors: int


class Reply(Protocol):
    """Where an answer goes: a future, or what the short way has instead of one (kappa_gateway.hot.quick)."""

    def done(self) -> bool: ...

    def set_result(self, result: Answer, /) -> None: ...

    def set_exception(self, error: BaseException, /) -> None: ...


class _Call:
    """An invocation that has no answer yet."""

    __slots__ = ("future", "invoke", "on_data", "payload", "ran_on", "sink", "streaming_from")

    def __init__(self, invoke: frames.Invoke, payload: bytes, future: Reply, on_data: OnData | None) -> None:
        self.invoke = invoke
        self.payload = payload
        self.future = future
        self.on_data = on_data
        self.ran_on: tuple[SupervisorLink, int, float] | None = None
        """Link and stream that it was last sent on, and when, by the loop's clock."""
        self.sink: tuple[Link, int, int] | None = None
        """Link, stream and epoch that pieces of its response are expected from."""
        self.streaming_from = 0
        """Number of the link from which pieces of its streamed response have been passed on."""


class SupervisorLink:
    """A supervisor's connection; owns what is specific to it. See :class:`InvocationPort` for what happens with the frames."""

    __slots__ = ("_port", "environments", "link", "log_streams", "number", "spec", "states", "supervisor_id")

    def __init__(self, port: InvocationPort, link: Link, number: int, hello: Hello, spec: VersionSpec | None) -> None:
        self._port = port
        self.link = link
        self.number = number
        self.supervisor_id = hello.supervisor_id
        self.spec = spec
        self.environments: dict[int, str] = {}
        """Environment ids by stream."""
        self.states: dict[int, str] = {}
        self.log_streams = dict(hello.log_streams)
        """Names of the environments' log streams, by stream; of a supervisor of the last release none."""
        for state in hello.environments:
            if state.environment_id:
                self.environments[state.stream] = state.environment_id
                self.states[state.stream] = state.state

    def frame(self, frame: Frame, /) -> None:
        self._port.received(self, frame)

    def lost(self, reason: str, /) -> None:
        self._port.lost(self, reason)


class InvocationPort:
    """See the module. ``news`` is set once before the first link or invocation arrives."""

    news: EnvironmentNews

    def __init__(self, *, limits: Limits, on_logs: OnLogs, seal: SpecSeal | None = None, autopsy: Autopsy | None = None) -> None:
        """With ``seal`` the word of a supervisor on what a revision is counts only if a gateway has sealed it. ``autopsy`` is asked
        before an invocation is answered as lost with its supervisor."""
        self._loop = asyncio.get_running_loop()
        self._dispatcher = Dispatcher(capacity_wait=limits.capacity_wait_seconds, queue_bound=limits.capacity_queue)
        self._on_logs = on_logs
        self._seal = seal
        self.renew: Callable[[VersionSpec], VersionSpec] = lambda spec: spec
        """Applied to every spec that is assigned: what is short-lived in it (links, keys) begins to age then."""
        self._autopsy = autopsy
        self._autopsies: set[asyncio.Task[None]] = set()
        self.provisioned_use = ProvisionedUse()
        self._specs: dict[str, VersionSpec] = {}
        """By revision: what was invoked here or runs here."""
        self._reserved: dict[str, int | None] = {}
        """By function key."""
        self._superseded: dict[str, None] = {}
        self._calls: dict[str, _Call] = {}
        """By request id."""
        self._links: dict[int, SupervisorLink] = {}
        self._of_supervisor: dict[str, SupervisorLink] = {}
        self._of_environment: dict[str, tuple[SupervisorLink, int]] = {}
        self._next_number = 1
        self._flushing = False
        self._alarm = Alarm(self._loop, self._tick)
        self._cold_starts = 0

    # -- invocations --------------------------------------------------------------------------------------------------
    async def invoke(
        self,
        *,
        spec: VersionSpec,
        function_key: str,
        reserved: int | None,
        invoke: frames.Invoke,
        payload: bytes,
        on_data: OnData | None = None,
    ) -> Answer:
        """Run an event to its end: the result and its payload (what is left of it where ``on_data`` has had pieces).

        Cancelling gives up an invocation that still waits; what runs goes on to its end. Raises TooManyRequestsException,
        ServiceUnavailableException (nothing has run) and EnvironmentLostException.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        self.submit(
            spec=spec,
            function_key=function_key,
            reserved=reserved,
            invoke=invoke,
            payload=payload,
            reply=future,
            on_data=on_data,
        )
        try:
            return await future
        except asyncio.CancelledError:
            if self._dispatcher.cancel(invoke.request_id, self._loop.time()):
                del self._calls[invoke.request_id]
            raise

    def submit(
        self,
        *,
        spec: VersionSpec,
        function_key: str,
        reserved: int | None,
        invoke: frames.Invoke,
        payload: bytes,
        reply: Reply,
        on_data: OnData | None = None,
    ) -> None:
        """:meth:`invoke` without waiting: ``reply`` is told, now or from a later callback, and must not raise."""
        revision = spec.revision
        if revision not in self._specs or self._reserved.get(function_key, -1) != reserved:
            self.learn(spec, function_key, reserved)
        self._calls[invoke.request_id] = _Call(invoke, payload, reply, on_data)
        self._apply(self._dispatcher.invoke(invoke.request_id, revision, function_key, self._loop.time()))

    def learn(self, spec: VersionSpec, function_key: str, reserved: int | None) -> None:
        """What is about to be invoked, and the function's reserved concurrency."""
        self._specs[spec.revision] = spec
        self._reserved[function_key] = reserved
        self._superseded.pop(spec.revision, None)
        self.news.learn(spec, function_key, reserved)

    def supersede(self, old_revision: str, new_spec: VersionSpec | None, function_key: str) -> None:
        """From now on ``new_spec`` serves (None: nothing does). Who waits for the old revision waits for the new one; what runs
        ends where it is; idle environments of the old one end."""
        if new_spec is not None:
            self.learn(new_spec, function_key, self._reserved.get(function_key))
            self._apply(self._dispatcher.on_superseded(old_revision, new_spec.revision, function_key, self._loop.time()))
        self.news.superseded(old_revision)
        if old_revision in self._specs:
            # Kept for a while: invocations that were routed before the change still name it, and its last lines are to be stored.
            self._superseded[old_revision] = None
            if len(self._superseded) > SUPERSEDED_KEPT:
                oldest = next(iter(self._superseded))
                del self._superseded[oldest]
                self._specs.pop(oldest, None)

    def set_reserved(self, function_key: str, reserved: int | None) -> None:
        """PutFunctionConcurrency, or its deletion."""
        self._reserved[function_key] = reserved
        self.news.set_reserved(function_key, reserved)

    def retire_function(self, function_key: str) -> None:
        """The function was deleted: waiters are told, environments end after what they run."""
        self._reserved.pop(function_key, None)
        self.news.function_removed(function_key)

    def spec_of(self, revision: str) -> VersionSpec | None:
        return self._specs.get(revision)

    def leave(self) -> None:
        """This gateway stops soon: idle environments park elsewhere, what is in flight ends here."""
        self._apply(self._dispatcher.leave(self._loop.time()))

    @property
    def in_flight(self) -> int:
        return self._dispatcher.in_flight()

    def stats(self) -> Stats:
        counts = dict.fromkeys(("init", "idle", "busy", "draining"), 0)
        for link in self._links.values():
            for state in link.states.values():
                counts[state] += 1
        in_flight = self._dispatcher.in_flight()
        # Idle and busy are not followed frame by frame: an environment that was ready is busy if it runs something for this gateway.
        ready = counts["idle"] + counts["busy"]
        counts["busy"] = min(in_flight, ready)
        counts["idle"] = ready - counts["busy"]
        return Stats(counts, in_flight, self._dispatcher.waiting(), self._cold_starts, len(self._links))

    def provisioned_in_flight(self) -> dict[str, int]:
        """By revision: what runs on provisioned environments for this gateway now."""
        counts: dict[str, int] = {}
        for environment_id, _ in self._dispatcher.collect("", 0).busy:
            where = self._of_environment.get(environment_id)
            if where is not None and where[0].spec is not None and initialization_type(environment_id) != "on-demand":
                revision = where[0].spec.revision
                counts[revision] = counts.get(revision, 0) + 1
        return counts

    # -- for scaling --------------------------------------------------------------------------------------------------
    def collect(self, function_key: str, number: int) -> Collected:
        """What is in flight and idle here now. Who no longer waits is said first: the scaler decides on both."""
        self._apply(self._dispatcher.flush(self._loop.time(), hold=False))
        return self._dispatcher.collect(function_key, number)

    def deny(self, deny: Deny) -> None:
        self._apply(self._dispatcher.on_deny(deny, self._loop.time()))

    def scaler_changed(self) -> None:
        """Report everything again."""
        self._dispatcher.on_scaler_changed()
        self._flush_soon()

    def assign(self, supervisor_id: str, spec: VersionSpec, /, code: bytes = b"") -> bool:
        """Make a spare the supervisor of a version. ``code``: its archive, if it comes along. False: it is not linked."""
        supervisor = self._of_supervisor.get(supervisor_id)
        if supervisor is None or not supervisor.link.connected:
            return False
        spec = self.renew(spec)
        supervisor.spec = spec
        self._specs[spec.revision] = spec
        packed = msgspec.msgpack.encode(spec)
        seal = self._seal.of(packed) if self._seal is not None else b""
        body = frames.Assign(spec=msgspec.Raw(packed), seal=seal, code=code)
        supervisor.link.send(FrameType.ASSIGN, body)
        self._apply(self._dispatcher.on_assigned(supervisor.number, spec.revision, self._loop.time()))
        return True

    def supervisors(self) -> list[str]:
        """Those that are linked."""
        return list(self._of_supervisor)

    def environments_of(self, supervisor_id: str, /) -> tuple[str, ...] | None:
        """What a supervisor has spoken of and not reported as gone; None: it is not linked."""
        supervisor = self._of_supervisor.get(supervisor_id)
        return None if supervisor is None else tuple(supervisor.environments.values())

    def start(self, supervisor_id: str, environment_ids: list[str], /) -> bool:
        """Have a supervisor begin environments. False: it is not linked."""
        supervisor = self._of_supervisor.get(supervisor_id)
        if supervisor is None or not supervisor.link.connected:
            return False
        supervisor.link.send(FrameType.START, frames.Start(environment_ids=environment_ids))
        return True

    def retire_supervisor(self, supervisor_id: str, reason: str, /) -> bool:
        """Have a supervisor end once nothing runs on it. False: it is not linked."""
        supervisor = self._of_supervisor.get(supervisor_id)
        if supervisor is None or not supervisor.link.connected:
            return False
        supervisor.link.send(FrameType.RETIRE, frames.Retire(reason=reason, when_busy="finish"))
        return True

    def retire_environment(self, environment_id: str, body: frames.Retire) -> bool:
        """RETIRE. False: its supervisor is not linked."""
        where = self._of_environment.get(environment_id)
        if where is None:
            return False
        supervisor, stream = where
        supervisor.link.send(FrameType.RETIRE, body, stream=stream)
        return True

    # -- supervisors --------------------------------------------------------------------------------------------------
    def supervisor_connected(self, link: Link, hello: Hello) -> SupervisorLink | None:
        """The link server has greeted a supervisor."""
        number = self._next_number
        self._next_number += 1
        spec = self._known_or_shown(hello.revision, hello.spec, hello.seal)
        supervisor = SupervisorLink(self, link, number, hello, spec)
        self._links[number] = supervisor
        wanted = self._dispatcher.on_hello(number, hello, self._loop.time())
        if any(isinstance(effect, effects.CloseLink) and effect.link == number for effect in wanted):
            del self._links[number]
            return None
        self._of_supervisor[hello.supervisor_id] = supervisor
        for stream, environment_id in supervisor.environments.items():
            self._of_environment[environment_id] = (supervisor, stream)
        self._apply(wanted)
        for state in hello.environments:
            call = self._calls.get(state.request_id)
            if call is not None and call.on_data is not None:
                # It went on while the link was down and no piece of it had come: its response begins on this one.
                self._stream(call, call.on_data, supervisor, state.stream, state.accepted)
        self.news.supervisor_up(hello, spec)
        return supervisor

    def _known_or_shown(self, revision: str, shown: bytes, seal: bytes) -> VersionSpec | None:
        """The spec of a revision that a supervisor says it runs; None if it is not known here and what it shows is not ours."""
        spec = self._specs.get(revision)
        if spec is None and shown and (self._seal is None or self._seal.fits(shown, seal)):
            spec = msgspec.msgpack.decode(shown, type=VersionSpec)
            if spec.revision != revision:
                return None
            self._specs[revision] = spec
        return spec

    def lost(self, supervisor: SupervisorLink, reason: str) -> None:
        if self._links.pop(supervisor.number, None) is None:
            return
        logger.debug("link to supervisor %s is down: %s", supervisor.supervisor_id, reason)
        self._detach(supervisor)
        for request_id in [name for name, call in self._calls.items() if call.streaming_from == supervisor.number]:
            # Half of the response is with the client; the rest cannot be asked for again.
            self._fail(request_id, EnvironmentLostException("The connection to the execution environment broke."))
        self._apply(self._dispatcher.on_link_down(supervisor.number, self._loop.time()))
        self.news.supervisor_down(supervisor.supervisor_id)

    def _detach(self, supervisor: SupervisorLink) -> None:
        if self._of_supervisor.get(supervisor.supervisor_id) is supervisor:
            del self._of_supervisor[supervisor.supervisor_id]
        for environment_id in supervisor.environments.values():
            if self._of_environment.get(environment_id, (None, 0))[0] is supervisor:
                del self._of_environment[environment_id]

    def received(self, supervisor: SupervisorLink, frame: Frame) -> None:
        """A frame of a greeted supervisor."""
        if supervisor.number not in self._links:
            return
        kind, stream, body = frame.type, frame.stream, frame.body
        dispatcher, number, now = self._dispatcher, supervisor.number, self._loop.time()
        match kind:
            case FrameType.RESULT:
                self._result(supervisor, frame, now)
            case FrameType.PARKED:
                self._apply(dispatcher.on_parked(number, stream, frame.epoch, body.idle_ms, now))
            case FrameType.LOGS:
                self._logs(supervisor, body)
            case FrameType.UNPARKED:
                self._apply(dispatcher.on_unparked(number, stream, now))
            case FrameType.REFUSED:
                if body.request_id:
                    self._apply(dispatcher.on_refused(number, stream, body.request_id, now))
                elif stream in supervisor.environments:
                    self.news.retire_refused(supervisor.environments[stream], body)
            case FrameType.ENVIRONMENT:
                supervisor.environments[stream] = body.environment_id
                supervisor.states[stream] = "init" if body.state == "init" else "idle"
                supervisor.log_streams[stream] = body.log_stream
                self._of_environment[body.environment_id] = (supervisor, stream)
                self._apply(dispatcher.on_environment(number, stream, body.environment_id, now))
                if supervisor.spec is not None:
                    self.news.environment(supervisor.supervisor_id, body.environment_id, supervisor.spec.revision, body.state)
            case FrameType.ASSIGNED:
                supervisor.spec = self._known_or_shown(body.revision, body.spec, body.seal)
                self._apply(dispatcher.on_assigned(number, body.revision, now))
            case FrameType.DRAINING:
                self._apply(dispatcher.on_draining(number, stream, now))
                if stream in supervisor.environments and supervisor.spec is not None:
                    supervisor.states[stream] = "draining"
                    environment_id = supervisor.environments[stream]
                    self.news.draining(supervisor.supervisor_id, environment_id, supervisor.spec.revision)
            case FrameType.GONE:
                supervisor.link.drop(stream)
                self._apply(dispatcher.on_gone(number, stream, body.request_id, body.reason, now))
                supervisor.environments.pop(stream, None)
                supervisor.states.pop(stream, None)
                supervisor.log_streams.pop(stream, None)
                self._of_environment.pop(body.environment_id, None)
                self.news.gone(supervisor.supervisor_id, body.environment_id, body.reason)
            case _:
                # PONG, and what a newer supervisor may say.
                pass

    def _result(self, supervisor: SupervisorLink, frame: Frame, now: float) -> None:
        result: frames.Result = frame.body
        if not self._dispatcher.on_result(supervisor.number, frame.stream, result.request_id, now):
            return
        if self._dispatcher.dirty:
            self._flush_soon()
        call = self._calls.pop(result.request_id, None)
        if call is None or call.future.done():
            return
        if result.init_ms:
            self._cold_starts += 1
        call.future.set_result((result, frame.payload))

    def _logs(self, supervisor: SupervisorLink, logs: frames.Logs) -> None:
        supervisor.link.logs_taken(logs)
        if supervisor.spec is not None:
            self._on_logs(supervisor.spec, logs.lines, logs.names)
            if logs.dropped:
                logger.warning("%d log lines of %s were dropped", logs.dropped, supervisor.spec.function_name)

    # -- effects ------------------------------------------------------------------------------------------------------
    def _apply(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            if isinstance(effect, effects.Dispatch):
                self._dispatch(effect)
            elif isinstance(effect, effects.Send):
                supervisor = self._links.get(int(effect.to))
                if supervisor is not None:
                    supervisor.link.send(effect.kind, effect.body, stream=effect.stream, epoch=effect.epoch)
            elif isinstance(effect, effects.Report):
                self.news.demand(effect.demand)
            elif isinstance(effect, effects.Throttled):
                self._fail(effect.request_id, TooManyRequestsException(effect.reason, retry_after=RETRY_AFTER_SECONDS))
            elif isinstance(effect, effects.Unavailable):
                self._fail(effect.request_id, ServiceUnavailableException(f"No execution environment: {effect.cause}."))
            elif isinstance(effect, effects.EnvironmentLost):
                self._environment_lost(effect)
            else:
                assert isinstance(effect, effects.CloseLink), effect
                replaced = self._links.pop(effect.link, None)
                if replaced is not None:
                    self._detach(replaced)
                    replaced.link.close(effect.reason)
        if self._dispatcher.dirty:
            self._flush_soon()

    def _dispatch(self, effect: effects.Dispatch) -> None:
        call = self._calls[effect.request_id]
        supervisor = self._links[effect.link]
        link = supervisor.link
        call.ran_on = (supervisor, effect.stream, self._loop.time())
        if self.provisioned_use.uses and supervisor.spec is not None:
            self.provisioned_use.count(supervisor.spec.revision, supervisor.environments[effect.stream])
        if call.on_data is not None:
            self._stream(call, call.on_data, supervisor, effect.stream, effect.epoch)
        link.send(FrameType.INVOKE, call.invoke, stream=effect.stream, epoch=effect.epoch, payload=call.payload)

    def _stream(self, call: _Call, on_data: OnData, supervisor: SupervisorLink, stream: int, epoch: int) -> None:
        link = supervisor.link

        def passed_on(size: int) -> None:
            link.grant(stream, epoch=epoch, size=size)

        def sink(data: bytes) -> None:
            call.streaming_from = supervisor.number
            if call.future.done():
                passed_on(len(data))  # nobody listens any more; the function is not to hang for it
            else:
                on_data(data, passed_on)

        _expect_nothing(call)
        call.sink = (link, stream, epoch)
        link.stream_into(stream, epoch=epoch, sink=sink)

    def _fail(self, request_id: str, error: Exception) -> None:
        call = self._calls.pop(request_id, None)
        if call is None:
            return
        _expect_nothing(call)
        if not call.future.done():
            call.future.set_exception(error)

    def _environment_lost(self, effect: effects.EnvironmentLost) -> None:
        error = EnvironmentLostException(f"The execution environment was lost: {effect.cause}.")
        if self._autopsy is None or not effect.supervisor or effect.request_id not in self._calls:
            self._fail(effect.request_id, error)
            return
        task = self._loop.create_task(self._examine(effect, self._autopsy, error))
        self._autopsies.add(task)
        task.add_done_callback(self._autopsies.discard)

    async def _examine(self, effect: effects.EnvironmentLost, autopsy: Autopsy, error: Exception) -> None:
        """A runtime that was killed with its supervisor is the function's error, not the platform's."""
        request_id = effect.request_id
        lost_at = self._loop.time() - RESUME_SECONDS
        ending = await autopsy(effect.supervisor, effect.age)
        call = self._calls.get(request_id)
        if ending is None or call is None or call.ran_on is None:
            self._fail(request_id, error)
            return
        del self._calls[request_id]
        _expect_nothing(call)
        supervisor, stream, began = call.ran_on
        found = killed(
            call.invoke,
            ending,
            spec=supervisor.spec,
            stream=stream,
            duration_ms=max(0.0, lost_at - began) * 1000,
            epoch_seconds=time.time() - (self._loop.time() - lost_at),
        )
        if supervisor.spec is not None:
            self._on_logs(supervisor.spec, found.lines, {stream: supervisor.log_streams.get(stream, "")})
        if not call.future.done():
            call.future.set_result((found.result, found.payload))

    # -- time ---------------------------------------------------------------------------------------------------------
    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._apply(self._dispatcher.flush(self._loop.time()))
        self._alarm.set(self._dispatcher.next_deadline())

    def _tick(self, now: float) -> None:
        self._apply(self._dispatcher.on_tick(now))
        self._alarm.set(self._dispatcher.next_deadline())

    def close(self) -> None:
        """Fail what still waits or runs; the links are closed by their server. Idempotent."""
        self._alarm.set(None)
        for task in self._autopsies:
            task.cancel()
        for request_id in list(self._calls):
            self._fail(request_id, EnvironmentLostException("The gateway is stopping."))


def _expect_nothing(call: _Call) -> None:
    """An INVOKE that was refused, or an environment that was lost, leaves a sink behind; it would keep the payload."""
    if call.sink is not None:
        link, stream, epoch = call.sink
        link.stream_nowhere(stream, epoch=epoch)
