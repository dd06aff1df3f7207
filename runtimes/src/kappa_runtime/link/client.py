"""The supervisor's end of the link with all its gateways: frames in, Parking decides, its effects out.

Stands between the connections (:mod:`kappa_runtime.link.dialling`) and what runs the environments, which it knows only as an
:class:`Environments`. It holds what Parking never sees, payloads and results: a result is kept until the gateway has provably read
it (a PING sent after it was answered), so that a connection that breaks behind a response does not lose it.

It refuses to decide where an environment parks, when it drains, or how one is started.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from kappa_core.link import effects
from kappa_core.link.effects import Effect
from kappa_core.link.frames import (
    CHUNK,
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    RESUME_SECONDS,
    Assign,
    Assigned,
    EnvironmentStarted,
    EnvironmentState,
    Frame,
    FrameType,
    Hello,
    Invoke,
    LogLine,
    Result,
)
from kappa_core.link.parking import Parking, Then
from kappa_core.link.transport import Link, Transfer
from kappa_core.spec import VersionSpec
from kappa_runtime.link.dialling import Dialler, Trust
from kappa_runtime.link.logs import LogSender

logger = logging.getLogger("kappa.supervisor")

UNREAD_BYTES: Final = 8 * 1024 * 1024
"""Of sent results whose reading is not proven; beyond it the proof is asked for at once instead of with the next heartbeat."""

LAST_LINES_SECONDS: Final = 60.0
"""How long the log stream of an environment that has ended is remembered for lines that still wait."""

End = Literal["retired", "gone", "orphaned", "terminated"]
"""Why a supervisor ends: by RETIRE; all gateways are gone for good; the nursery is gone too; by SIGTERM."""


class Environments(Protocol):
    """What runs the environments. Each call returns at once; what follows is told to the client."""

    def assign(self, spec: VersionSpec, code: bytes, /) -> None:
        """This supervisor, a spare until now, runs this version. ``code``: its archive, if it came along."""

    def start(self, stream: int, environment_id: str, /) -> None:
        """Begin an init. ``LinkClient.ready`` or ``gone`` follows."""

    def run(self, stream: int, invoke: Invoke, payload: bytes, /) -> None:
        """Run an event. ``LinkClient.finished`` or ``gone`` follows."""

    def stop(self, stream: int, reason: str, /) -> None:
        """End an environment gracefully. ``LinkClient.gone`` follows."""


class _Answer(NamedTuple):
    """A result and how it is to be sent. ``transfer``: its first pieces are under way already."""

    epoch: int
    result: Result
    payload: bytes
    transfer: Transfer | None
    streamed: bool = False
    """The pieces were the function's; ``payload`` is empty, or the error that it ended with."""


class _PlatformError(msgspec.Struct):
    """Key order as AWS's."""

    errorType: str  # noqa: N815 - AWS's spelling
    errorMessage: str  # noqa: N815


def _truncated(answer: _Answer) -> _Answer:
    """What is left of a streamed response whose pieces were lost with their link: it must not look like the whole."""
    result = answer.result
    if result.function_error:
        return answer._replace(transfer=None)
    error = _PlatformError("Runtime.TruncatedResponse", f"RequestId: {result.request_id} Error: Truncated response")
    failed = msgspec.structs.replace(result, function_error="Unhandled", error_type=error.errorType)
    return answer._replace(result=failed, payload=msgspec.json.encode(error), transfer=None)


class _Unread(NamedTuple):
    """A result that was sent; read by the gateway once PING number ``proof`` is answered."""

    proof: int
    answer: _Answer


class _Sending:
    """A long answer whose last piece has not been sent yet."""

    __slots__ = ("answer", "gateway", "gone", "parked", "then")

    def __init__(self, gateway: str, answer: _Answer, then: Then) -> None:
        self.gateway = gateway
        self.answer = answer
        self.then: Then = then
        self.parked = False
        """Parking knows that the invocation is over."""
        self.gone = ""
        """Why its environment has ended meanwhile; GONE must not overtake the answer."""


class _Gateway:
    __slots__ = ("departing", "dialler", "unread", "unread_bytes")

    def __init__(self, dialler: Dialler) -> None:
        self.dialler = dialler
        self.departing = False
        """No longer listed: it is forgotten when its link is lost."""
        self.unread: dict[int, _Unread] = {}
        """By stream: the next INVOKE on a stream proves as well that the result before it has arrived."""
        self.unread_bytes = 0


class LinkClient:
    """See the module. ``ended`` is done when the supervisor has to end, with the reason.

    Which gateways there are is given once, or, where they come and go, said by :meth:`follow`.
    """

    def __init__(
        self,
        *,
        supervisor_id: str,
        gateways: list[str],
        environments: Environments,
        spec: VersionSpec | None,
        spare_for: str = "",
        token: Callable[[], str] = str,
        trust: Trust | None = None,
        gone_seconds: float | None,
    ) -> None:
        """``token`` is asked at every greeting and may raise OSError. ``gone_seconds`` without any gateway are taken as all gateways
        gone for good; None: they never are. Raises AddressError."""
        self._loop = asyncio.get_running_loop()
        self._supervisor_id = supervisor_id
        self._environments = environments
        self._revision = spec.revision if spec is not None else ""
        self._spec = msgspec.msgpack.encode(spec) if spec is not None else b""
        self._seal = b""
        """Of the spec, as ASSIGN brought it."""
        self._spare_for = spare_for
        self._token = token
        self._trust = trust
        self._gone_seconds = gone_seconds
        self._parking = Parking()
        self._gateways: dict[str, _Gateway] = {}
        self._numbers = itertools.count(1)
        """Of connections, to whomever: a gateway that was forgotten and comes back must not take the new one for an old one."""
        self._closings: set[asyncio.Task[None]] = set()
        for address in gateways:
            self._add(address)
        self._running: dict[int, tuple[str, int]] = {}
        """By stream: gateway and the epoch that its INVOKE named."""
        self._answers: dict[int, _Answer] = {}
        """By stream: results that Parking has not had sent or dropped yet."""
        self._sending: dict[tuple[int, int], _Sending] = {}
        """By stream and epoch."""
        self._streaming: dict[int, Transfer | None] = {}
        """By stream; None where its gateway was out of reach when the response began."""
        self._linked = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._gone: asyncio.TimerHandle | None = None
        self._orphaned = False
        self._logs = LogSender(outlet=self._log_outlet)
        self.ended: asyncio.Future[End] = self._loop.create_future()
        self.linked = asyncio.Event()
        """Set while at least one gateway is linked."""

    # -- life ---------------------------------------------------------------------------------------------------------
    def start(self, environment_ids: list[str]) -> None:
        """Dial the gateways, and begin the environments that the supervisor was made for."""
        self._begin_waiting()
        for gateway in self._gateways.values():
            gateway.dialler.start()
        if environment_ids:
            home = next(iter(self._gateways))
            self._apply(self._parking.on_start(home, environment_ids, self._loop.time()))

    async def close(self, *, flush_seconds: float = 0.5) -> None:
        """Close all links, giving the last log lines a moment to leave."""
        deadline = self._loop.time() + flush_seconds
        # Polled: a supervisor ends once, and room for logs comes from as many places as there are gateways.
        while self._logs.pending and self._linked and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        self._logs.close()
        for timer in (self._deadline, self._gone):
            if timer is not None:
                timer.cancel()
        await asyncio.gather(*(gateway.dialler.close() for gateway in self._gateways.values()), *self._closings)

    def follow(self, addresses: Iterable[str]) -> None:
        """These are the gateways now. New ones are dialled; one that is not among them any more is left alone while its link holds,
        and forgotten when that is lost. Raises AddressError."""
        listed = set(addresses)
        for address, gateway in list(self._gateways.items()):
            departing = address not in listed
            if departing and not gateway.departing and gateway.dialler.link is None:
                self._loop.call_later(RESUME_SECONDS, self._forget, gateway)
            gateway.departing = departing
        for address in sorted(listed - self._gateways.keys()):
            self._add(address).dialler.start()

    @property
    def addresses(self) -> set[str]:
        """The gateways that are linked or dialled."""
        return set(self._gateways)

    @property
    def complete(self) -> bool:
        """Whether there are gateways and all of them are linked."""
        return 0 < len(self._gateways) == self._linked

    def _add(self, address: str) -> _Gateway:
        dialler = Dialler(
            address, trust=self._trust, numbers=self._numbers, on_up=self._up, on_frame=self._received, on_down=self._down
        )
        gateway = self._gateways[address] = _Gateway(dialler)
        return gateway

    def _forget(self, gateway: _Gateway) -> None:
        """A gateway that is not listed any more, once what it may still be owed has lapsed."""
        address = gateway.dialler.address
        if not gateway.departing or gateway.dialler.link is not None or self._gateways.get(address) is not gateway:
            return
        logger.info("gateway %s is gone", address)
        del self._gateways[address]
        closing = self._loop.create_task(gateway.dialler.close())
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)
        self._apply(self._parking.on_gateway_removed(address, self._loop.time()))

    def _begin_waiting(self) -> None:
        if self._gone_seconds is not None:
            self._gone = self._loop.call_later(self._gone_seconds, self._end, "gone")

    def drain(self, reason: str) -> None:
        """Start nothing more, finish what runs, then end. As a RETIRE of everything would have it."""
        self._apply(self._parking.on_retire("", 0, reason=reason, when_busy="finish", now=self._loop.time()))

    def orphaned(self) -> None:
        """The nursery is gone. With a gateway this is a reason to drain; without one to end at once."""
        self._orphaned = True
        if self._linked:
            logger.info("the nursery is gone: finishing what runs")
            self.drain("the nursery is gone")
        else:
            self._end("orphaned")

    def _end(self, why: End) -> None:
        if not self.ended.done():
            self.ended.set_result(why)

    # -- told by the environments -------------------------------------------------------------------------------------
    def ready(self, stream: int) -> None:
        """Its init is over: it can run something."""
        self._apply(self._parking.on_ready(stream, self._loop.time()))

    def gone(self, stream: int, reason: str) -> None:
        """It has ended, with whatever it ran."""
        self._loop.call_later(LAST_LINES_SECONDS, self._logs.names.pop, stream, None)
        self._running.pop(stream, None)
        streaming = self._streaming.pop(stream, None)
        if streaming is not None:
            streaming.cancel()
        sending = [entry for (on, _), entry in self._sending.items() if on == stream]
        if sending:
            sending[-1].gone = reason
        else:
            self._apply(self._parking.on_gone(stream, reason, self._loop.time()))

    def retire(self, stream: int, reason: str) -> None:
        """It is of no more use: let it finish what it runs and end."""
        self._apply(self._parking.on_retire("", stream, reason=reason, when_busy="finish", now=self._loop.time()))

    def finished(self, stream: int, result: Result, payload: bytes, *, then: Then) -> None:
        """The invocation on this stream has ended, successfully or not. ``then``: what becomes of the environment."""
        running = self._running.pop(stream, None)
        if running is None:
            return
        gateway_name, epoch = running
        streamed = stream in self._streaming
        transfer = self._streaming.pop(stream, None)
        link = self._link(gateway_name)
        answer = _Answer(epoch, result, payload, transfer, streamed)
        if not streamed and link is not None and len(payload) > CHUNK:
            self._send_ahead(link, stream, _Sending(gateway_name, answer, then))
            return
        if transfer is not None and not transfer.over:
            sending = self._sending[(stream, epoch)] = _Sending(gateway_name, answer, then)
            sending.parked = True
        self._finish(stream, answer, then)

    def respond(self, stream: int, *, on_drain: Callable[[], None]) -> Transfer | None:
        """Send the response of what runs on this stream as it comes; ``finished`` ends it. None: its gateway is not linked, or the
        invocation is over."""
        running = self._running.get(stream)
        if running is None:
            return None
        gateway_name, epoch = running
        link = self._link(gateway_name)
        transfer = None
        if link is not None:
            sent = functools.partial(self._streamed, stream, epoch)
            transfer = link.transfer(FrameType.RESULT, stream=stream, epoch=epoch, on_drain=on_drain, on_sent=sent)
        self._streaming[stream] = transfer
        return transfer

    def log(self, lines: list[LogLine]) -> None:
        """Lines of a function, or of the platform about it."""
        for line in lines:
            self._logs.add(line)

    def name_log_stream(self, stream: int, name: str) -> None:
        """The log stream of an environment; before its first line."""
        self._logs.names[stream] = name

    # -- answers ------------------------------------------------------------------------------------------------------
    def _finish(self, stream: int, answer: _Answer, then: Then) -> None:
        self._answers[stream] = answer
        self._apply(self._parking.on_finished(stream, self._loop.time(), then=then))

    def _send_ahead(self, link: Link, stream: int, sending: _Sending) -> None:
        """Send a long answer while its environment still counts as busy. Were it parked first, the next invocation could overtake
        the answer, and a connection that breaks between them would lose it."""
        epoch, result, payload, *_ = sending.answer
        key = (stream, epoch)

        def nearly_sent() -> None:
            if not sending.parked and self._sending.get(key) is sending:
                sending.parked = True
                self._finish(stream, sending.answer, sending.then)

        def sent() -> None:
            if self._sending.pop(key, None) is sending:
                self._remember_unread(link, sending.gateway, stream, sending.answer._replace(transfer=None))
                if sending.gone:
                    self._apply(self._parking.on_gone(stream, sending.gone, self._loop.time()))

        transfer = link.transfer(FrameType.RESULT, stream=stream, epoch=epoch, on_drain=nearly_sent, on_sent=sent)
        sending.answer = _Answer(epoch, result, payload, transfer)
        self._sending[key] = sending
        if transfer.write(memoryview(payload)[:-CHUNK]):
            nearly_sent()

    def _streamed(self, stream: int, epoch: int) -> None:
        """The end of a streamed response has been sent."""
        sending = self._sending.pop((stream, epoch), None)
        if sending is not None and sending.gone:
            self._apply(self._parking.on_gone(stream, sending.gone, self._loop.time()))

    def _send_result(self, gateway_name: str, stream: int) -> None:
        answer = self._answers.pop(stream, None)
        link = self._link(gateway_name)
        if answer is None or link is None:
            return
        epoch, result, payload, transfer, streamed = answer
        if transfer is not None and not transfer.over:
            if streamed and result.function_error:
                transfer.fail(result, payload)
            else:
                transfer.end(result, payload[-CHUNK:])
            return
        if streamed:
            answer = _truncated(answer)
        link.send(FrameType.RESULT, answer.result, stream=stream, epoch=epoch, payload=answer.payload)
        self._remember_unread(link, gateway_name, stream, answer)

    def _remember_unread(self, link: Link, gateway_name: str, stream: int, answer: _Answer) -> None:
        gateway = self._gateways[gateway_name]
        proof = link.next_ping
        gateway.unread[stream] = _Unread(proof, answer)
        gateway.unread_bytes += len(answer.payload)
        if gateway.unread_bytes > UNREAD_BYTES:
            gateway.unread_bytes = 0
            link.ping()

    # -- connections --------------------------------------------------------------------------------------------------
    def _link(self, gateway_name: str) -> Link | None:
        gateway = self._gateways.get(gateway_name)
        return gateway.dialler.link if gateway is not None else None

    def _is_ours(self, dialler: Dialler) -> bool:
        gateway = self._gateways.get(dialler.address)
        return gateway is not None and gateway.dialler is dialler

    def _up(self, dialler: Dialler, link: Link) -> None:
        if not self._is_ours(dialler):
            link.abort("this gateway was forgotten while it was dialled")
            return
        self._linked += 1
        self.linked.set()
        if self._gone is not None:
            self._gone.cancel()
            self._gone = None
        self._apply(self._parking.on_link_up(dialler.address, self._loop.time()))

    def _down(self, dialler: Dialler, reason: str) -> None:
        if not self._is_ours(dialler):
            return
        self._linked -= 1
        logger.info("link to gateway %s is down: %s", dialler.address, reason)
        if self._linked == 0:
            self.linked.clear()
            if self._orphaned:
                self._end("orphaned")
            elif self._gone is None:
                self._begin_waiting()
        self._apply(self._parking.on_link_down(dialler.address, self._loop.time()))
        gateway = self._gateways[dialler.address]
        for key, sending in list(self._sending.items()):
            if sending.gateway == dialler.address:
                del self._sending[key]
                stream, answer = key[0], sending.answer._replace(transfer=None)
                if answer.streamed:
                    answer = _truncated(answer)
                if sending.parked:
                    gateway.unread[stream] = _Unread(0, answer)
                else:
                    self._finish(stream, answer, sending.then)
                if sending.gone:
                    self._apply(self._parking.on_gone(stream, sending.gone, self._loop.time()))
        if gateway.unread:
            self._loop.call_later(RESUME_SECONDS, self._forget_unread, gateway, dialler.dials)
        if gateway.departing:
            self._loop.call_later(RESUME_SECONDS, self._forget, gateway)

    def _forget_unread(self, gateway: _Gateway, dials: int) -> None:
        if gateway.dialler.dials == dials:
            gateway.unread.clear()

    def _greet(self, effect: effects.SendHello) -> None:
        gateway = self._gateways[effect.gateway]
        link = gateway.dialler.link
        if link is None:
            return
        try:
            token = self._token()
        except OSError as error:
            logger.warning("no greeting without a token: %s", error)
            link.abort("there is no token")
            return
        unread, gateway.unread, gateway.unread_bytes = gateway.unread, {}, 0
        states: list[EnvironmentState] = []
        for state in effect.environments:
            lost = unread.get(state.stream)
            if lost is None or state.request_id:
                unread.pop(state.stream, None)
                states.append(state)
            else:
                states.append(msgspec.structs.replace(state, request_id=lost.answer.result.request_id))
        known = {state.stream for state in states}
        for stream, lost in unread.items():
            if stream not in known:
                states.append(EnvironmentState(stream, "", 0, "gone", False, lost.answer.result.request_id))
        hello = Hello(
            supervisor_id=self._supervisor_id,
            oldest=OLDEST_VERSION,
            newest=PROTOCOL_VERSION,
            revision=self._revision,
            pid=os.getpid(),
            environments=states,
            spare_for=self._spare_for,
            token=token,
            dial=gateway.dialler.dials,
            log_streams=dict(self._logs.names),
            spec=self._spec,
            seal=self._seal,
        )
        link.send(FrameType.HELLO, hello)
        for stream, (_, answer) in unread.items():
            link.send(FrameType.RESULT, answer.result, stream=stream, epoch=answer.epoch, payload=answer.payload)
            self._remember_unread(link, effect.gateway, stream, answer)

    def _received(self, dialler: Dialler, frame: Frame) -> None:
        name, stream, body, now = dialler.address, frame.stream, frame.body, self._loop.time()
        parking = self._parking
        match frame.type:
            case FrameType.INVOKE:
                for effect in parking.on_invoke(name, stream, frame.epoch, body.request_id, now):
                    if type(effect) is effects.Run:
                        self._running[stream] = (name, frame.epoch)
                        self._environments.run(stream, body, frame.payload)
                    else:
                        self._apply([effect])
            case FrameType.PONG:
                self._proven(self._gateways[name])
            case FrameType.WANT:
                self._apply(parking.on_want(name, oldest_ms=body.oldest_ms, waiting=body.waiting, now=now))
            case FrameType.ENOUGH:
                self._apply(parking.on_enough(name, now))
            case FrameType.START:
                self._apply(parking.on_start(name, body.environment_ids, now))
            case FrameType.ASSIGN:
                self._assigned(name, body)
            case FrameType.RETIRE:
                self._apply(
                    parking.on_retire(name, stream, reason=body.reason, when_busy=body.when_busy, idle_ms=body.idle_ms, now=now)
                )
            case FrameType.LEAVING:
                self._apply(parking.on_leaving(name, now))
            case FrameType.WELCOME:
                logger.debug("gateway %s (%s) speaks version %d", name, body.gateway_id, body.version)
            case _:
                # A gateway has no business sending it; a newer one may have a reason.
                logger.debug("gateway %s sent %s, which is ignored", name, frame.type.name)

    def _assigned(self, name: str, assign: Assign) -> None:
        spec = msgspec.msgpack.decode(assign.spec, type=VersionSpec)
        if self._revision:
            if spec.revision != self._revision:
                logger.error("gateway %s assigned %s, but this supervisor runs %s", name, spec.revision, self._revision)
            return
        self._revision, self._spec, self._seal = spec.revision, bytes(assign.spec), assign.seal
        for address, gateway in self._gateways.items():
            link = gateway.dialler.link
            if address != name and link is not None:
                link.send(FrameType.ASSIGNED, Assigned(revision=self._revision, spec=self._spec, seal=self._seal))
        self._environments.assign(spec, assign.code)

    def _proven(self, gateway: _Gateway) -> None:
        link = gateway.dialler.link
        assert link is not None
        read = [stream for stream, unread in gateway.unread.items() if unread.proof <= link.answered]
        for stream in read:
            del gateway.unread[stream]
        gateway.unread_bytes = sum(len(unread.answer.payload) for unread in gateway.unread.values())

    def _log_outlet(self) -> Link | None:
        """The first gateway that is linked, if it has room for logs: one place is enough, and order is kept. One that leaves takes what
        it keeps with it, so it comes last."""
        linked = [(self._parking.leaves(name), gateway.dialler.link) for name, gateway in self._gateways.items()]
        link = next((link for leaves, link in sorted(linked, key=lambda each: each[0]) if link is not None), None)
        return link if link is not None and link.takes_logs else None

    # -- effects ------------------------------------------------------------------------------------------------------
    def _apply(self, wanted: list[Effect]) -> None:
        for effect in wanted:
            if isinstance(effect, effects.Send):
                self._send(effect)
            elif isinstance(effect, effects.SendResult):
                self._send_result(effect.gateway, effect.stream)
            elif isinstance(effect, effects.StartEnvironment):
                self._environments.start(effect.stream, effect.environment_id)
            elif isinstance(effect, effects.Stop):
                self._environments.stop(effect.stream, effect.reason)
            elif isinstance(effect, effects.DropResult):
                self._answers.pop(effect.stream, None)
            elif isinstance(effect, effects.SendHello):
                self._greet(effect)
            else:
                assert isinstance(effect, effects.End), effect
                self._end("retired")
        if self._linked != len(self._gateways):
            self._arm()

    def _send(self, effect: effects.Send) -> None:
        link = self._link(str(effect.to))
        if link is not None:
            body = effect.body
            if isinstance(body, EnvironmentStarted):
                body = msgspec.structs.replace(body, log_stream=self._logs.names.get(effect.stream, ""))
            link.send(effect.kind, body, stream=effect.stream, epoch=effect.epoch)

    def _arm(self) -> None:
        """Have ``on_tick`` called when Parking next has something to decide."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        at = self._parking.next_deadline()
        if at is not None:
            self._deadline = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._deadline = None
        self._apply(self._parking.on_tick(self._loop.time()))
