"""Finds gateways by name: resolves ``dns:host:port`` again and again and says which addresses there are.

A headless Service's name has one address for each gateway, so a gateway that starts is found by its address and one that stops is
missed. Resolving is frequent while something is missing and slow when all is well. A name that cannot be resolved says nothing:
what was found before stays. It refuses to dial, and to decide what becomes of a gateway that is no longer named.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from kappa_core.link.addresses import parse_source, tls_address

logger = logging.getLogger("kappa.supervisor")

FIRST_SECONDS: Final = 0.1
"""Until the next look when the first one found nobody; it doubles up to MISSING_SECONDS."""
MISSING_SECONDS: Final = 1.0
STABLE_SECONDS: Final = 5.0
"""Half of what a gateway that starts waits for the environments to say hello, and little for a thousand pods to ask of a DNS server."""

Resolve = Callable[[str, int], Awaitable[Iterable[str]]]
"""IP addresses of a host. Raises OSError."""


def next_look(*, found: bool, complete: bool, looks: int) -> float:
    """Seconds until the next look. ``looks``: how many there were."""
    if complete:
        return STABLE_SECONDS
    return MISSING_SECONDS if found else min(MISSING_SECONDS, FIRST_SECONDS * 2 ** min(looks, 10))


async def resolve(host: str, port: int) -> set[str]:
    """By the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return {str(address[0]) for *_, address in found}


class Discovery:
    """See the module. ``on_found`` is told all addresses after each look that found some; ``complete`` whether all is well."""

    def __init__(
        self,
        sources: Iterable[str],
        *,
        on_found: Callable[[set[str]], None],
        complete: Callable[[], bool],
        resolve: Resolve = resolve,
    ) -> None:
        """Raises AddressError."""
        self._sources = {parse_source(source): set[str]() for source in sources}
        self._on_found = on_found
        self._complete = complete
        self._resolve = resolve
        self._task: asyncio.Task[None] | None = None
        self._said = ""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_looking())

    async def close(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_looking(self) -> None:
        looks = 0
        while True:
            await asyncio.gather(*(self._look(host, port) for host, port in self._sources))
            found = set[str]().union(*self._sources.values())
            if found:
                self._on_found(found)
            pause = next_look(found=bool(found), complete=self._complete(), looks=looks)
            looks += 1
            # Spread, so that a thousand pods do not ask in step.
            await asyncio.sleep(pause * (0.75 + random.random() / 2))  # noqa: S311 - no secret

    async def _look(self, host: str, port: int) -> None:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is too long for the idna codec
            if str(error) != self._said:
                self._said = str(error)
                logger.warning("no gateway is found by the name %s: %s", host, error)
            return
        self._said = ""
        self._sources[(host, port)] = {tls_address(ip, port) for ip in addresses} or self._sources[(host, port)]
