"""The guard against web pages: a page open in a browser on the same machine must neither invoke nor read anything.

First thing that sees a request of the embedded gateway, before the hot path and FastAPI, and before any signature: without keys,
reaching the port is all it takes to run code. Three ways in are closed. A page of a name that an attacker points to 127.0.0.1 (DNS
rebinding) sends that name as Host: only loopback names and configured hosts are served. A page elsewhere that posts a form or calls
``fetch`` without CORS carries its Origin: it must be one of our own. A navigation or an image may lack Origin, but browsers then say
``Sec-Fetch-Site``. SDKs, the CLI and curl send neither, so nothing changes for them. No CORS headers are ever answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from kappa_core.errors import LambdaError

Headers = Sequence[tuple[bytes, bytes]]
_LOOPBACK_NAMES: Final = frozenset({"localhost"})
_LOOPBACK_SUFFIX: Final = ".localhost"
"""RFC 6761: resolvers answer loopback for every name under it, so no attacker can own one. S3-style host names need it."""
_OWN_SITES: Final = frozenset({b"same-origin", b"none"})


class ForbiddenHostException(LambdaError):
    """Kappa's own: the request names a host that this gateway does not serve, or comes from a web page of another origin."""

    code = "AccessDeniedException"
    status = 403
    message_key = "Message"
    typed = False


class BrowserGuard:
    """Decides by Host, Origin and Sec-Fetch-Site whether a request may be looked at at all.

    Parameters
    ----------
    allowed_hosts
        Host names or addresses, without a port, that are served beside loopback; ``*`` switches the check of Host off (behind a
        proxy that checks it), which leaves DNS rebinding open.
    addresses
        Serve every address that is no name: a page can be rebound to an address only by a name of its own.
    """

    def __init__(self, allowed_hosts: Iterable[str] = (), *, addresses: bool = False) -> None:
        allowed = frozenset(_bare_host(host) for host in allowed_hosts)
        self._any_host = "*" in allowed

        @lru_cache(maxsize=256)
        def is_allowed(host: bytes) -> bool:
            name = _host_of(host)
            if name is None:
                return False
            return self._any_host or name in allowed or _is_loopback(name) or (addresses and _is_address(name))

        self.allows_host: Callable[[bytes], bool] = is_allowed
        """Whether this value of a Host header is served here."""

    def check(self, headers: Headers) -> None:
        """Refuse a request that a foreign web page may have sent.

        Parameters
        ----------
        headers
            As ASGI delivers them, names in lower case.

        Raises
        ------
        ForbiddenHostException
            Status 403, saying which header is to blame and which setting allows it.
        """
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not self.allows_host(hosts[0]):
            shown = hosts[0].decode("latin-1")[:256] if hosts else ""
            raise ForbiddenHostException(
                f"The host {shown!r} is not served here. If it is yours, add it to the allowed hosts (KAPPA_ALLOWED_HOSTS)."
            )
        for name, value in headers:
            if name == b"origin" and not self._is_own_origin(value, hosts[0]):
                raise ForbiddenHostException("Requests from web pages of another origin are refused.")
            if name == b"sec-fetch-site" and value not in _OWN_SITES:
                raise ForbiddenHostException("Requests from web pages of another site are refused.")

    def _is_own_origin(self, origin: bytes, host: bytes) -> bool:
        """An origin is ours if its authority is the very one that the request names: another port is another program's page."""
        if origin == b"null":  # sandboxed frames, file: pages, redirects: anybody's
            return False
        scheme, separator, authority = origin.partition(b"://")
        return bool(separator) and scheme in {b"http", b"https"} and authority.lower() == host.lower()


def _host_of(header: bytes) -> str | None:
    """The name or address of a Host header without its port, or None if it is malformed."""
    try:
        parts = urlsplit(f"//{header.decode('ascii')}")
        _ = parts.port  # raises if it is not a number
    except (ValueError, UnicodeDecodeError):
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment or not parts.hostname:
        return None
    return parts.hostname.rstrip(".")


def _bare_host(configured: str) -> str:
    return configured.strip().lower().strip("[]").rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    if name in _LOOPBACK_NAMES or name.endswith(_LOOPBACK_SUFFIX):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback
