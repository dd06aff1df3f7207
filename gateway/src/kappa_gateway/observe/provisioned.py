"""What a scrape shows of provisioned concurrency: how it is used at this gateway and, at the one that holds the scaler, how much there is.

Utilisation is ``kappa_gateway_provisioned_in_flight`` of all gateways over ``kappa_provisioned_environments{state="ready"}``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from kappa_core.rules.provisioned import Progress
from kappa_gateway.links.provisioned_use import ProvisionedUse

_LABELS = ("account", "function", "version")


def provisioned_families(
    use: ProvisionedUse, *, in_flight: Callable[[], dict[str, int]], progress: Callable[[str], Progress | None]
) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
    """``in_flight`` counts by revision what runs on provisioned environments here; ``progress`` is the scaler's, None elsewhere."""
    invocations = CounterMetricFamily(
        "kappa_gateway_provisioned_invocations", "Invocations given to provisioned environments.", labels=_LABELS
    )
    spillover = CounterMetricFamily(
        "kappa_gateway_provisioned_spillover_invocations",
        "Invocations of versions with provisioned concurrency given to environments on demand.",
        labels=_LABELS,
    )
    running = GaugeMetricFamily(
        "kappa_gateway_provisioned_in_flight", "Invocations that run on provisioned environments now.", labels=_LABELS
    )
    environments = GaugeMetricFamily(
        "kappa_provisioned_environments", "Provisioned environments, at the holder of the scaler.", labels=(*_LABELS, "state")
    )
    now = in_flight() if use.uses else {}
    for revision, one in use.uses.items():
        labels = (one.account, one.function, one.version)
        invocations.add_metric(labels, one.invocations)
        spillover.add_metric(labels, one.spillover)
        running.add_metric(labels, now.get(revision, 0))
        known = progress(revision)
        if known is not None:
            environments.add_metric((*labels, "ready"), known.ready)
            environments.add_metric((*labels, "starting"), known.allocated - known.ready)
    yield from (invocations, spillover, running, environments)
