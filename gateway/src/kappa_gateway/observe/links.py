"""What links and watches show at each scrape: environments by state, who waits, linked supervisors, silence. Numbers in, gauges out."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily

from kappa_gateway.links.shell import Stats


def link_gauges(stats: Stats) -> Iterable[GaugeMetricFamily]:
    environments = GaugeMetricFamily("kappa_gateway_environments", "Execution environments by state.", labels=("state",))
    for state, number in stats.environments.items():
        environments.add_metric((state,), number)
    yield environments
    yield GaugeMetricFamily("kappa_gateway_waiting", "Invocations that wait for an environment.", value=stats.waiting)
    yield GaugeMetricFamily("kappa_gateway_supervisors", "Linked supervisors.", value=stats.supervisors)


def watch_gauge(silent_seconds: float) -> GaugeMetricFamily:
    """How long the quietest watch of the API server has heard nothing; one that is well hears something at least every minute or two."""
    return GaugeMetricFamily(
        "kappa_gateway_watch_silent_seconds", "Since the quietest watch heard of the API server.", value=silent_seconds
    )
