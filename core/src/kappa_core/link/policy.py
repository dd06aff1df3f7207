"""Queue or scale, and patience: whether to start an environment for a waiter or to let it wait, and how long the scaler waits for what.

The scaler asks a policy how many of the environments that everyone's waiting calls for it should start at once.
:func:`start_at_once` starts all of them, as AWS does: there nobody queues while there is room. :func:`queue_or_scale` starts none for a
waiter that a busy environment will serve sooner than a start takes. It goes by means, and means deceive: so nobody waits for longer than
a start takes, and no queue stands for longer. Whoever still waits is asked about again within REVIEW_SECONDS, or when that time is over.

``python -m bench.queue_or_scale`` shows what it saves and what it costs.
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
    run_seconds: float = 0.0
    """How long an invocation takes; 0: not known."""
    start_seconds: float = 0.0
    """How long a start takes; 0: not known."""
    standing_seconds: float = 0.0
    """How long there has always been somebody waiting."""


Policy = Callable[[Situation], int]
"""How many of ``need`` to start now. Fewer: the rest is asked for again within REVIEW_SECONDS."""


def start_at_once(situation: Situation) -> int:
    """Nobody queues while there is room."""
    return situation.need


def queue_or_scale(situation: Situation) -> int:
    """Start for those alone whom the environments that there are will not serve sooner than new ones.

    While a start takes, ``ready`` environments come to the end of ``ready * start / run`` invocations, and so many of those who wait are
    theirs. Where a time is not known, or the oldest waiter or the queue itself has waited for as long as a start takes, all are started.
    """
    start, run = situation.start_seconds, situation.run_seconds
    if start <= 0.0 or run <= 0.0 or max(situation.oldest_seconds, situation.standing_seconds) >= start:
        return situation.need
    return max(0, situation.need - int(situation.ready * start / run))
