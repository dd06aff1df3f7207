"""Prometheus metrics of a gateway, by their final names; served at ``/metrics``.

The hot path asks :meth:`Metrics.invocation` for a bound recorder once per function and qualifier and calls that per invocation, so
that no label lookup happens there. The number of label sets per metric is capped: past it new functions share the label
``(other)``, because a client may invent names faster than any scrape can hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

SERIES_CAP: Final = 2000
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Record(Protocol):
    """Called once per invocation with its code class (``ok``, ``function_error``, ``throttled``, ``client_error``,
    ``platform_error``), its seconds, and whether it waited for an init."""

    def __call__(self, code_class: str, seconds: float, /, *, cold: bool = False) -> None: ...


class Metrics:
    """One registry per gateway process, not the library's global one, so that tests can have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._invocations = Counter(
            "kappa_gateway_invocations",
            "Invocations by outcome.",
            ("account", "function", "qualifier", "code_class", "mode"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "kappa_gateway_invocation_duration_seconds",
            "From the first byte of the request to the last of the answer.",
            ("account", "function"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge("kappa_gateway_inflight", "Invocations that run or wait now.", registry=self.registry)
        self.cold_starts = Counter(
            "kappa_gateway_cold_starts", "Invocations that waited for an init.", ("account", "function"), registry=self.registry
        )
        self.api_requests = Counter(
            "kappa_gateway_api_requests", "Control-plane requests.", ("operation", "status"), registry=self.registry
        )
        self._seen: set[tuple[str, str]] = set()

    def invocation(self, *, account: str, function: str, qualifier: str, mode: str) -> Record:
        """A recorder for one function and qualifier."""
        if (function, qualifier) not in self._seen:
            if len(self._seen) >= SERIES_CAP:
                function, qualifier = "(other)", ""
            self._seen.add((function, qualifier))
        children: dict[str, Counter] = {}
        observe = self._duration.labels(account, function).observe

        def record(code_class: str, seconds: float, /, *, cold: bool = False) -> None:
            child = children.get(code_class)
            if child is None:
                child = children[code_class] = self._invocations.labels(account, function, qualifier, code_class, mode)
            child.inc()
            observe(seconds)
            if cold:
                self.cold_starts.labels(account, function).inc()

        return record

    def api_request(self, operation: str, status: int) -> None:
        """Count one answer of the control plane."""
        self.api_requests.labels(operation, str(status)).inc()

    def collect_from(self, collect: Callable[[], Iterable[GaugeMetricFamily]]) -> None:
        """Add gauges that are computed at scrape time (environments by state, waiters)."""
        self.registry.register(_Scrape(collect))

    def count_dropped_log_lines(self, read: Callable[[], int]) -> None:
        """Add the counter of lines that the log store, which counts them itself, could not keep."""
        name, text = "kappa_gateway_log_lines_dropped", "Function log lines lost for want of room."
        self.registry.register(_Scrape(lambda: [CounterMetricFamily(name, text, value=read())]))

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class _Scrape(Collector):
    """Computes metrics at scrape time."""

    def __init__(self, collect: Callable[[], Iterable[GaugeMetricFamily | CounterMetricFamily]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        return self._collect()
