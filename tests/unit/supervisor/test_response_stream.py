"""Back-pressure between the runtime's connection and whoever takes a streamed response."""

from __future__ import annotations

import asyncio

from kappa_runtime.supervisor.response_stream import HIGH, ResponseStream


class Connection:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.stream = ResponseStream(lambda: self.calls.append("pause"), lambda: self.calls.append("resume"))


def test_pieces_arrive_in_order_and_the_end_ends_the_iteration() -> None:
    async def scenario() -> None:
        connection = Connection()
        connection.stream.push(b"1")
        taken: list[bytes] = []

        async def take() -> None:
            taken.extend([piece async for piece in connection.stream])

        taking = asyncio.create_task(take())
        await asyncio.sleep(0)
        connection.stream.push(b"2")
        await asyncio.sleep(0)
        connection.stream.push(b"3")
        connection.stream.end()
        await taking
        assert taken == [b"1", b"2", b"3"]
        assert connection.calls == []

    asyncio.run(scenario())


def test_reading_pauses_once_above_the_mark_and_resumes_when_drained() -> None:
    async def scenario() -> None:
        connection = Connection()
        for _ in range(3):
            connection.stream.push(bytes(HIGH // 2 + 1))
        assert connection.calls == ["pause"]
        connection.stream.end()
        sizes = [len(piece) async for piece in connection.stream]
        assert sizes == [HIGH // 2 + 1] * 3
        assert connection.calls == ["pause", "resume"]

    asyncio.run(scenario())
