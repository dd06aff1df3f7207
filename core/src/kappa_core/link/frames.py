"""Frames of the link and their codec. Used by both ends; the hot path of every invocation runs through here.

A frame is a 16-byte header and a body:

    u32 length of what follows the length field | u8 type | u8 flags | u16 reserved (0) | u32 stream | u32 epoch | body

``stream`` numbers an environment within its link (chosen by the supervisor, from 1); 0 is the link itself. ``epoch`` is the
environment's, see :mod:`kappa_core.link.parking`. The body is the msgpack of the type's struct, followed for INVOKE and RESULT by
the payload: ``u32 length of the struct | struct | payload``. Payloads over ``CHUNK`` are cut: INVOKE or RESULT comes with the flag
MORE and is preceded (RESULT) or followed (INVOKE) by DATA frames of at most CHUNK bytes, for which the receiver grants CREDIT. What
streams (a streamed response) is DATA as it comes, then RESULT. LOGS is sent only when nothing else is waiting to be sent.

Unknown struct fields are ignored and new fields have defaults, so that a gateway speaks version N and N-1.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

PROTOCOL_VERSION: Final = 1
OLDEST_VERSION: Final = 1
HEADER: Final = struct.Struct(">IBBHII")
_U32: Final = struct.Struct(">I")
CHUNK: Final = 256 * 1024
WINDOW: Final = 4 * CHUNK
"""Bytes of DATA a sender may have under way per stream and direction without CREDIT."""
MAX_FRAME: Final = 1024 * 1024
CODE_ALONG: Final = CHUNK
"""Bytes of an archive that may come with ASSIGN."""

HEARTBEAT_SECONDS: Final = 1.0
DEAD_SECONDS: Final = 3.0
RESUME_SECONDS: Final = 2.0
"""How long either side waits for a lost link to come back before what runs on it counts as lost."""


class FrameError(Exception):
    """The peer sent what no version of this protocol sends; the link is closed."""


class Flag(enum.IntFlag):
    NONE = 0
    MORE = 1
    """DATA frames belong to this INVOKE or RESULT."""


class FrameType(enum.IntEnum):
    # both directions
    PING = 1
    PONG = 2
    DATA = 3
    CREDIT = 4
    # supervisor → gateway
    HELLO = 10
    ENVIRONMENT = 11
    PARKED = 12
    UNPARKED = 13
    REFUSED = 14
    RESULT = 15
    GONE = 16
    DRAINING = 17
    LOGS = 18
    ASSIGNED = 19
    # gateway → supervisor
    WELCOME = 30
    ASSIGN = 31
    START = 32
    INVOKE = 33
    WANT = 34
    ENOUGH = 35
    RETIRE = 36
    LEAVING = 37
    # gateway → gateway that holds the scaler
    PEER_HELLO = 50
    DEMAND = 51
    COLLECTED = 52
    SPEC = 53
    # scaler's gateway → gateway
    COLLECT = 60
    DENY = 61


class EnvironmentState(msgspec.Struct, frozen=True):
    """What a supervisor says of one of its environments in HELLO."""

    stream: int
    environment_id: str
    epoch: int
    state: str
    """``init``, ``idle``, ``busy``, ``draining``, or ``gone`` when only its last result is still to be sent."""
    parked_here: bool
    request_id: str = ""
    """The invocation that runs, or whose result still waits to be sent, on behalf of the gateway that is greeted."""
    accepted: int = 0
    """The epoch that the last accepted INVOKE of the greeted gateway named. What it dispatched with a higher one has not run and
    will not; with this or a lower one, it has."""


class Hello(msgspec.Struct, frozen=True):
    supervisor_id: str
    oldest: int
    newest: int
    revision: str
    """Of the version it runs; empty while it is a spare."""
    pid: int
    environments: list[EnvironmentState]
    spare_for: str = ""
    """A spare's interpreter key; see the ProcessProvider."""
    token: str = ""
    spec: bytes = b""
    """The VersionSpec it runs, in msgpack: a gateway that has just started may not have seen this revision."""
    seal: bytes = b""
    """Came with the spec in ASSIGN."""
    dial: int = 0
    """Counts the supervisor's connections to this gateway. A HELLO with a lower one than the current link's came late: refuse it."""
    log_streams: dict[int, str] = {}
    """Names of the log streams of its environments, by stream."""


class Welcome(msgspec.Struct, frozen=True):
    gateway_id: str
    version: int


class EnvironmentStarted(msgspec.Struct, frozen=True):
    """ENVIRONMENT: an environment is there, sent on every link when its init begins and again when it first is ready."""

    environment_id: str
    state: str = "init"
    """``init`` or ``ready``."""
    log_stream: str = ""
    """Its name, once it is ready."""


class Parked(msgspec.Struct, frozen=True):
    """PARKED (header: the new epoch): idle and dispatchable from this gateway only, until UNPARKED, GONE or DRAINING."""

    idle_ms: int = 0
    """How long it has been idle already (a move keeps the clock running)."""


class Refused(msgspec.Struct, frozen=True):
    """REFUSED: the INVOKE was not accepted and nothing has run; or, without a request id, a RETIRE was not obeyed."""

    request_id: str
    reason: str
    """``stale``, ``draining`` or ``unknown``; for a RETIRE ``busy``, ``fresh`` (not idle for long enough) or ``unknown``."""
    idle_ms: int = 0
    """With ``fresh``: how long it has been idle."""


class Result(msgspec.Struct, frozen=True):
    """RESULT: the end of an invocation, with its payload (or after its DATA)."""

    request_id: str
    function_error: str = ""
    """Empty, or ``Unhandled``: value of X-Amz-Function-Error."""
    error_type: str = ""
    """The platform's word for metrics and logs, such as ``Sandbox.Timedout``."""
    content_type: str = "application/json"
    duration_ms: float = 0.0
    billed_ms: int = 0
    init_ms: float = 0.0
    """Of the init that this invocation waited for; 0 on a warm one."""
    max_memory_mb: int = 0
    log_tail: bytes = b""
    """The last 4 KiB of the invocation's log, where asked for."""


class Gone(msgspec.Struct, frozen=True):
    """GONE: the environment has ended; its stream number is never used again on this link."""

    environment_id: str
    reason: str
    """For people and conditions."""
    request_id: str = ""
    """What it was running; that invocation has no RESULT and is lost."""


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    stream: int
    timestamp_ms: int
    request_id: str
    message: str


class Logs(msgspec.Struct, frozen=True):
    lines: list[LogLine]
    dropped: int = 0
    """Lines that were dropped for want of room since the last LOGS."""
    names: dict[int, str] = {}
    """Log stream names of the environments that speak in it, by stream."""


class Assign(msgspec.Struct, frozen=True):
    """ASSIGN: makes a spare the supervisor of one function revision. Body: msgpack of kappa_core.spec.VersionSpec."""

    spec: msgspec.Raw
    seal: bytes = b""
    """Shown wherever the supervisor hands the spec on; proves that a gateway made it. Empty where nobody asks for that."""
    code: bytes = b""
    """The archive that ``spec.code`` names, where it has at most CODE_ALONG bytes: it is here before a pod could ask for it. Empty: to
    be fetched by its link."""


class Assigned(msgspec.Struct, frozen=True):
    """ASSIGNED: another gateway made this spare the supervisor of a revision; comes before any ENVIRONMENT of it."""

    revision: str
    spec: bytes
    """As in HELLO."""
    seal: bytes = b""


class Start(msgspec.Struct, frozen=True):
    """START: begin these environments."""

    environment_ids: list[str]


class Invoke(msgspec.Struct, frozen=True):
    """INVOKE (header: the epoch of the PARKED it relies on): run this event."""

    request_id: str
    function_arn: str
    """As invoked, with the qualifier if one was given."""
    trace_id: str = ""
    client_context: str = ""
    """Decoded JSON."""
    cognito_identity: str = ""
    tenant_id: str = ""
    tail: bool = False
    """Send ``log_tail``."""
    streaming: bool = False
    """The caller takes the response as it comes."""


class Want(msgspec.Struct, frozen=True):
    """WANT: this gateway has waiters and nothing parked."""

    oldest_ms: int
    """Age of the oldest waiter."""
    waiting: int = 1
    """How many environments could be used; one supervisor moves at most so many."""


class Retire(msgspec.Struct, frozen=True):
    """RETIRE. Stream 0: every environment of the supervisor, and the supervisor itself when the last is gone."""

    reason: str
    when_busy: str = "refuse"
    """``refuse``: leave a busy one alone; ``finish``: it drains after what it runs."""
    idle_ms: int = 0
    """Retire only if idle for at least this long."""


class PeerHello(msgspec.Struct, frozen=True):
    gateway_id: str
    oldest: int
    newest: int
    token: str = ""


class Demand(msgspec.Struct, frozen=True):
    """DEMAND: the whole state of one version at one gateway; replaces the previous one."""

    revision: str
    function_key: str
    waiting: int
    oldest_ms: int
    in_flight: int
    sequence: int
    run_us: int = 0
    """How long an invocation holds an environment here, in microseconds; 0: none has ended yet."""
    rest_us: int = 0
    """How long one that runs is expected to go on, in microseconds."""


class PeerSpec(msgspec.Struct, frozen=True):
    """SPEC: what a revision is and what its function may use; once per connection, before the first DEMAND of the revision."""

    function_key: str
    reserved: int | None
    spec: bytes
    """VersionSpec in msgpack."""


class Collect(msgspec.Struct, frozen=True):
    """COLLECT: name what is in flight here for this function, now. Two equal collections prove that all were busy at once."""

    function_key: str
    """Empty: of every function."""
    number: int


class Collected(msgspec.Struct, frozen=True):
    function_key: str
    number: int
    busy: list[tuple[str, int]]
    """(environment id, epoch) of what is in flight."""
    idle: list[tuple[str, int]] = []
    """(environment id, epoch) of what is parked here."""
    waiting: dict[str, int] = {}
    """Revision → waiters at this instant: newer than the last DEMAND, from which some may be in flight by now."""


class Deny(msgspec.Struct, frozen=True):
    """DENY: no environment may be started for waiters up to this sequence of DEMAND."""

    revision: str
    sequence: int
    count: int
    """At most so many of them, the youngest first."""
    reason: str
    """A ThrottleReason for 429; otherwise ``capacity: …``, which becomes 503."""


class Empty(msgspec.Struct, frozen=True):
    """PING, PONG, UNPARKED, DRAINING, ENOUGH, LEAVING."""


class Credit(msgspec.Struct, frozen=True):
    bytes: int


BODIES: Final[dict[FrameType, type[msgspec.Struct]]] = {
    FrameType.PING: Empty,
    FrameType.PONG: Empty,
    FrameType.CREDIT: Credit,
    FrameType.HELLO: Hello,
    FrameType.ENVIRONMENT: EnvironmentStarted,
    FrameType.PARKED: Parked,
    FrameType.UNPARKED: Empty,
    FrameType.REFUSED: Refused,
    FrameType.RESULT: Result,
    FrameType.GONE: Gone,
    FrameType.DRAINING: Empty,
    FrameType.LOGS: Logs,
    FrameType.ASSIGNED: Assigned,
    FrameType.WELCOME: Welcome,
    FrameType.ASSIGN: Assign,
    FrameType.START: Start,
    FrameType.INVOKE: Invoke,
    FrameType.WANT: Want,
    FrameType.ENOUGH: Empty,
    FrameType.RETIRE: Retire,
    FrameType.LEAVING: Empty,
    FrameType.PEER_HELLO: PeerHello,
    FrameType.DEMAND: Demand,
    FrameType.COLLECT: Collect,
    FrameType.COLLECTED: Collected,
    FrameType.DENY: Deny,
    FrameType.SPEC: PeerSpec,
}

_encode: Final = msgspec.msgpack.Encoder().encode
# By number and as names of this module: hashing and looking up members of an enum is Python code, and this runs for every frame.
_KINDS: Final[dict[int, tuple[FrameType, Callable[[bytes], Any] | None]]] = {
    int(kind): (kind, msgspec.msgpack.Decoder(BODIES[kind]).decode if kind in BODIES else None) for kind in FrameType
}
_DATA: Final = FrameType.DATA
_INVOKE: Final = FrameType.INVOKE
_RESULT: Final = FrameType.RESULT
_EMPTY: Final = Empty()


class Frame(msgspec.Struct, frozen=True):
    """A decoded frame. ``body`` is None for DATA, whose bytes are ``payload``."""

    type: FrameType
    stream: int = 0
    epoch: int = 0
    body: Any = _EMPTY
    payload: bytes = b""
    flags: int = 0


def encode(
    kind: FrameType, body: msgspec.Struct | None = None, *, stream: int = 0, epoch: int = 0, payload: bytes = b"", flags: int = 0
) -> bytes:
    """One frame as bytes. Payloads over CHUNK are the sender's to cut."""
    if kind is _DATA:
        return HEADER.pack(12 + len(payload), kind, flags, 0, stream, epoch) + payload
    packed = _encode(_EMPTY if body is None else body)
    if kind is _RESULT or kind is _INVOKE:
        size = 16 + len(packed) + len(payload)
        return b"".join((HEADER.pack(size, kind, flags, 0, stream, epoch), _U32.pack(len(packed)), packed, payload))
    return HEADER.pack(12 + len(packed), kind, flags, 0, stream, epoch) + packed


class FrameReader:
    """Cuts a byte stream into frames. Feed it what arrives; it keeps what is incomplete."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield every frame that is complete with ``data``. Raises FrameError; the link is then to be closed."""
        buffer = self._buffer
        if buffer:
            buffer += data
            view = bytes(buffer)
        else:
            view = data
        position, size = 0, len(view)
        try:
            while size - position >= 16:
                length, number, flags, _, stream, epoch = HEADER.unpack_from(view, position)
                if length > MAX_FRAME or length < 12:
                    raise FrameError(f"frame of {length} bytes")
                end = position + 4 + length
                if end > size:
                    break
                start = position + 16
                position = end
                known = _KINDS.get(number)
                if known is None:
                    continue  # a newer peer's frame that this version does not know
                kind, decode = known
                if decode is None:
                    yield Frame(kind, stream, epoch, None, view[start:end], flags)
                elif kind is _RESULT or kind is _INVOKE:
                    (packed,) = _U32.unpack_from(view, start)
                    split = start + 4 + packed
                    if split > end:
                        raise FrameError("struct longer than its frame")
                    yield Frame(kind, stream, epoch, decode(view[start + 4 : split]), view[split:end], flags)
                else:
                    yield Frame(kind, stream, epoch, decode(view[start:end]), b"", flags)
        except (msgspec.DecodeError, struct.error) as error:
            raise FrameError(str(error)) from error
        finally:
            if buffer:
                del buffer[:position]
            elif position < size:
                buffer += view[position:]
