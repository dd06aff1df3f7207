"""Which addresses a URL in a resource may lead to: public ones, so that nobody reads through the gateway what it can reach itself.

Asked for every address that a name resolves to, right before it is connected to, so that a name that changes its mind between a
check and a connection (DNS rebinding) gains nothing. Pure but for the resolver's question.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

_NAT64: Final = ip_network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an IPv4 address."""


class PrivateAddress(OSError):
    """The address is not public."""


class PublicAddresses:
    """See the module. ``private`` are further networks that count as private, such as the cluster's own."""

    def __init__(self, *, private: Sequence[str] = ()) -> None:
        self._private: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(each) for each in private)

    def allows(self, text: str, /) -> bool:
        """Whether an address may be connected to; what is no address may not."""
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address in _NAT64:
            return self._is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        return all(self._is_public(each) for each in (address, *_inside(address)))

    def _is_public(self, address: IPv4Address | IPv6Address) -> bool:
        if not address.is_global or address.is_multicast or address.is_reserved:
            return False
        return not any(address.version == network.version and address in network for network in self._private)


def _inside(address: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    """IPv4 addresses that an IPv6 address leads to by way of a gateway."""
    if isinstance(address, IPv4Address):
        return ()
    found = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()))
    return tuple(each for each in found if each is not None)


class PublicResolver(AbstractResolver):
    """Resolves names for aiohttp, and only to public addresses. A name of which one address is private is refused whole."""

    def __init__(self, addresses: PublicAddresses) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Raises PrivateAddress, and OSError where there is no such name."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results = []
        for kind, _, protocol, _, place in found:
            if not self._addresses.allows(str(place[0])):
                raise PrivateAddress(f"{host} leads to an address that is not public")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(place[0]),
                    port=int(place[1]),
                    family=kind,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        return None
