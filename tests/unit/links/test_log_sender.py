"""Log lines on their way: batches, bounds, what is dropped is counted."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from kappa_core.link.frames import CHUNK, MAX_FRAME, LogLine, Logs
from kappa_core.link.transport import Link
from kappa_runtime.link import logs
from kappa_runtime.link.logs import LogSender


class Outlet(Link):
    """Takes batches while it has room."""

    def __init__(self, *, room: int) -> None:
        super().__init__(on_frame=lambda *_: None, on_lost=lambda *_: None)
        self.room = room
        self.batches: list[Logs] = []

    @property
    def takes_logs(self) -> bool:
        return len(self.batches) < self.room

    def send_logs(self, logs: Logs) -> None:
        self.batches.append(logs)


def line(message: str, stream: int = 1) -> LogLine:
    return LogLine(stream=stream, timestamp_ms=1, request_id="r", message=message)


async def drain(sender: LogSender) -> None:
    """Let every timer of the sender that is due now run."""
    for _ in range(100):
        await asyncio.sleep(0)


def sender_to(outlet: Outlet, monkeypatch: pytest.MonkeyPatch) -> LogSender:
    monkeypatch.setattr(logs, "GATHER_SECONDS", 0)
    return LogSender(outlet=lambda: outlet if outlet.takes_logs else None)


def test_lines_of_a_moment_leave_in_one_batch_in_order_and_with_their_log_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        outlet = Outlet(room=10)
        sender = sender_to(outlet, monkeypatch)
        sender.names = {1: "one", 2: "two", 3: "unused"}
        for number in range(5):
            sender.add(line(str(number), stream=1 + number % 2))
        await drain(sender)
        (batch,) = outlet.batches
        assert [each.message for each in batch.lines] == ["0", "1", "2", "3", "4"]
        assert batch.names == {1: "one", 2: "two"}
        assert not sender.pending

    asyncio.run(scenario())


@pytest.mark.parametrize("message", ["x" * 300_000, "🦔" * 300_000, "ä" * 131_000], ids=["ascii", "four bytes", "two bytes"])
def test_no_line_and_no_batch_is_longer_than_a_frame_may_be(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        outlet = Outlet(room=100)
        sender = sender_to(outlet, monkeypatch)
        for _ in range(4):
            sender.add(line(message))
        await drain(sender)
        assert sum(len(batch.lines) for batch in outlet.batches) == 4
        assert max(len(msgspec.msgpack.encode(batch)) for batch in outlet.batches) <= CHUNK + 1000 < MAX_FRAME

    asyncio.run(scenario())


def test_what_does_not_fit_is_dropped_and_the_next_batch_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(logs, "PENDING_BYTES", 1000)
        outlet = Outlet(room=0)
        sender = sender_to(outlet, monkeypatch)
        for _ in range(100):
            sender.add(line("x" * 36))  # counts as 100 bytes
        await drain(sender)
        assert outlet.batches == []
        outlet.room = 1
        await drain(sender)
        assert (len(outlet.batches[0].lines), outlet.batches[0].dropped) == (10, 90)
        sender.close()

    asyncio.run(scenario())
