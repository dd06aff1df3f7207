"""Asynchronous invocations of a gateway put together: the way in, the worker and the deliveries, over a queue that the caller opened.

Made before the gateway listens, so that no event is refused for want of a queue, and put down before the links are closed. The same on
a laptop and in a cluster; it holds no rule of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from pydantic import SecretStr

from kappa_core.limits import Limits
from kappa_core.ports.queue import EventQueue
from kappa_core.ports.store import Change, ResourceStore
from kappa_core.rules.retry import Schedule
from kappa_gateway.clock import epoch_ms
from kappa_gateway.events.counts import Counts
from kappa_gateway.events.delivery import AwsDelivery, DeliverySettings
from kappa_gateway.events.intake import Intake
from kappa_gateway.events.targets import Targets
from kappa_gateway.events.worker import Worker, WorkerSettings
from kappa_gateway.hot.index import FunctionIndex
from kappa_gateway.hot.path import Links
from kappa_gateway.observe.metrics import Metrics


class EventSettings(Protocol):
    """What both kinds of settings say about asynchronous invocations."""

    async_concurrency: int
    async_retry_delays: tuple[float, ...]
    async_throttle_delays: tuple[float, ...]
    async_delivery_delays: tuple[float, ...]
    destination_access_key_id: str
    destination_secret_access_key: SecretStr
    endpoint_url: str | None

    @property
    def endpoint_urls(self) -> Mapping[str, str]: ...
    @property
    def limits(self) -> Limits: ...


class AsyncEvents:
    """See the module. :meth:`employ` once there is an index and links; :meth:`run` until cancelled, then :meth:`put_down` before the
    links are closed. ``clock_ms`` is the queue's time in epoch milliseconds."""

    worker: Worker
    delivery: AwsDelivery

    def __init__(self, queue: EventQueue, settings: EventSettings, *, clock_ms: Callable[[], int] | None = None) -> None:
        self.queue = queue
        self.intake = Intake(queue=queue, limit=settings.limits.async_request_bytes, wake=self.wake)
        self._settings = settings
        self._clock_ms = clock_ms or epoch_ms

    def employ(self, *, index: FunctionIndex, store: ResourceStore, links: Links, metrics: Metrics) -> None:
        """Make the worker."""
        counts = Counts(metrics.registry, clock_ms=self._clock_ms)
        metrics.collect_from(counts.gauges)
        self._store, self._index = store, index
        self.delivery = AwsDelivery(_delivery_settings(self._settings), functions=index, intake=self.intake)
        self.worker = Worker(
            queue=self.queue,
            links=links,
            targets=Targets(index=index, store=store),
            delivery=self.delivery,
            counts=counts,
            recorder=lambda account, function, qualifier: metrics.invocation(
                account=account, function=function, qualifier=qualifier, mode="Event"
            ),
            in_flight=metrics.in_flight,
            settings=_worker_settings(self._settings),
            clock_ms=self._clock_ms,
        )

    async def run(self) -> None:
        """Work until cancelled. Configurations are looked up in the index alone, so it is given them before the first event runs."""
        for config in await self._store.list("EventInvokeConfig"):
            self._index.apply(Change("PUT", config.key, config))
        await self.worker.run()

    def wake(self, function_uid: str = "") -> None:
        """Something was put into the queue: of this function, or of any."""
        self.worker.wake(function_uid)

    async def put_down(self) -> None:
        """After :meth:`run` has ended, before the links close."""
        await self.worker.close()
        self.delivery.close()


def _worker_settings(settings: EventSettings) -> WorkerSettings:
    first, most = settings.async_throttle_delays
    return WorkerSettings(
        concurrency=settings.async_concurrency,
        schedule=Schedule(
            function_error_ms=_milliseconds(settings.async_retry_delays),
            system_error_first_ms=round(first * 1000),
            system_error_most_ms=round(most * 1000),
        ),
        delivery_delays_ms=_milliseconds(settings.async_delivery_delays),
    )


def _delivery_settings(settings: EventSettings) -> DeliverySettings:
    return DeliverySettings(
        endpoint=settings.endpoint_url,
        endpoints=dict(settings.endpoint_urls),
        access_key_id=settings.destination_access_key_id,
        secret_access_key=settings.destination_secret_access_key.get_secret_value(),
    )


def _milliseconds(seconds: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(round(each * 1000) for each in seconds)
