"""What asynchronous invocations count: events by how they ended, retries, deliveries, and gauges of the queue at scrape time.

The gauges show what the worker last read from the queue, seconds ago at most. The number of functions with gauges of their own is capped
as everywhere (:mod:`kappa_gateway.observe.metrics`): those with the longest queues are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily

from kappa_core.ports.queue import FunctionStats
from kappa_gateway.events.targets import named
from kappa_gateway.observe.metrics import SERIES_CAP

Outcome = Literal[
    "done", "retries_exhausted", "event_age_exceeded", "zero_reserved_concurrency", "recursive_invocation", "function_deleted"
]
OUTCOMES: Final[dict[str, Outcome]] = {
    "Success": "done",
    "RetriesExhausted": "retries_exhausted",
    "EventAgeExceeded": "event_age_exceeded",
    "ZeroReservedConcurrency": "zero_reserved_concurrency",
    "RecursiveInvocation": "recursive_invocation",
}
"""By condition."""


class Counts:
    """Counters in a registry, and the queue's gauges. ``clock_ms`` is epoch milliseconds."""

    def __init__(self, registry: CollectorRegistry, *, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self.stats: Sequence[FunctionStats] = ()
        """What the queue held when it was last looked at."""
        self.events = Counter(
            "kappa_async_events", "Asynchronous events that came to their end, by how.", ("outcome",), registry=registry
        )
        self.retries = Counter(
            "kappa_async_retries", "Attempts that were put off, by what the last one ended in.", ("cause",), registry=registry
        )
        self.repeated = Counter(
            "kappa_async_repeated", "Events that ran again because nobody said how they ended.", registry=registry
        )
        self.deliveries = Counter(
            "kappa_async_deliveries",
            "Records and dead letters sent out: delivered, retried or failed for good.",
            ("service", "outcome"),
            registry=registry,
        )

    def gauges(self) -> Iterable[GaugeMetricFamily]:
        """kappa_queue_depth, kappa_queue_oldest_age_seconds and kappa_queue_dead_letters by function."""
        labels = ("account", "function")
        depth = GaugeMetricFamily("kappa_queue_depth", "Events that wait or run.", labels=labels)
        age = GaugeMetricFamily("kappa_queue_oldest_age_seconds", "Age of the oldest of them.", labels=labels)
        dead = GaugeMetricFamily("kappa_queue_dead_letters", "Events that were given up and are kept.", labels=labels)
        now = self._clock_ms()
        for one in sorted(self.stats, key=lambda stats: stats.depth + stats.dead, reverse=True)[:SERIES_CAP]:
            _, account, function, _ = named(one.function_arn)
            depth.add_metric((account, function), one.depth)
            age.add_metric((account, function), 0.0 if one.oldest_ms is None else max(0, now - one.oldest_ms) / 1000)
            dead.add_metric((account, function), one.dead)
        return (depth, age, dead)
