"""An event loop whose clock jumps to the next timer when nothing is left to run: hours pass in milliseconds, in their order.

For code that waits through the loop only; nothing on other threads or sockets may be waited for.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

BEGIN_MS = 1_795_000_000_000


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0

    def time(self) -> float:
        return self._virtual

    def _run_once(self) -> None:
        ready, timers = self._ready, self._scheduled  # type: ignore[attr-defined]  # asyncio.base_events, the same since 3.4
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not ready:
            assert timers, "everything waits for something that nobody will do"
            self._virtual = max(self._virtual, timers[0].when())
        super()._run_once()  # type: ignore[misc]


def clock_ms() -> int:
    """Epoch milliseconds of the running loop."""
    return BEGIN_MS + round(asyncio.get_running_loop().time() * 1000)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a coroutine test in virtual time."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
