"""What one watcher of the Kubernetes ResourceStore has not taken yet.

Changes queue up per watcher. One that falls far behind keeps every deletion and the newest state of each resource, and loses states
in between, so that a stuck reader costs memory for what there is and not for what happened.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from kappa_core.ports.store import Change

COMPACT_AT: Final = 4096
"""Changes that may queue up before superseded ones are left out."""


class WatchQueue:
    """Belongs to one event loop."""

    def __init__(self, changes: Iterable[Change] = (), *, compact_at: int = COMPACT_AT) -> None:
        self._pending = deque(changes)
        self._least = compact_at
        self._compact_at = max(compact_at, 2 * len(self._pending))
        self._closed = False
        self._woken = asyncio.Event()

    def tell(self, change: Change) -> None:
        self._pending.append(change)
        if len(self._pending) > self._compact_at:
            self._pending = deque(_without_superseded(self._pending))
            self._compact_at = max(self._least, 2 * len(self._pending))
        self._woken.set()

    def close(self) -> None:
        """What is pending may still be taken."""
        self._closed = True
        self._woken.set()

    async def take(self) -> Change | None:
        """The next change, as soon as there is one; None once closed and empty."""
        while not self._pending:
            if self._closed:
                return None
            self._woken.clear()
            await self._woken.wait()
        return self._pending.popleft()


def _without_superseded(changes: Iterable[Change]) -> list[Change]:
    kept, newer = [], set()
    for change in reversed(list(changes)):
        uid = change.resource.meta.uid
        if change.type == "DELETE" or uid not in newer:
            kept.append(change)
        newer.add(uid)
    kept.reverse()
    return kept
