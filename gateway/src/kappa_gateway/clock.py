"""The time of day. What reads it takes a clock as an argument and has this one by default, so that tests bring their own.

Nothing is measured with it: durations come from a monotonic clock, which nobody sets.
"""

from __future__ import annotations

import time


def epoch_ms() -> int:
    """Milliseconds since 1970, as resources, events and log lines have them."""
    return time.time_ns() // 1_000_000
