"""The link's transport against a twin of itself over an in-memory pipe: cutting, credit, precedence, heartbeats, broken peers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kappa_core.link import frames
from kappa_core.link.frames import CHUNK, WINDOW, Frame, FrameType
from kappa_core.link.transport import LOW_WATER, Link


class Pipe(asyncio.Transport):
    """Delivers what one link writes to the other, one write at a time, and records it. ``blocked`` acts as a full socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.target: Link | None = None
        self.owner: Link | None = None
        self.written: list[bytes] = []
        self.blocked = False
        self.closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        if self.target is not None:
            self.loop.call_soon(self.target.data_received, bytes(data))

    def block(self, *, blocked: bool) -> None:
        assert self.owner is not None
        if blocked:
            self.owner.pause_writing()
        else:
            self.owner.resume_writing()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.owner is not None
            self.loop.call_soon(self.owner.connection_lost, None)

    abort = close


class End:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost: list[str] = []
        self.link = Link(on_frame=lambda _, frame: self.frames.append(frame), on_lost=lambda _, reason: self.lost.append(reason))
        self.pipe = Pipe(asyncio.get_running_loop())
        self.pipe.owner = self.link

    def of(self, kind: FrameType) -> list[Frame]:
        return [frame for frame in self.frames if frame.type is kind]


def pair() -> tuple[End, End]:
    left, right = End(), End()
    left.pipe.target, right.pipe.target = right.link, left.link
    for end in (left, right):
        end.link.connection_made(end.pipe)
    return left, right


async def settle() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


INVOKE = frames.Invoke(request_id="r1", function_arn="arn")
RESULT = frames.Result(request_id="r1")


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK, 6 * 1024 * 1024 + 100])
def test_a_payload_of_any_size_arrives_whole_in_both_directions(size: int) -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        payload = bytes(range(256)) * (size // 256 + 1)
        payload = payload[:size]
        gateway.link.send(FrameType.INVOKE, INVOKE, stream=3, epoch=7, payload=payload)
        await settle()
        (invoke,) = supervisor.of(FrameType.INVOKE)
        assert (invoke.stream, invoke.epoch, invoke.body, invoke.payload) == (3, 7, INVOKE, payload)
        supervisor.link.send(FrameType.RESULT, RESULT, stream=3, epoch=8, payload=invoke.payload)
        await settle()
        (result,) = gateway.of(FrameType.RESULT)
        assert (result.stream, result.epoch, result.body, result.payload) == (3, 8, RESULT, payload)

    run(scenario)


def test_frames_of_one_tick_leave_in_one_write() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        for stream in range(1, 6):
            gateway.link.send(FrameType.INVOKE, INVOKE, stream=stream, epoch=1, payload=b"{}")
        await settle()
        assert len(gateway.pipe.written) == 1
        assert [frame.stream for frame in supervisor.frames] == [1, 2, 3, 4, 5]

    run(scenario)


def test_a_streaming_sender_stops_at_the_window_until_the_receiver_passed_data_on() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        taken: list[bytes] = []
        drained: list[bool] = []
        gateway.link.stream_into(1, epoch=2, sink=taken.append)
        transfer = supervisor.link.transfer(FrameType.RESULT, stream=1, epoch=2, on_drain=lambda: drained.append(True))
        accepted = [transfer.write(b"x" * CHUNK) for _ in range(8)]
        await settle()
        assert sum(map(len, taken)) == WINDOW
        assert accepted[-1] is False
        assert transfer.pending == 8 * CHUNK - WINDOW > LOW_WATER
        gateway.link.grant(1, epoch=2, size=WINDOW)
        await settle()
        assert sum(map(len, taken)) == 8 * CHUNK
        assert drained == [True]
        transfer.end(RESULT)
        await settle()
        (result,) = gateway.of(FrameType.RESULT)
        assert result.payload == b""

    run(scenario)


def test_an_error_on_the_way_takes_the_place_of_pieces_that_were_to_be_joined() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        transfer = supervisor.link.transfer(FrameType.RESULT, stream=1, epoch=2)
        transfer.write(b"half of an answ")
        await settle()
        transfer.fail(frames.Result(request_id="r1", function_error="Unhandled"), b'{"errorMessage":"died"}')
        await settle()
        (result,) = gateway.of(FrameType.RESULT)
        assert result.payload == b'{"errorMessage":"died"}'

    run(scenario)


def test_an_error_on_the_way_reaches_a_sink_after_every_piece_and_apart_from_them() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        taken: list[bytes] = []
        gateway.link.stream_into(1, epoch=2, sink=taken.append)
        transfer = supervisor.link.transfer(FrameType.RESULT, stream=1, epoch=2)
        transfer.write(b"x" * 5 * CHUNK)
        transfer.fail(frames.Result(request_id="r1", function_error="Unhandled"), b'{"errorMessage":"died"}')
        await settle()
        assert sum(map(len, taken)) == WINDOW
        assert gateway.of(FrameType.RESULT) == []
        gateway.link.grant(1, epoch=2, size=WINDOW)
        await settle()
        (result,) = gateway.of(FrameType.RESULT)
        assert (b"".join(taken), result.payload) == (b"x" * 5 * CHUNK, b'{"errorMessage":"died"}')
        assert transfer.over

    run(scenario)


def test_the_end_of_one_response_and_the_next_one_may_overlap_on_a_stream() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        supervisor.link.send(FrameType.RESULT, frames.Result(request_id="long"), stream=1, epoch=2, payload=b"a" * 5 * CHUNK)
        supervisor.link.send(FrameType.PARKED, frames.Parked(), stream=1, epoch=3)
        supervisor.link.send(FrameType.RESULT, frames.Result(request_id="next"), stream=1, epoch=4, payload=b"b")
        await settle()
        results = {frame.body.request_id: frame.payload for frame in gateway.of(FrameType.RESULT)}
        assert results == {"long": b"a" * 5 * CHUNK, "next": b"b"}

    run(scenario)


def test_control_frames_overtake_payloads_and_logs_wait_for_both() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        supervisor.pipe.block(blocked=True)
        line = frames.LogLine(stream=1, timestamp_ms=1, request_id="r1", message="hello")
        supervisor.link.send_logs(frames.Logs(lines=[line]))
        supervisor.link.send(FrameType.RESULT, RESULT, stream=1, epoch=2, payload=b"a" * 2 * CHUNK)
        supervisor.link.send(FrameType.PARKED, frames.Parked(), stream=2, epoch=5)
        await settle()
        assert supervisor.pipe.written == []
        supervisor.pipe.block(blocked=False)
        await settle()
        assert [frame.type for frame in gateway.frames] == [FrameType.PARKED, FrameType.RESULT, FrameType.LOGS]

    run(scenario)


def test_log_batches_are_refused_until_the_receiver_has_room_again() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        line = frames.LogLine(stream=1, timestamp_ms=1, request_id="r1", message="y" * (CHUNK - 100))
        while supervisor.link.takes_logs:
            supervisor.link.send_logs(frames.Logs(lines=[line]))
            await settle()
        received = [frame.body for frame in gateway.of(FrameType.LOGS)]
        assert len(received) == WINDOW // CHUNK + 1
        for logs in received:
            gateway.link.logs_taken(logs)
        await settle()
        assert supervisor.link.takes_logs

    run(scenario)


def test_credit_for_logs_does_not_leak_however_many_batches_are_sent() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        lines = [frames.LogLine(stream=1, timestamp_ms=1, request_id="r1", message="z" * size) for size in range(0, 1200, 2)]
        for _ in range(5):
            assert supervisor.link.takes_logs
            supervisor.link.send_logs(frames.Logs(lines=lines))
            await settle()
            gateway.link.logs_taken(gateway.of(FrameType.LOGS)[-1].body)
            await settle()

    run(scenario)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", id="http"),
        pytest.param(frames.HEADER.pack(3, 13, 0, 0, 0, 0), id="shorter than a header"),
        pytest.param(frames.HEADER.pack(12 + 3, FrameType.RESULT, 0, 0, 1, 1) + b"\xff\xff\xff", id="truncated struct"),
        pytest.param(frames.encode(FrameType.PARKED, frames.Parked(), flags=frames.Flag.MORE), id="cut control frame"),
        pytest.param(frames.encode(FrameType.DATA, stream=1, epoch=1, payload=b"x"), id="end without a beginning"),
    ],
)
def test_a_peer_that_breaks_the_protocol_loses_the_link_with_one_log_line(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        gateway, _ = pair()
        gateway.link.data_received(data)
        await settle()
        assert gateway.pipe.closed
        assert len(gateway.lost) == 1
        assert gateway.lost[0].startswith("protocol error")
        assert gateway.frames == []

    run(scenario)
    assert len([record for record in caplog.records if "broke the protocol" in record.getMessage()]) == 1


def test_a_ping_is_answered_after_everything_that_was_sent_before_it() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        supervisor.link.send(FrameType.RESULT, RESULT, stream=1, epoch=2, payload=b"{}")
        number = supervisor.link.ping()
        assert supervisor.link.answered < number
        await settle()
        assert supervisor.link.answered == number
        assert len(gateway.of(FrameType.RESULT)) == 1

    run(scenario)


def test_three_silent_beats_end_the_link_and_a_heard_one_starts_the_count_again() -> None:
    async def scenario() -> None:
        end = End()
        end.link.connection_made(end.pipe)
        for _ in range(3):
            end.link._beat()
        assert not end.lost  # the first beat counts as heard: the connection has just been made
        end.link.data_received(frames.encode(FrameType.PONG))
        for _ in range(3):
            end.link._beat()
        assert end.link.connected
        end.link._beat()
        await settle()
        assert end.lost == ["no heartbeat"]

    run(scenario)


def test_a_closing_link_sends_nothing_more_and_reports_its_loss_once() -> None:
    async def scenario() -> None:
        gateway, _ = pair()
        gateway.link.close("done")
        gateway.link.close("twice")
        gateway.link.send(FrameType.ENOUGH, stream=1)
        await settle()
        assert gateway.pipe.written == []
        assert gateway.lost == ["done"]

    run(scenario)


def test_forgetting_a_stream_leaves_no_half_payload_behind() -> None:
    async def scenario() -> None:
        gateway, supervisor = pair()
        supervisor.pipe.block(blocked=True)
        supervisor.link.send(FrameType.RESULT, RESULT, stream=1, epoch=2, payload=b"a" * 3 * CHUNK)
        supervisor.link.drop(1)
        supervisor.link.send(FrameType.GONE, frames.Gone(environment_id="e", reason="died", request_id="r1"), stream=1)
        supervisor.pipe.block(blocked=False)
        await settle()
        assert [frame.type for frame in gateway.frames] == [FrameType.GONE]

    run(scenario)
