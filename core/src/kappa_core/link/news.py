"""What a dispatcher says of those who wait, to whom, and how often: DEMAND for the scaler, WANT and ENOUGH for supervisors.

Who waits may change with every invocation, and each word about it costs the scaler a look at every gateway and each supervisor a frame.
Where something runs, most are served in less time than the word would take; so it is said at once that somebody waits, and after that
from time to time how it stands (:func:`next_news`). :mod:`kappa_core.link.dispatch` decides when to ask; nothing is decided here about
who is served by what.
"""

from __future__ import annotations

from typing import Final

from kappa_core.link.effects import Effect, Send
from kappa_core.link.frames import Demand, FrameType, Want
from kappa_core.link.policy import TURN_SECONDS
from kappa_core.link.waiting import Queue, Supervisor

WANT_AGAIN_SECONDS: Final = 0.25
"""While waiters remain, WANT is said again this often: environments may have come and gone since, or moved to another wish."""
NEWS_SECONDS: Final = 0.005
"""How often at most something is said of a revision of which something runs here. With half of it there are half as many words again; with
twice of it environments stand idle at gateways that need them no more (bench/two_gateways.py)."""
NEWS_EACH_SECONDS: Final = 0.0002
"""The same for each of the revision's supervisors, who are all told: five thousand words in a second are enough."""


def next_news(queue: Queue) -> float:
    """When it may be said again how many wait."""
    return queue.spoke_at + max(NEWS_SECONDS, NEWS_EACH_SECONDS * len(queue.supervisors))


def may_be_held(queue: Queue, now: float) -> bool:
    """Whether a change of it is too soon after the last word, and said later."""
    return bool(queue.running) and queue.told >= 0 and now < next_news(queue) - TURN_SECONDS


def demand(queue: Queue, sequence: int, now: float) -> Demand:
    """Who waits, and how long what they wait for takes."""
    runs = queue.runs
    return Demand(
        queue.revision,
        queue.function_key,
        len(queue.waiters),
        _oldest_ms(queue, now),
        len(queue.running),
        sequence,
        int(runs.mean * 1e6),
        int(runs.rest * 1e6),
    )


def wishes(queue: Queue, now: float) -> list[Effect]:
    """WANT, where more wait than said, as many as said have had theirs, or it was said long ago; ENOUGH, where nobody does any more."""
    waiting, asked = len(queue.waiters), queue.asked
    if waiting and (waiting > asked or queue.came >= asked or now >= queue.asked_at + WANT_AGAIN_SECONDS):
        queue.asked, queue.asked_at, queue.came = waiting, now, 0
        return [effect for supervisor in queue.supervisors for effect in want(supervisor, now)]
    if asked and not waiting:
        queue.asked = 0
        return [Send(supervisor.link, FrameType.ENOUGH) for supervisor in queue.supervisors if supervisor.link]
    return []


def want(supervisor: Supervisor, now: float) -> list[Effect]:
    """WANT for one supervisor, if somebody waits for what it runs."""
    queue = supervisor.queue
    if queue is None or not queue.waiters or supervisor.link is None:
        return []
    waiting = len(queue.waiters)
    # Each of its environments may come once, more often where there are few: what nobody waits for any more comes for nothing.
    share = max(len(supervisor.environments), -(-waiting // len(queue.supervisors)))
    return [Send(supervisor.link, FrameType.WANT, body=Want(_oldest_ms(queue, now), min(waiting, share)))]


def _oldest_ms(queue: Queue, now: float) -> int:
    return max(0, int((now - queue.waiters[0].arrived) * 1000)) if queue.waiters else 0
