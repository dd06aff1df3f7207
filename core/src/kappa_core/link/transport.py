"""One connection of the link, as an asyncio protocol that both ends use: bytes in, whole messages out, and the reverse.

It owns what is the same on either side: cutting and joining payloads over CHUNK with a credit window per transfer, writing several
frames in one system call, the order of precedence on a slow connection (control frames, then payload data in turns, then logs),
heartbeats, and closing with one clear line when the peer breaks the protocol. Its user sees INVOKE and RESULT only when their
payload is complete; a streamed response is seen piece by piece by the sink that asked for it.

It refuses to decide anything about environments (that is parking and dispatch), to dial or listen, and to reconnect.

Transfers are keyed by (stream, epoch) as the sender wrote them in the header, so that the end of one response and the beginning of
the next may overlap on a stream. Every transfer starts with WINDOW bytes of credit. INVOKE is the head of its transfer and DATA
without MORE the end; RESULT is the end of its transfer. Without MORE the payload of a RESULT is none of the DATA before it: an error
that came up on the way, which a sink gets after its pieces and which takes the place of pieces that were being joined.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, cast

import msgspec

from kappa_core.link.frames import (
    CHUNK,
    DEAD_SECONDS,
    HEARTBEAT_SECONDS,
    WINDOW,
    Credit,
    Flag,
    Frame,
    FrameError,
    FrameReader,
    FrameType,
    Logs,
    encode,
)

logger = logging.getLogger("kappa.link")

MAX_PAYLOAD: Final = 64 * 1024 * 1024
"""Bytes of one joined payload; above every limit of the API, so only a broken peer reaches it."""
MAX_QUEUED: Final = 64 * 1024 * 1024
"""Bytes of control frames and small payloads held for a peer that does not read, before the link is closed."""
LOW_WATER: Final = CHUNK
"""A streaming sender is asked to wait above this many bytes not yet handed to the socket."""
_WRITE_BUFFER: Final = 2 * CHUNK
_LINE_COST: Final = 64
_MISSES: Final = round(DEAD_SECONDS / HEARTBEAT_SECONDS)

# As names of this module: looking up a member of an enum is Python code, and this is done for every frame.
_MORE: Final = int(Flag.MORE)
_DATA: Final = FrameType.DATA
_RESULT: Final = FrameType.RESULT
_PING: Final = FrameType.PING
_PONG: Final = FrameType.PONG
_CREDIT: Final = FrameType.CREDIT

Key = tuple[int, int]
Sink = Callable[[bytes], None]
"""Takes a piece of a streamed payload; whoever owns it calls :meth:`Link.grant` once it has been passed on."""


class Transfer:
    """The sending side of one payload, or of a streamed response, on its way in pieces."""

    __slots__ = (
        "_credit",
        "_ending",
        "_error",
        "_link",
        "_on_drain",
        "_on_sent",
        "_pieces",
        "epoch",
        "kind",
        "pending",
        "stream",
    )

    def __init__(
        self,
        link: Link,
        kind: FrameType,
        *,
        stream: int,
        epoch: int,
        on_drain: Callable[[], None] | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        self._link = link
        self.kind = kind
        self.stream = stream
        self.epoch = epoch
        self.pending = 0
        """Bytes accepted by :meth:`write` and not yet sent."""
        self._pieces: deque[memoryview] = deque()
        self._credit = WINDOW
        self._ending: msgspec.Struct | None = None
        self._error: bytes | None = None
        self._on_drain = on_drain
        self._on_sent = on_sent

    def write(self, data: bytes | memoryview) -> bool:
        """Queue a piece. False asks the caller to wait for ``on_drain`` before the next one."""
        if len(data):
            self._pieces.append(memoryview(data))
            self.pending += len(data)
            self._link._ready(self)
        return self.pending <= LOW_WATER

    def end(self, body: msgspec.Struct, payload: bytes = b"") -> None:
        """Finish a response: RESULT follows its last piece."""
        self.write(payload)
        self._ending = body
        self._link._ready(self)

    def fail(self, body: msgspec.Struct, error: bytes) -> None:
        """Finish a response that went wrong on the way: RESULT follows its last piece with ``error``, at most CHUNK bytes."""
        self._error = error
        self._ending = body
        self._link._ready(self)

    def cancel(self) -> None:
        """Send no more of it; the receiver is told otherwise (GONE)."""
        self._pieces.clear()
        self.pending = 0
        self._link._forget(self)

    def credited(self, size: int) -> None:
        self._credit += size
        self._link._ready(self)

    def sendable(self) -> bool:
        return self._credit > 0 if self._pieces else self._ending is not None

    @property
    def over(self) -> bool:
        """The last piece has been sent, or the link is lost: nothing written here leaves any more."""
        return self._link._transfers.get((self.stream, self.epoch)) is not self

    def next_frame(self) -> bytes:
        """The next frame to write; only after :meth:`sendable`. Forgets itself after the last."""
        piece = b""
        if self._pieces:
            head = self._pieces[0]
            size = min(len(head), CHUNK, self._credit)
            piece = bytes(head[:size])
            if size == len(head):
                self._pieces.popleft()
            else:
                self._pieces[0] = head[size:]
            self._credit -= size
            was_full = self.pending > LOW_WATER
            self.pending -= size
            if was_full and self.pending <= LOW_WATER and self._on_drain is not None:
                self._on_drain()
        if self._pieces or (self.kind is FrameType.RESULT and (self._ending is None or (piece and self._error is not None))):
            return encode(FrameType.DATA, stream=self.stream, epoch=self.epoch, payload=piece, flags=_MORE)
        self._link._forget(self)
        if self._on_sent is not None:
            self._link._loop.call_soon(self._on_sent)
        if self._ending is None:
            return encode(FrameType.DATA, stream=self.stream, epoch=self.epoch, payload=piece)
        if self._error is not None:
            return encode(self.kind, self._ending, stream=self.stream, epoch=self.epoch, payload=self._error)
        return encode(self.kind, self._ending, stream=self.stream, epoch=self.epoch, payload=piece, flags=_MORE)


class _Assembly:
    """The receiving side of one payload that came, or comes, in pieces."""

    __slots__ = ("credit", "head", "pieces", "size")

    def __init__(self, head: Frame | None) -> None:
        self.head = head
        self.pieces: list[bytes] = [] if head is None else [head.payload]
        self.size = sum(map(len, self.pieces))
        self.credit = 0


class Link(asyncio.Protocol):
    """See the module. ``on_lost`` is called exactly once, also when this end closes the link."""

    def __init__(
        self,
        *,
        on_frame: Callable[[Link, Frame], None],
        on_lost: Callable[[Link, str], None],
        on_made: Callable[[Link], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._on_made = on_made
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._reason = ""
        self._closing = False
        self._out: list[bytes] = []
        self._queued = 0
        self._transfers: dict[Key, Transfer] = {}
        self._turns: deque[Transfer] = deque()
        self._logs: deque[bytes] = deque()
        self._logs_credit = WINDOW
        self._logs_taken = 0
        self._scheduled = False
        self._paused = False
        self._assemblies: dict[Key, _Assembly] = {}
        self._sinks: dict[Key, Sink] = {}
        self._heard = True
        self._held = False
        self._misses = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pings = 0
        self._pongs = 0
        self.peer = ""
        """What the log lines of this link call the other end; set by the owner after the greeting."""

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        self._transport = transport
        self._timer = self._loop.call_later(HEARTBEAT_SECONDS, self._beat)
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for frame in self._reader.feed(data):
                if self._closing:
                    return
                kind = frame.type
                if frame.flags & _MORE or kind is _DATA or (kind is _RESULT and (self._sinks or self._assemblies)):
                    self._join(frame)
                elif kind is _PING:
                    self.send(FrameType.PONG)
                elif kind is _CREDIT:
                    self._credited(frame)
                else:
                    if kind is _PONG:
                        self._pongs += 1
                    self._on_frame(self, frame)
        except FrameError as error:
            logger.warning("link to %s closed: it broke the protocol: %s", self.peer or "an unknown peer", error)
            self.close(f"protocol error: {error}")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._closing = True
        self._transport = None
        self._out.clear()
        self._transfers.clear()
        self._turns.clear()
        self._assemblies.clear()
        self._sinks.clear()
        self._on_lost(self, self._reason or (str(exc) if exc is not None else "closed by the peer"))

    # -- sending ------------------------------------------------------------------------------------------------------
    def send(
        self, kind: FrameType, body: msgspec.Struct | None = None, *, stream: int = 0, epoch: int = 0, payload: bytes = b""
    ) -> None:
        """Send a frame; a payload over CHUNK (INVOKE, RESULT) is cut and sent as credit comes. Dropped once the link is closing."""
        if self._closing:
            return
        if len(payload) > CHUNK:
            assert body is not None
            self._send_long(kind, body, stream=stream, epoch=epoch, payload=payload)
            return
        data = encode(kind, body, stream=stream, epoch=epoch, payload=payload)
        self._out.append(data)
        self._queued += len(data)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _send_long(self, kind: FrameType, body: msgspec.Struct, *, stream: int, epoch: int, payload: bytes) -> None:
        transfer = self.transfer(kind, stream=stream, epoch=epoch)
        if kind is FrameType.INVOKE:
            head = encode(kind, body, stream=stream, epoch=epoch, payload=payload[:CHUNK], flags=_MORE)
            self._out.append(head)
            self._queued += len(head)
            transfer.write(memoryview(payload)[CHUNK:])
        else:
            transfer.end(body, payload)

    def transfer(
        self,
        kind: FrameType,
        *,
        stream: int,
        epoch: int,
        on_drain: Callable[[], None] | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> Transfer:
        """Begin a payload in pieces: write them as they come, then ``end`` or ``fail``. ``on_drain`` is called when a writer that
        was asked to wait may go on, ``on_sent`` once the last frame was handed to the socket; neither after the link is lost."""
        transfer = Transfer(self, kind, stream=stream, epoch=epoch, on_drain=on_drain, on_sent=on_sent)
        self._transfers[(stream, epoch)] = transfer
        return transfer

    @property
    def takes_logs(self) -> bool:
        """Whether a batch of logs may be sent: none waits here, and the receiver has room."""
        return not self._logs and self._logs_credit > 0 and not self._closing and self._transport is not None

    def send_logs(self, logs: Logs) -> None:
        """Send a batch of log lines when nothing else waits. Only while :attr:`takes_logs`."""
        self._logs_credit -= _log_cost(logs)
        self._logs.append(encode(FrameType.LOGS, logs))
        self._schedule()

    def logs_taken(self, logs: Logs) -> None:
        """The receiver of a batch of LOGS has found a place for it."""
        self._logs_taken += _log_cost(logs)
        if self._logs_taken >= WINDOW // 2:
            self.send(FrameType.CREDIT, Credit(bytes=self._logs_taken))
            self._logs_taken = 0

    def drop(self, stream: int) -> None:
        """Forget what is under way on a stream whose environment has ended."""
        for key in [key for key in self._transfers if key[0] == stream]:
            self._forget(self._transfers[key])
        for key in [key for key in self._assemblies if key[0] == stream]:
            del self._assemblies[key]
        for key in [key for key in self._sinks if key[0] == stream]:
            del self._sinks[key]

    def ping(self) -> int:
        """Send a PING and return its number; once :attr:`answered` has reached it the peer has read all that was sent before."""
        self._pings += 1
        self.send(FrameType.PING)
        return self._pings

    @property
    def next_ping(self) -> int:
        """Number that the next PING will have."""
        return self._pings + 1

    @property
    def answered(self) -> int:
        """Number of the last PING that was answered."""
        return self._pongs

    @property
    def connected(self) -> bool:
        return self._transport is not None and not self._closing

    def hold(self) -> None:
        """Leave what comes in the socket until :meth:`let_go`; what has been read already is still handed out."""
        self._held = True
        if self._transport is not None and not self._closing:
            self._transport.pause_reading()

    def let_go(self) -> None:
        """Read again."""
        self._held = False
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()

    def close(self, reason: str) -> None:
        """Close without waiting for a peer that may not read; what was sent before and fits the socket still leaves."""
        if self._closing or self._transport is None:
            return
        self._flush()
        self._closing = True
        self._reason = reason
        if self._paused:
            self._transport.abort()
        else:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""
        if self._transport is None:
            return
        self._closing = True
        self._reason = self._reason or reason
        self._transport.abort()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _ready(self, transfer: Transfer) -> None:
        if transfer not in self._turns and self._transfers.get((transfer.stream, transfer.epoch)) is transfer:
            self._turns.append(transfer)
            self._schedule()

    def _forget(self, transfer: Transfer) -> None:
        if self._transfers.get((transfer.stream, transfer.epoch)) is transfer:
            del self._transfers[(transfer.stream, transfer.epoch)]

    def _flush(self) -> None:
        self._scheduled = False
        transport = self._transport
        if transport is None or self._closing:
            return
        if self._paused:
            if self._queued > MAX_QUEUED:
                logger.warning("link to %s closed: it does not read", self.peer or "an unknown peer")
                self.abort("the peer does not read")
            return
        out = self._out
        if out:
            self._out = []
            self._queued = 0
            transport.write(out[0] if len(out) == 1 else b"".join(out))
        while self._turns and not self._paused:
            transfer = self._turns.popleft()
            if transfer.sendable():
                transport.write(transfer.next_frame())
                if transfer.sendable() and not transfer.over and transfer not in self._turns:
                    self._turns.append(transfer)
            if self._out:
                # A control frame that came up meanwhile goes before the next piece of data.
                self._flush()
                return
        if self._logs and not self._paused:
            transport.write(self._logs.popleft())

    # -- receiving ----------------------------------------------------------------------------------------------------
    def _credited(self, frame: Frame) -> None:
        if frame.stream == 0:
            self._logs_credit += frame.body.bytes
            return
        transfer = self._transfers.get((frame.stream, frame.epoch))
        if transfer is not None:
            transfer.credited(frame.body.bytes)

    def stream_into(self, stream: int, *, epoch: int, sink: Sink) -> None:
        """Hand the pieces of this response to ``sink`` as they come, instead of joining them. Ends with its RESULT."""
        self._sinks[(stream, epoch)] = sink

    def stream_nowhere(self, stream: int, *, epoch: int) -> None:
        """Forget a sink whose response will not come."""
        self._sinks.pop((stream, epoch), None)

    def grant(self, stream: int, *, epoch: int, size: int) -> None:
        """``size`` bytes given to a sink have been passed on."""
        assembly = self._assemblies.get((stream, epoch))
        if assembly is not None:
            self._give_credit(stream, epoch, assembly, size)

    def _give_credit(self, stream: int, epoch: int, assembly: _Assembly, size: int) -> None:
        assembly.credit += size
        if assembly.credit >= WINDOW // 2:
            self.send(FrameType.CREDIT, Credit(bytes=assembly.credit), stream=stream, epoch=epoch)
            assembly.credit = 0

    def _join(self, frame: Frame) -> None:
        key = (frame.stream, frame.epoch)
        if frame.type is FrameType.RESULT:
            assembly = self._assemblies.pop(key, None)
            sink = self._sinks.pop(key, None)
            if assembly is None or not frame.flags & _MORE:
                self._on_frame(self, frame)
            elif sink is not None:
                if frame.payload:
                    sink(frame.payload)
                self._on_frame(self, _with_payload(frame, b""))
            else:
                assembly.pieces.append(frame.payload)
                self._on_frame(self, _with_payload(frame, b"".join(assembly.pieces)))
        elif frame.type is FrameType.INVOKE:
            self._assemblies[key] = _Assembly(frame)
        elif frame.type is FrameType.DATA:
            self._piece(key, frame)
        else:
            raise FrameError(f"{frame.type.name} cannot be cut")

    def _piece(self, key: Key, frame: Frame) -> None:
        assembly = self._assemblies.get(key)
        if assembly is None:
            assembly = self._assemblies[key] = _Assembly(None)
        size = len(frame.payload)
        sink = self._sinks.get(key)
        if sink is not None:
            sink(frame.payload)
            return
        assembly.pieces.append(frame.payload)
        assembly.size += size
        if assembly.size > MAX_PAYLOAD:
            raise FrameError(f"payload over {MAX_PAYLOAD} bytes")
        if frame.flags & _MORE:
            self._give_credit(frame.stream, frame.epoch, assembly, size)
        elif assembly.head is None:
            raise FrameError("DATA ends what nothing began")
        else:
            del self._assemblies[key]
            self._on_frame(self, _with_payload(assembly.head, b"".join(assembly.pieces)))

    def _beat(self) -> None:
        # Beats are counted, not seconds: a process that was stopped or swapped out for a minute must not take the peer for dead.
        self._misses = 0 if self._heard or self._held else self._misses + 1
        self._heard = False
        if self._misses >= _MISSES:
            logger.warning("link to %s closed: nothing heard for %g s", self.peer or "an unknown peer", DEAD_SECONDS)
            self._timer = None
            self.abort("no heartbeat")
            return
        self._timer = self._loop.call_later(HEARTBEAT_SECONDS, self._beat)
        self.ping()


def _log_cost(logs: Logs) -> int:
    """What a batch takes of the credit for logs; both ends count alike."""
    return sum(len(line.message) + _LINE_COST for line in logs.lines)


def _with_payload(frame: Frame, payload: bytes) -> Frame:
    return Frame(frame.type, frame.stream, frame.epoch, frame.body, payload, 0)
