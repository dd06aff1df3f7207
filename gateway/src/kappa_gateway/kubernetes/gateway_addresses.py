"""Where the gateways of this release are, by the endpoints of their headless Service; asked when it is needed, never watched."""

from __future__ import annotations

from collections.abc import Iterable

from kappa_crds.api import Object, WatchedApi, api_path


async def gateway_addresses(api: WatchedApi, *, namespace: str, service: str, all_of_them: bool) -> set[str]:
    """Addresses (IP) of the gateways behind a headless Service; ``all_of_them``: also those that start or end, which callers do not reach.

    Raises ApiError.
    """
    path = api_path("discovery.k8s.io/v1", "endpointslices", namespace=namespace)
    slices, _ = await api.list(path, label_selector=f"kubernetes.io/service-name={service}")
    return addresses_in(slices, all_of_them=all_of_them)


def addresses_in(slices: Iterable[Object], *, all_of_them: bool) -> set[str]:
    """The same of EndpointSlices. Their Service publishes addresses that are not ready, so ``ready`` says nothing; ``serving`` does."""
    return {
        address
        for each in slices
        for endpoint in each.get("endpoints") or ()
        if all_of_them or _serves(endpoint.get("conditions") or {})
        for address in endpoint.get("addresses") or ()
    }


def _serves(conditions: Object) -> bool:
    return not conditions.get("terminating") and conditions.get("serving") is not False
