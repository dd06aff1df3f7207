"""The event stream encoder against botocore's parser, which checks lengths and both checksums."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from kappa_gateway.hot.event_stream import EventType

CHUNK = EventType("PayloadChunk", content_type="application/octet-stream")
COMPLETE = EventType("InvokeComplete", content_type="application/json")


def parsed(data: bytes, *, step: int | None = None) -> list[Any]:
    buffer = EventStreamBuffer()
    messages: list[Any] = []
    size = step or len(data)
    for start in range(0, len(data), size):
        buffer.add_data(data[start : start + size])
        messages += buffer
    return messages


def test_an_event_carries_its_type_and_that_of_its_payload() -> None:
    (message,) = parsed(CHUNK.encode(b"hello"))
    assert message.headers == {
        ":event-type": "PayloadChunk",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    assert message.payload == b"hello"


@given(payloads=st.lists(st.binary(max_size=300), min_size=1, max_size=5), step=st.integers(1, 100))
def test_events_are_cut_apart_whole_wherever_the_connection_splits_them(payloads: list[bytes], step: int) -> None:
    data = b"".join(CHUNK.encode(payload) for payload in payloads)
    assert [message.payload for message in parsed(data, step=step)] == payloads


@pytest.mark.parametrize(
    "payload", [pytest.param(b"", id="empty"), pytest.param(bytes(range(256)) * 4096, id="1 MiB of any bytes")]
)
def test_any_payload_comes_through(payload: bytes) -> None:
    first, second = parsed(CHUNK.encode(payload) + COMPLETE.encode(b"{}"))
    assert (first.payload, second.payload) == (payload, b"{}")
    assert second.headers[":event-type"] == "InvokeComplete"
