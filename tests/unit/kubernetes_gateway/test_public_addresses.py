"""Addresses that a URL in a resource may lead to: public ones alone, in whatever way they are written."""

from __future__ import annotations

import asyncio

import pytest

from kappa_gateway.kubernetes.code_download import Download, DownloadError
from kappa_gateway.kubernetes.public_addresses import PrivateAddress, PublicAddresses, PublicResolver


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert PublicAddresses().allows(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "kubernetes.default.svc",
        "",
    ],
)
def test_what_only_the_gateway_can_reach_is_not(address: str) -> None:
    assert not PublicAddresses().allows(address)


def test_the_clusters_own_networks_count_as_private() -> None:
    addresses = PublicAddresses(private=("8.8.0.0/16", "2606:4700::/32"))
    assert not addresses.allows("8.8.8.8")
    assert not addresses.allows("::ffff:8.8.8.8")
    assert not addresses.allows("2606:4700:4700::1111")
    assert addresses.allows("9.9.9.9")


def test_a_name_that_leads_to_a_private_address_is_not_resolved() -> None:
    async def scenario() -> None:
        with pytest.raises(PrivateAddress):
            await PublicResolver(PublicAddresses()).resolve("localhost", 443)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("https://127.0.0.1/a.zip", "not public", id="loopback"),
        pytest.param("https://[::1]/a.zip", "not public", id="loopback of version 6"),
        pytest.param("https://169.254.169.254/latest/meta-data", "not public", id="metadata"),
        pytest.param("https://localhost/a.zip", "not public", id="a name"),
        pytest.param("http://example.com/a.zip", "no https URL", id="not encrypted"),
        pytest.param("file:///etc/passwd", "no https URL", id="a file"),
    ],
)
def test_a_download_connects_to_public_addresses_over_https_alone(url: str, words: str, tmp_path: object) -> None:
    async def scenario() -> None:
        download = Download(addresses=PublicAddresses(), limit=1000)
        with pytest.raises(DownloadError, match=words):
            await download.fetch(url, tmp_path / "code.zip", sha256="a" * 64)  # type: ignore[operator]

    asyncio.run(scenario())
