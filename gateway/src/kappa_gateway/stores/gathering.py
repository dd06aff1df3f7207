"""Many calls, one transaction: what arrives while the last batch is being written goes into the next one.

Where thousands of calls a second do the same, each of them a commit, or with statements of its own within one, is most of the work; here
they are gathered into one job that answers each. A batch that cannot be written fails for all of its callers; what one call is refused for
is an exception among the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

CALLS_PER_BATCH: Final = 512


class Gathering(Generic[A, R]):
    """Call it with one argument, get its answer. ``work`` is given all arguments of a batch in their order; one batch at a time."""

    def __init__(self, work: Callable[[Sequence[A]], Awaitable[Sequence[R | Exception]]]) -> None:
        self._work = work
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, argument: A, /) -> R:
        """Raises what ``work`` answers for this argument, or what it raises for all."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((argument, answer))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await answer

    async def idle(self) -> None:
        """Wait until every call has its answer."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:CALLS_PER_BATCH], self._waiting[CALLS_PER_BATCH:]
            answers: Sequence[R | Exception]
            try:
                answers = await self._work([argument for argument, _ in batch])
            except Exception as error:  # noqa: BLE001 - whatever a batch fails for is raised in each of its callers
                answers = [error] * len(batch)
            for (_, answer), result in zip(batch, answers, strict=True):
                if answer.done():
                    continue  # its caller was cancelled
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)
        self._writing = None
