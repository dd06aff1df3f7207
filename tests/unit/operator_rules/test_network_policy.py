"""Who function pods can talk to under their NetworkPolicy, asked address by address."""

from __future__ import annotations

import ipaddress

import pytest

from kappa_crds.api import Object
from kappa_operator.reconcile.network import network_policy
from kappa_operator.settings import SettingsError, load


def reaches(policy: Object, address: str, *, port: int = 443, protocol: str = "TCP") -> bool:
    """As the API defines it: some rule has the port and some peer of it the address. Peers that are pods count for nothing here."""
    target = ipaddress.ip_address(address)
    for rule in policy["spec"]["egress"]:
        ports = rule.get("ports")
        if ports is not None and not any(each["port"] == port and each["protocol"] == protocol for each in ports):
            continue
        for peer in rule["to"]:
            block = peer.get("ipBlock")
            if block is None or target not in ipaddress.ip_network(block["cidr"]):
                continue
            if not any(target in ipaddress.ip_network(each) for each in block.get("except", [])):
                return True
    return False


def policy(**settings: object) -> Object:
    return network_policy("shop", settings=load(**settings).network, api_server=["203.0.113.7", "2001:db8::7"])


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "52.94.0.1", "172.32.0.1", "100.63.0.1", "198.17.0.1", "198.20.0.1", "2606:4700::1111", "64:ff9b::101:101"],
)
def test_public_addresses_are_reached(address: str) -> None:
    assert reaches(policy(), address)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("10.1.2.3", id="private"),
        pytest.param("172.31.255.255", id="private 172"),
        pytest.param("192.168.1.1", id="private 192"),
        pytest.param("100.64.0.1", id="carrier"),
        pytest.param("198.18.0.1", id="benchmarking"),
        pytest.param("198.19.255.255", id="benchmarking, where EKS has pods"),
        pytest.param("127.0.0.1", id="loopback"),
        pytest.param("169.254.169.254", id="metadata"),
        pytest.param("169.254.1.1", id="link-local"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("fd00:ec2::254", id="metadata over IPv6"),
        pytest.param("fe80::1", id="link-local over IPv6"),
        pytest.param("::1", id="loopback over IPv6"),
        pytest.param("64:ff9b::a00:1", id="private, translated"),
        pytest.param("64:ff9b::a9fe:a9fe", id="metadata, translated"),
        pytest.param("203.0.113.7", id="the API server"),
        pytest.param("2001:db8::7", id="the API server over IPv6"),
        pytest.param("198.51.100.9", id="the cluster's own"),
        pytest.param("64:ff9b::c633:6409", id="the cluster's own, translated"),
    ],
)
def test_everything_else_is_not(address: str) -> None:
    assert not reaches(policy(cluster_cidrs="198.51.100.0/24"), address)


def test_what_is_allowed_besides_is_reached_at_its_port_and_the_metadata_address_never() -> None:
    found = policy(allowed_egress="10.0.0.5/32:5432, 169.254.0.0/16, 192.168.0.0/24")
    assert reaches(found, "10.0.0.5", port=5432)
    assert not reaches(found, "10.0.0.5", port=5433)
    assert reaches(found, "192.168.0.9", port=9)
    assert reaches(found, "169.254.7.7")
    assert not reaches(found, "169.254.169.254")
    assert not reaches(found, "169.254.169.254", port=80)


def test_dns_of_the_node_is_reached_for_dns_alone() -> None:
    assert reaches(policy(), "169.254.20.10", port=53, protocol="UDP")
    assert not reaches(policy(), "169.254.20.10", port=80)


def test_the_gateways_are_reached_at_their_ports_and_by_their_labels() -> None:
    found = policy(namespace="platform", gateway_labels={"app": "gateway"}, gateway_ports="9443,9000")
    (rule,) = [rule for rule in found["spec"]["egress"] if [each["port"] for each in rule.get("ports", [])] == [9443, 9000]]
    assert rule["to"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "platform"}},
            "podSelector": {"matchLabels": {"app": "gateway"}},
        }
    ]


def test_it_is_for_function_pods_alone_and_lets_nobody_in() -> None:
    spec = policy()["spec"]
    assert spec["podSelector"] == {"matchExpressions": [{"key": "lambda.kappa.dev/function", "operator": "Exists"}]}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in spec


@pytest.mark.parametrize(
    ("pod_ips", "blocks"),
    [
        pytest.param("", ["0.0.0.0/0", "::/0"], id="unknown"),
        pytest.param("10.1.2.3", ["0.0.0.0/0"], id="IPv4"),
        pytest.param("fd00::3", ["::/0"], id="IPv6"),
        pytest.param("10.1.2.3,fd00::3", ["0.0.0.0/0", "::/0"], id="both"),
    ],
)
def test_public_addresses_are_named_in_the_versions_of_ip_that_pods_have(pod_ips: str, blocks: list[str]) -> None:
    policy = network_policy("shop", settings=load(pod_ips=pod_ips).network, api_server=["203.0.113.7"])
    found = [peer["ipBlock"]["cidr"] for rule in policy["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert [cidr for cidr in found if cidr.endswith("/0")] == blocks


def test_every_exception_lies_inside_its_block_as_the_api_server_demands() -> None:
    for rule in policy(cluster_cidrs="198.51.100.0/24,2001:db8:1::/48")["spec"]["egress"]:
        for peer in rule["to"]:
            block = peer.get("ipBlock", {})
            for each in block.get("except", []):
                inner, outer = ipaddress.ip_network(each), ipaddress.ip_network(block["cidr"])
                assert inner.version == outer.version
                assert inner.prefixlen > outer.prefixlen


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("allowed_egress", "10.0.0.0/33"),
        ("allowed_egress", "10.0.0.5/32:99999"),
        ("allowed_egress", "10.0.0.5/32:http"),
        ("allowed_egress", "169.254.169.254/32"),
        ("allowed_egress", "169.254.169.254/32:80"),
        ("cluster_cidrs", "here"),
        ("dns_cidrs", "10.0.0.1/8"),
        ("namespace", "Not A Name"),
        ("gateway_ports", "https"),
        ("workers", "0"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(setting: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"KAPPA_{setting.upper()}") as refused:
        load(**{setting: value})
    assert "\n" not in str(refused.value)
