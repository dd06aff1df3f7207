"""Many calls, one job of the writer: what arrives while the last batch is being written goes into the next one.

The writer of :mod:`kappa_gateway.stores.database` already shares one fsync among its jobs, but each has a savepoint and statements of
its own. Where thousands of calls a second do the same, they are gathered here into one job that counts once and answers each. A batch
that cannot be written fails for all of its callers; what one call is refused for is an exception among the answers.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from kappa_gateway.stores.database import Database

A = TypeVar("A")
R = TypeVar("R")

CALLS_PER_BATCH: Final = 512


class Gathering(Generic[A, R]):
    """Call it with one argument, get its answer. ``work`` is given all arguments of a batch in their order, in a transaction."""

    def __init__(self, database: Database, work: Callable[[sqlite3.Connection, Sequence[A]], Sequence[R | Exception]]) -> None:
        self._database = database
        self._work = work
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, argument: A, /) -> R:
        """Raises what ``work`` answers for this argument, or StoreUnavailable."""
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
            arguments = [argument for argument, _ in batch]
            answers: Sequence[R | Exception]
            try:
                answers = await self._database.write(lambda connection, arguments=arguments: self._work(connection, arguments))  # type: ignore[misc]
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
