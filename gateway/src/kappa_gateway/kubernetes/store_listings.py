"""Listings that take several pages: which of them have begun here, so that only the first page reads a whole namespace.

The first page of a listing comes from the API server and brings the index up to date; the pages that follow within a minute come from the
index. So they show at least what there was when the listing began, and what the watches have told since. A page whose listing began at
another gateway, or too long ago, is a first page to this one. It refuses to keep what was listed: the index has it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from kappa_core.ports.store import key_order
from kappa_core.resources import AccountId, Key, Kind, Region

_REMEMBERED: Final = 1000


class Asked(NamedTuple):
    """What is listed, as :meth:`ResourceStore.list` has it; None: all."""

    kind: Kind
    account: AccountId | None
    region: Region | None
    name: str | None

    def covers(self, key: Key) -> bool:
        """Whether a key belongs to it."""
        return (
            key.kind == self.kind
            and (self.account is None or key.account == self.account)
            and (self.region is None or key.region == self.region)
            and (self.name is None or key.name == self.name)
        )


class Listings:
    """``seconds`` is how long one goes on; ``now`` counts seconds."""

    def __init__(self, *, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._begun: OrderedDict[Asked, float] = OrderedDict()

    def began(self, asked: Asked) -> None:
        """The API server has just been asked for all of it."""
        self._begun[asked] = self._now()
        self._begun.move_to_end(asked)
        if len(self._begun) > _REMEMBERED:
            self._begun.popitem(last=False)

    def goes_on(self, asked: Asked) -> bool:
        """Whether a further page may come from the index."""
        return self._now() < self._begun.get(asked, float("-inf")) + self._seconds


def is_behind(key: Key, after: Key | None) -> bool:
    """Whether a key comes later in a listing than ``after``; None: before everything."""
    return after is None or key_order(key)[1:] > key_order(after)[1:]
