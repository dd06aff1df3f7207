"""Addresses of gateways."""

from __future__ import annotations

import pytest

from kappa_runtime.link.dialling import AddressError, parse_address


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("unix:/run/kappa/link", "/run/kappa/link"),
        ("unix:/with:colon", "/with:colon"),
        ("tcp:127.0.0.1:9001", ("127.0.0.1", 9001)),
        ("tcp:[::1]:9001", ("::1", 9001)),
        ("tcp:gateway.kappa.svc:9001", ("gateway.kappa.svc", 9001)),
    ],
)
def test_an_address_names_a_socket_file_or_a_host_and_port(address: str, target: str | tuple[str, int]) -> None:
    assert parse_address(address) == target


@pytest.mark.parametrize("address", ["", "unix:", "tcp:", "tcp:host", "tcp:host:", "tcp::80", "tcp:host:http", "http://host:80"])
def test_anything_else_is_refused_with_what_was_given(address: str) -> None:
    with pytest.raises(AddressError, match="neither"):
        parse_address(address)
