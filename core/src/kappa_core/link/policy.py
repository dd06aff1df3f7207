"""Queue or scale, and patience: whether to start an environment for a waiter or to let it wait, and how long the scaler waits for what.

The scaler asks a policy how many of the environments that everyone's waiting calls for it should start at once.
:func:`start_at_once` starts all of them, as AWS does: there nobody queues while there is room. :func:`queue_or_scale` starts none for a
waiter that one which is there will serve sooner than a start takes. It goes by means, and means deceive: so it counts on half of what they
promise, lets no queue stand and nobody wait for long. Whoever still waits is asked about again within REVIEW_SECONDS.

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
ASK_SECONDS: Final = 0.01
"""How often at most all gateways are asked what is in flight, for one function: where short invocations wait for each other, who waits
changes faster than that, and most are served before an answer matters."""
TURN_SECONDS: Final = 0.001
"""What a loop's clock counts in: what is due within it is due."""
RETIRE_SECONDS: Final = 2.0
"""When a RETIRE without an answer is sent again, or given up."""
COLLECT_SECONDS: Final = 1.0
"""When a collection is complete without those who have not answered."""
REBUILD_SECONDS: Final = 3.0
"""How long a new holder waits for the gateways it expects."""
FAILURES_BEFORE_DENIAL: Final = 3
COUNTED: Final = 0.5
"""Part of what environments are expected to get done that those who wait are told to rely on."""
SLOWEST_SECONDS: Final = 2.0
"""What a start counts as that takes longer, as one does that pulls an image: nobody is left waiting on a promise of half a minute."""
LATE: Final = 1.5
"""Times a start takes: how long a waiter is left waiting at most before one is made for it."""


class Situation(msgspec.Struct, frozen=True):
    """What a policy decides on."""

    need: int
    """Environments that would have to be started for everyone who waits to have one."""
    waiting: int
    oldest_seconds: float
    starting: int
    """Of this revision, for those who wait."""
    ready: int
    """Of this revision, idle or busy."""
    run_seconds: float = 0.0
    """How long an invocation takes; 0: not known."""
    start_seconds: float = 0.0
    """How long a start takes; 0: not known."""
    standing_seconds: float = 0.0
    """For how long those that are ready have not emptied the queue."""
    head_start: float = 0.0
    """Seconds since those that are starting were ordered, in sum."""
    rest_seconds: float = 0.0
    """How long an invocation that runs is expected to go on."""


Policy = Callable[[Situation], int]
"""How many of ``need`` to start now. Fewer: the rest is asked for again within REVIEW_SECONDS."""


def start_at_once(situation: Situation) -> int:
    """Nobody queues while there is room."""
    return situation.need


def queue_or_scale(situation: Situation) -> int:
    """Start for those alone whom the environments that there are will not serve sooner than new ones.

    By the time that an environment which is ordered now would be ready, a busy one has come to the end of what it runs (``rest``) and of
    one more for each ``run`` that is left then, and one that is starting has been ready for as long as it was ordered before: so many of
    those who wait are theirs, or by prudence COUNTED of them. Where they do not empty the queue, or a waiter is as old as LATE starts, the
    means were wrong: then there will be twice as many. Where a time is not known, nobody waits on the strength of it.
    """
    need, starting, ready = situation.need, situation.starting, situation.ready
    start, run = _start_seconds(situation), situation.run_seconds
    late = situation.oldest_seconds >= LATE * start
    if start <= 0.0 or run <= 0.0 or (late and not ready):
        return need
    soon = 0.0
    if situation.rest_seconds < start:
        soon = COUNTED * ready * (1 + (start - situation.rest_seconds) / run)
    # Each of those that are starting is counted for one waiter already.
    soon += max(0.0, COUNTED * situation.head_start / run - starting)
    left = max(0, need - int(soon))
    if late or (ready and not starting and situation.standing_seconds >= start):
        return max(left, min(need, ready - starting))
    return left


def patient_seconds(situation: Situation) -> float:
    """When whoever was left waiting is to be looked at again, in seconds from now: when :func:`queue_or_scale` may decide otherwise."""
    start = _start_seconds(situation)
    late = LATE * start - situation.oldest_seconds
    standing = start - situation.standing_seconds
    return min(late, standing) if standing > 0.0 and not situation.starting else late


def _start_seconds(situation: Situation) -> float:
    return min(situation.start_seconds, SLOWEST_SECONDS)
