"""`kappa logs` on the client's side: what it prints, how it goes on when a gateway ends its answer, and what it says is missing."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest

from kappa_gateway.cli.client import Client, ClientError


class Answer(BytesIO):
    """A response with these events; ``broken``: its connection is lost at the end."""

    def __init__(self, *messages: str, headers: dict[str, str] | None = None, broken: bool = False) -> None:
        events = [{"event_id": each, "timestamp_ms": 5_000, "message": each} for each in messages]
        super().__init__(b"".join(json.dumps(event).encode() + b"\n" for event in events))
        self._headers = headers or {}
        self._broken = broken

    def getheader(self, name: str) -> str | None:
        return self._headers.get(name)

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline()
        if not line and self._broken:
            raise http.client.IncompleteRead(b"")
        return line


class Answering(Client):
    """Gives prepared answers instead of asking a gateway, and remembers what was asked; None refuses."""

    def __init__(self, *answers: Answer | None) -> None:
        super().__init__("http://127.0.0.1:9000")
        self.answers: Iterator[Answer | None] = iter(answers)
        self.queries: list[dict[str, str]] = []

    def _open(self, method: str, path: str, query: dict[str, str], **_: object) -> Any:
        self.queries.append(dict(query))
        answer = next(self.answers, None)
        if answer is None:
            raise ClientError("no gateway answers")
        return http.client.HTTPConnection("127.0.0.1"), answer

    def lines(self, **options: Any) -> list[str]:
        """What is printed, without line breaks."""
        slept: list[float] = []
        found = self.logs("f", since="1d", request_id=None, sleep=slept.append, **options)
        return [line.rstrip("\n") for line in found]


def test_a_follower_goes_on_at_another_gateway_and_repeats_nothing() -> None:
    client = Answering(Answer("1", "2"), None, Answer("2", "3", broken=True), Answer("3", "4"))
    assert client.lines(follow=True) == ["1", "2", "3", "4"]
    assert all(int(query["start"]) >= int(client.queries[0]["start"]) for query in client.queries)


def test_a_follower_ends_when_no_gateway_answers_any_more() -> None:
    client = Answering(Answer("1"), None, None, None, Answer("too late"))
    assert client.lines(follow=True) == ["1"]


def test_an_answer_that_breaks_off_is_an_error_where_all_of_it_was_asked_for() -> None:
    with pytest.raises(ClientError, match="broke off"):
        Answering(Answer("1", broken=True)).lines(follow=False)


def test_gateways_whose_lines_are_missing_are_named() -> None:
    said: list[str] = []
    client = Answering(Answer("1", headers={"x-kappa-logs-missing": "10.0.0.7:9000"}))
    assert client.lines(follow=False, warn=said.append) == ["1"]
    assert said == ["the lines of gateways that do not answer are missing: 10.0.0.7:9000"]


def test_where_no_gateway_answers_at_all_that_is_said_at_once() -> None:
    with pytest.raises(ClientError, match="no gateway answers"):
        Answering().lines(follow=True)
