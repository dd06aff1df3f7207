"""What the links show at each scrape: environments by state, who waits, and how many supervisors are linked. Numbers in, gauges out."""

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
