"""Downloads of code from https URLs that stand in resources: whoever may write a Function chooses where the gateway connects to.

So it connects to public addresses only, unless a setting says otherwise, follows a few redirects and holds each to the same rules, takes
no more bytes than an archive may have, and waits no longer than a bounded time. The digest that the resource names decides what is
taken; nothing of an answer that has another one is kept or shown.
"""

from __future__ import annotations

import asyncio
import hashlib
from ipaddress import ip_address
from pathlib import Path
from ssl import SSLContext
from typing import Final
from urllib.parse import urljoin, urlsplit

import aiohttp

from kappa_gateway.kubernetes.public_addresses import PrivateAddress, PublicAddresses, PublicResolver

SECONDS: Final = 120.0
"""For all of a download."""
REDIRECTS: Final = 5
_CONNECT_SECONDS: Final = 10.0
_CHUNK: Final = 256 * 1024
_MOVED: Final = frozenset({301, 302, 303, 307, 308})


class DownloadError(Exception):
    """The archive cannot be had; one line for people. ``passing``: it may be possible later on."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class Download:
    """See the module. ``addresses`` None allows all; ``ssl`` replaces the system's certificate authorities."""

    def __init__(self, *, addresses: PublicAddresses | None, limit: int, ssl: SSLContext | None = None) -> None:
        self._addresses = addresses
        self._limit = limit
        self._ssl = ssl

    async def fetch(self, url: str, target: Path, /, *, sha256: str) -> None:
        """Write the archive at ``url`` to ``target``. Raises DownloadError, and OSError of the local disk."""
        resolver = None if self._addresses is None else PublicResolver(self._addresses)
        connector = aiohttp.TCPConnector(resolver=resolver, ssl=self._ssl or True, use_dns_cache=False)
        timeout = aiohttp.ClientTimeout(total=SECONDS, sock_connect=_CONNECT_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
            try:
                for _ in range(REDIRECTS + 1):
                    self._check(url)
                    async with session.get(url, allow_redirects=False, headers={"User-Agent": "kappa"}) as response:
                        if response.status in _MOVED and "location" in response.headers:
                            url = urljoin(url, response.headers["location"])
                            continue
                        await self._keep(response, target, url=url, sha256=sha256)
                        return
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, PrivateAddress):
                    raise DownloadError(_private(url)) from error
                raise DownloadError(f"{url} cannot be reached: {error.os_error.strerror or error}", passing=True) from error
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise DownloadError(f"{url} cannot be read: {str(error) or type(error).__name__}", passing=True) from error
        raise DownloadError(f"{url} is reached by more than {REDIRECTS} redirects")

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise DownloadError(f"{url} is no https URL")
        try:
            ip_address(parts.hostname)
        except ValueError:
            return  # a name: the resolver sees to it
        if self._addresses is not None and not self._addresses.allows(parts.hostname):
            raise DownloadError(_private(url))

    async def _keep(self, response: aiohttp.ClientResponse, target: Path, *, url: str, sha256: str) -> None:
        if response.status != 200:
            raise DownloadError(f"{url} answers HTTP status {response.status}", passing=response.status >= 429)
        digest, size = hashlib.sha256(), 0
        with target.open("wb") as file:
            async for chunk in response.content.iter_chunked(_CHUNK):
                size += len(chunk)
                if size > self._limit:
                    raise DownloadError(f"{url} has more than {self._limit} bytes")
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
        if digest.hexdigest() != sha256:
            raise DownloadError(f"the archive at {url} has another SHA-256 than the function says: {digest.hexdigest()}")


def _private(url: str) -> str:
    return f"{url} leads to an address that is not public, which KAPPA_CODE_FROM_PRIVATE_ADDRESSES would have to allow"
