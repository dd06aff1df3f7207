"""Addresses of gateways."""

from __future__ import annotations

import pytest

from kappa_core.link.addresses import Address, AddressError, parse_address


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("unix:/run/kappa/link", Address("/run/kappa/link")),
        ("unix:/with:colon", Address("/with:colon")),
        ("tcp:127.0.0.1:9001", Address("", "127.0.0.1", 9001)),
        ("tcp:[::1]:9001", Address("", "::1", 9001)),
        ("tcp:gateway.kappa.svc:9001", Address("", "gateway.kappa.svc", 9001)),
        ("tls:10.0.0.7:9443", Address("", "10.0.0.7", 9443, tls=True)),
        ("tls:[fd00::7]:9443", Address("", "fd00::7", 9443, tls=True)),
    ],
)
def test_an_address_names_a_socket_file_or_a_host_and_port(address: str, target: Address) -> None:
    assert parse_address(address) == target


@pytest.mark.parametrize(
    "address", ["", "unix:", "tcp:", "tcp:host", "tcp:host:", "tcp::80", "tls:host", "tcp:host:http", "http://host:80"]
)
def test_anything_else_is_refused_with_what_was_given(address: str) -> None:
    with pytest.raises(AddressError, match="neither"):
        parse_address(address)
