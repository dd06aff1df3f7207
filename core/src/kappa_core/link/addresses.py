"""Addresses of a link's two ends: ``unix:/path`` on one machine, ``tcp:host:port`` without and ``tls:host:port`` with a certificate.

Read and written here alone, by whoever listens (gateways) and whoever dials (supervisors, other gateways). It refuses to know who is to
be trusted at an address: that is in the context that the caller gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ssl


class AddressError(ValueError):
    """Not an address of a link; the message says what was given."""


class Address(NamedTuple):
    """The path of a Unix socket, or host and port."""

    path: str
    host: str = ""
    """Without the brackets of IPv6."""
    port: int = 0
    tls: bool = False


class Tls(NamedTuple):
    """What is asked of the other side: a certificate that this context accepts, for this name, whatever address it was found at."""

    context: ssl.SSLContext
    name: str


def parse_address(address: str) -> Address:
    """Raises AddressError."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix" and rest:
        return Address(rest)
    host, port = _host_and_port(rest)
    if scheme in {"tcp", "tls"} and host and port is not None:
        return Address("", host, port, tls=scheme == "tls")
    raise AddressError(f"{address!r} is neither unix:/path, tcp:host:port nor tls:host:port")


def parse_source(source: str) -> tuple[str, int]:
    """Host and port of ``dns:host:port``, the name of many addresses. Raises AddressError."""
    scheme, _, rest = source.partition(":")
    host, port = _host_and_port(rest)
    if scheme != "dns" or not host or port is None:
        raise AddressError(f"{source!r} is not dns:host:port")
    return host, port


def tls_address(ip: str, port: int) -> str:
    return f"tls:[{ip}]:{port}" if ":" in ip else f"tls:{ip}:{port}"


async def connect(make: Callable[[], asyncio.BaseProtocol], address: Address, *, tls: Tls | None) -> None:
    """A connection to ``address`` for the protocol that ``make`` returns. Raises OSError (of TLS: ssl.SSLError)."""
    loop = asyncio.get_running_loop()
    if address.path:
        await loop.create_unix_connection(make, address.path)
    elif address.tls and tls is not None:
        await loop.create_connection(make, address.host, address.port, ssl=tls.context, server_hostname=tls.name)
    else:
        await loop.create_connection(make, address.host, address.port)


def _host_and_port(text: str) -> tuple[str, int | None]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else None
