"""The NetworkPolicy of function pods: nobody reaches them, and they reach DNS, the gateways and public addresses.

Private, link-local, carrier and benchmarking ranges are no public addresses, nor are those of the cluster and of its API server, in
IPv4, in IPv6 and in IPv6 that translates to IPv4. The metadata address of clouds is reached in no case, whatever else is allowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence, Set
from typing import Final

from kappa_crds import labels
from kappa_crds.api import Object
from kappa_operator.reconcile.owned import MANAGED
from kappa_operator.settings import METADATA_ADDRESSES, Egress, NetworkSettings

POLICY: Final = "kappa-functions"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",  # RFC 2544; clusters whose private addresses ran out use it for pods, as EKS does 198.19.0.0/16
        "224.0.0.0/3",
    )
)
_NOT_PUBLIC_6: Final = tuple(ipaddress.IPv6Network(each) for each in ("::/96", "fc00::/7", "fe80::/10", "ff00::/8"))
_TRANSLATED: Final = ipaddress.IPv6Address("64:ff9b::")  # RFC 6052
_METADATA: Final[tuple[_Network, ...]] = tuple(ipaddress.ip_network(each) for each in METADATA_ADDRESSES)


def network_policy(namespace: str, *, settings: NetworkSettings, api_server: Sequence[str] = ()) -> Object:
    """The one policy of a namespace with functions; ``api_server`` are addresses of the Kubernetes API."""
    egress: list[Object] = [
        {
            "to": [
                _pods(settings.dns_namespace, settings.dns_labels),
                *({"ipBlock": {"cidr": cidr}} for cidr in settings.dns_cidrs),
            ],
            "ports": [{"port": port, "protocol": protocol} for port in settings.dns_ports for protocol in ("UDP", "TCP")],
        },
        {
            "to": [_pods(settings.release_namespace, settings.gateway_labels)],
            "ports": [{"port": port, "protocol": "TCP"} for port in settings.gateway_ports],
        },
        {"to": _public([*settings.cluster_cidrs, *api_server], families=settings.families)},
        *(_allowed(each) for each in settings.allowed),
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": POLICY, "namespace": namespace, "labels": MANAGED},
        "spec": {
            "podSelector": {"matchExpressions": [{"key": labels.FUNCTION, "operator": "Exists"}]},
            "policyTypes": ["Ingress", "Egress"],
            "egress": egress,
        },
    }


def _public(excluded: Iterable[str], *, families: Set[int]) -> list[Object]:
    further = [ipaddress.ip_network(each) for each in excluded]
    private_4 = [*_NOT_PUBLIC_4, *(each for each in further if isinstance(each, ipaddress.IPv4Network))]
    private_6 = [*_NOT_PUBLIC_6, *(each for each in further if isinstance(each, ipaddress.IPv6Network))]
    private_6 += [
        ipaddress.IPv6Network((int(_TRANSLATED) + int(each.network_address), 96 + each.prefixlen)) for each in private_4
    ]
    blocks = (
        (4, "0.0.0.0/0", ipaddress.collapse_addresses(private_4)),
        (6, "::/0", ipaddress.collapse_addresses(private_6)),
    )
    return [
        {"ipBlock": {"cidr": cidr, "except": [str(each) for each in but]}} for version, cidr, but in blocks if version in families
    ]


def _allowed(egress: Egress) -> Object:
    network = ipaddress.ip_network(egress.cidr)
    block: Object = {"cidr": egress.cidr}
    but = [str(metadata) for metadata in _METADATA if _within(metadata, network)]
    if but:
        block["except"] = but
    rule: Object = {"to": [{"ipBlock": block}]}
    if egress.port is not None:
        rule["ports"] = [{"port": egress.port, "protocol": protocol} for protocol in ("TCP", "UDP")]
    return rule


def _within(inner: _Network, outer: _Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def _pods(namespace: str, pod_labels: dict[str, str]) -> Object:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": pod_labels},
    }
