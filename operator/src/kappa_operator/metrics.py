"""Prometheus metrics of the operator, by their final names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kappa_operator.cache import Ref

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)


class Metrics:
    """One registry per process, not the library's global one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = Counter(
            "kappa_operator_reconcile", "Reconciles by how they ended.", ("kind", "result"), registry=self.registry
        )
        self._durations = Histogram(
            "kappa_operator_reconcile_duration_seconds", "Of a reconcile.", ("kind",), buckets=_SECONDS, registry=self.registry
        )
        self._writes = Counter("kappa_operator_writes", "Writes to the API server.", ("kind", "verb"), registry=self.registry)

    def reconciled(self, key: object, result: str, seconds: float, /) -> None:
        """Observe one; ``key`` is a Ref."""
        kind = key.kind if isinstance(key, Ref) else "other"
        self._reconciles.labels(kind, result).inc()
        self._durations.labels(kind).observe(seconds)

    def wrote(self, kind: str, verb: str) -> None:
        self._writes.labels(kind, verb).inc()

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        self.registry.register(_Scrape(lambda: [GaugeMetricFamily(name, text, value=read())]))

    def gauges(self, name: str, text: str, label: str, read: Callable[[], dict[str, float]]) -> None:
        """The same for one value of each label."""

        def collect() -> Iterable[GaugeMetricFamily]:
            family = GaugeMetricFamily(name, text, labels=[label])
            for value, number in read().items():
                family.add_metric([value], number)
            yield family

        self.registry.register(_Scrape(collect))

    def render(self) -> bytes:
        return generate_latest(self.registry)


class _Scrape(Collector):
    """Computes metrics at scrape time."""

    def __init__(self, collect: Callable[[], Iterable[GaugeMetricFamily]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[GaugeMetricFamily]:
        return self._collect()
