"""A streamed response on its way from the runtime's connection to whoever takes it, with back-pressure.

The connection pushes what it reads; the taker iterates. Over HIGH bytes the connection stops reading (so the runtime's writes
block), below LOW it reads on. Nothing is parsed: the prelude of an HTTP integration response passes untouched.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

HIGH: Final = 512 * 1024
LOW: Final = 128 * 1024


class ResponseStream:
    """Single producer, single consumer, one event loop."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def push(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > HIGH and not self._paused:
            self._paused = True
            self._pause()
        self._wake()

    def end(self) -> None:
        """Nothing more comes; what was pushed is still delivered."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._size -= len(chunk)
                if self._paused and self._size < LOW:
                    self._paused = False
                    self._resume()
                yield chunk
            if self._ended:
                return
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
