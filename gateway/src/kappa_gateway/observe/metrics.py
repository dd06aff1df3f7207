"""Prometheus metrics of a gateway, by their final names; served at ``/metrics``.

The hot path asks :meth:`Metrics.invocation` for a bound recorder once per function and qualifier and calls that per invocation, so
that no label lookup happens there. The number of label sets per metric is capped: past it new functions share the label
``(other)``, because a client may invent names faster than any scrape can hold them. What every invocation counts is plain numbers here
and becomes metrics at scrape time: the library's own take a lock per step, together a tenth of the gateway's work for an invocation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

SERIES_CAP: Final = 2000
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Record(Protocol):
    """Called once per invocation with its code class (``ok``, ``function_error``, ``throttled``, ``recursive``,
    ``client_error``, ``platform_error``), its seconds, and whether it waited for an init."""

    def __call__(self, code_class: str, seconds: float, /, *, cold: bool = False) -> None: ...


class InFlight:
    """A gauge as a plain number: the library's takes a lock for each step, and an invocation takes two."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        self.value += 1

    def dec(self) -> None:
        self.value -= 1


class _Durations:
    """One histogram series, filled without locks (all on the event loop) and read at scrape time."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as the exposition format wants them."""
        bounds = [*(str(bound) for bound in _SECONDS), "+Inf"]
        return list(zip(bounds, (float(count) for count in accumulate(self.counts)), strict=True))


class Metrics:
    """One registry per gateway process, not the library's global one, so that tests can have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._outcomes: dict[tuple[str, str, str, str], dict[str, int]] = {}
        """(account, function, qualifier, mode) → code class → invocations."""
        self._durations: dict[tuple[str, str], _Durations] = {}
        self.in_flight = InFlight()
        self.registry.register(_Scrape(self._invocations))
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
        outcomes = self._outcomes.setdefault((account, function, qualifier, mode), {})
        observe = self._durations.setdefault((account, function), _Durations()).observe

        def record(code_class: str, seconds: float, /, *, cold: bool = False) -> None:
            outcomes[code_class] = outcomes.get(code_class, 0) + 1
            observe(seconds)
            if cold:
                self.cold_starts.labels(account, function).inc()

        return record

    def _invocations(self) -> Iterable[Family]:
        outcomes = CounterMetricFamily(
            "kappa_gateway_invocations",
            "Invocations by outcome.",
            labels=("account", "function", "qualifier", "code_class", "mode"),
        )
        dropped = CounterMetricFamily(
            "kappa_gateway_recursive_invocations_dropped",
            "Invocations that were stopped because the function had run too often in one chain of them.",
            labels=("account", "function", "qualifier", "mode"),
        )
        for (account, function, qualifier, mode), counts in self._outcomes.items():
            for code_class, count in counts.items():
                outcomes.add_metric((account, function, qualifier, code_class, mode), count)
            if "recursive" in counts:
                dropped.add_metric((account, function, qualifier, mode), counts["recursive"])
        durations = HistogramMetricFamily(
            "kappa_gateway_invocation_duration_seconds",
            "From the first byte of the request to the last of the answer.",
            labels=("account", "function"),
        )
        for labels, series in self._durations.items():
            durations.add_metric(labels, series.buckets(), series.total)
        in_flight = self.in_flight.value
        yield outcomes
        yield dropped
        yield durations
        yield GaugeMetricFamily("kappa_gateway_inflight", "Invocations that run or wait now.", value=in_flight)

    def api_request(self, operation: str, status: int) -> None:
        """Count one answer of the control plane."""
        self.api_requests.labels(operation, str(status)).inc()

    def collect_from(self, collect: Callable[[], Iterable[Family]]) -> None:
        """Add what is computed at scrape time (environments by state, waiters)."""
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

    def __init__(self, collect: Callable[[], Iterable[Family]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Family]:
        return self._collect()
