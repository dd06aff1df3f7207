"""Cutting what a runtime prints into lines, within a budget."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kappa_runtime.supervisor import log_capture
from kappa_runtime.supervisor.log_capture import BURST_BYTES, BYTES_PER_SECOND, EVENT_BYTES, LogBudget, LogCapture


class Pipe:
    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.now = 0.0
        self.lines: list[str] = []
        self.budget = LogBudget(0.0)
        self.capture = LogCapture(self.reading, budget=self.budget, clock=lambda: self.now, on_lines=self.lines.extend)

    def write(self, data: bytes) -> None:
        os.write(self.writing, data)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    os.close(made.reading)
    if made.writing >= 0:
        os.close(made.writing)


def test_lines_keep_their_breaks_and_wait_for_them(pipe: Pipe) -> None:
    pipe.write(b"one\ntwo\nthr")
    assert pipe.capture.read()
    assert pipe.lines == ["one\n", "two\n"]
    pipe.write(b"ee\n")
    pipe.capture.read()
    assert pipe.lines[2:] == ["three\n"]


def test_a_carriage_return_does_not_end_a_line(pipe: Pipe) -> None:
    pipe.write(b"[ERROR] x\rTraceback\r  line\nnext\r\nlast\n")
    pipe.capture.read()
    assert pipe.lines == ["[ERROR] x\rTraceback\r  line\n", "next\r\n", "last\n"]


def test_the_end_of_a_request_lets_an_unfinished_line_go(pipe: Pipe) -> None:
    pipe.write(b"no break")
    pipe.capture.flush()
    pipe.capture.flush()
    assert pipe.lines == ["no break\n"]


def test_bytes_that_are_no_text_do_not_stop_the_log(pipe: Pipe) -> None:
    pipe.write(b"\xff\xfe\nnext\n")
    pipe.capture.read()
    assert pipe.lines == ["\ufffd\ufffd\n", "next\n"]


def test_a_character_cut_between_two_reads_is_whole(pipe: Pipe) -> None:
    euro = "\u20ac".encode()
    pipe.write(euro[:1])
    pipe.capture.read()
    pipe.write(euro[1:] + b"\n")
    pipe.capture.read()
    assert pipe.lines == ["\u20ac\n"]


def test_a_line_longer_than_an_event_is_cut(pipe: Pipe) -> None:
    left = EVENT_BYTES + 1000
    while left:
        size = min(left, 32768)
        pipe.write(b"x" * size)
        pipe.capture.read()
        left -= size
    pipe.write(b"\n")
    pipe.capture.read()
    assert [len(line) for line in pipe.lines] == [EVENT_BYTES + 1, 1001]


def test_the_end_of_the_pipe_is_told_once_everything_has_been_read(pipe: Pipe) -> None:
    pipe.write(b"last\n")
    os.close(pipe.writing)
    pipe.writing = -1
    while pipe.capture.read():
        pass
    pipe.capture.flush()
    assert pipe.lines == ["last\n"]


def test_one_turn_reads_a_bounded_amount(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_capture, "READ_BYTES", 10)
    monkeypatch.setattr(log_capture, "READS_PER_TURN", 3)
    pipe.write(b"123456789\n" * 10)
    assert pipe.capture.read()
    assert len(pipe.lines) == 3


def test_the_budget_passes_a_burst_then_a_rate_and_counts_the_rest() -> None:
    budget = LogBudget(100.0)
    assert budget.take(BURST_BYTES, 100.0)
    assert not budget.take(10, 100.0)
    assert not budget.take(10, 100.0)
    assert budget.settle() == (2, 20)
    assert budget.settle() == (0, 0)
    assert budget.take(BYTES_PER_SECOND, 101.0)
    assert not budget.take(10, 101.0)
    assert budget.take(BURST_BYTES, 1000.0), "it never saves up more than a burst"
    assert not budget.take(BYTES_PER_SECOND, 1000.5)
