"""One lock per key: changes of one function queue up within this process instead of conflicting.

Only a courtesy: what keeps two gateways from overwriting each other is the store's resource version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager


class KeyedLocks:
    """Fair (first come, first served) and forgetful: a key costs memory only while somebody holds or wants it."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        lock, users = self._locks.setdefault(key, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                del self._locks[key]

    def __len__(self) -> int:
        return len(self._locks)
