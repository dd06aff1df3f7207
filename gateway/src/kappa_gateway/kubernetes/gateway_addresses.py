"""Where the gateways of this release are, by the endpoints of their headless Service; asked when it is needed, never watched."""

from __future__ import annotations

from kappa_crds.api import WatchedApi, api_path


async def gateway_addresses(api: WatchedApi, *, namespace: str, service: str, leaving: bool) -> set[str]:
    """Addresses (IP) of the gateways behind a headless Service, those that start included; ``leaving``: also those that end.

    Raises ApiError.
    """
    path = api_path("discovery.k8s.io/v1", "endpointslices", namespace=namespace)
    slices, _ = await api.list(path, label_selector=f"kubernetes.io/service-name={service}")
    return {
        address
        for each in slices
        for endpoint in each.get("endpoints") or ()
        if leaving or not (endpoint.get("conditions") or {}).get("terminating")
        for address in endpoint.get("addresses") or ()
    }
