"""``status.observedGeneration`` of Functions whose edit asks for nothing: tags, reserved concurrency.

Such an edit by kubectl is no update on AWS, so the settler has nothing to do; but whoever waits until the generation has been observed
would wait for ever. Runs in the gateway that settles. Level-triggered and unhurried: what lags behind at two looks in a row has its
status written once more, as it is. It refuses to touch a function that is Pending or being updated: that status is the settler's to write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from kappa_core.ports.store import Conflict, NotFound, ResourceStore, StoreError
from kappa_core.resources import Function, Key
from kappa_core.rules import states

LOOK_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class Observations:
    """See the module. ``lagging`` names the functions whose status speaks of an older generation than their object has."""

    def __init__(
        self,
        store: ResourceStore,
        *,
        lagging: Callable[[], Iterable[Key]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._lagging = lagging
        self._sleep = sleep

    async def run(self) -> None:
        """Until cancelled."""
        before: set[Key] = set()
        while True:
            await self._sleep(LOOK_SECONDS)
            now = set(self._lagging())
            for key in sorted(now & before):
                try:
                    await self._observe(key)
                except (Conflict, NotFound):
                    pass  # somebody has written it meanwhile: the next look sees what there is
                except StoreError as error:
                    _log.warning("that %s was edited cannot be recorded: %s", key.name, error)
            before = now

    async def _observe(self, key: Key) -> None:
        function = await self._store.get(key)
        if isinstance(function, Function) and states.is_settled(function.status):
            await self._store.update(function)
