"""Queue or scale, and patience: whether to start an environment for a waiter or to let it wait, and how long the scaler waits for what.

The scaler asks a policy how many of the environments that everyone's waiting calls for it should start at once. The default starts
all of them, as AWS does: there nobody queues while there is room. A policy that knows how long invocations and inits take can wait
for a busy environment instead; whoever still waits is asked about again within REVIEW_SECONDS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

GRACE_SECONDS: Final = 0.1
"""How long a waiter is left to an idle environment that is parked elsewhere; a move takes two messages."""
REVIEW_SECONDS: Final = 0.25
"""How often unmet demand is looked at again when nothing happens."""
STUCK_SECONDS: Final = 2.0
"""A waiter this old is evidently not reached by the idle environments there are: they may make room for one that reaches it."""
RETIRE_SECONDS: Final = 2.0
"""When a RETIRE without an answer is sent again, or given up."""
COLLECT_SECONDS: Final = 1.0
"""When a collection is complete without those who have not answered."""
REBUILD_SECONDS: Final = 3.0
"""How long a new holder waits for the gateways it expects."""
FAILURES_BEFORE_DENIAL: Final = 3


class Situation(msgspec.Struct, frozen=True):
    """What a policy decides on."""

    need: int
    """Environments that would have to be started for everyone who waits to have one."""
    waiting: int
    oldest_seconds: float
    starting: int
    ready: int
    """Of this revision, idle or busy."""


Policy = Callable[[Situation], int]
"""How many of ``need`` to start now. Fewer: the rest is asked for again within REVIEW_SECONDS. The hook for *queue or scale*."""


def start_at_once(situation: Situation) -> int:
    """The default policy: nobody queues while there is room."""
    return situation.need
