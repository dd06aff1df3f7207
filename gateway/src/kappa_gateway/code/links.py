"""Signed links to archives: what ``Code.Location`` holds. A link carries its own signature, since who follows it sends no other."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from kappa_core.resources import Sha256

CODE_LINK_SECONDS: Final = 600
"""AWS's links live ten minutes: docs.aws.amazon.com/lambda/latest/api/API_GetFunction.html."""


class CodeLinks:
    """Makes and checks links. ``secret`` stays the same over restarts, so that a link survives one; ``now`` is Unix seconds."""

    def __init__(self, secret: bytes, *, now: Callable[[], float]) -> None:
        self._secret = secret
        self._now = now

    def path(self, sha256: Sha256, *, name: str) -> str:
        """Path and query of a link that works for CODE_LINK_SECONDS and downloads as ``<name>.zip``."""
        expires = int(self._now()) + CODE_LINK_SECONDS
        return f"/_kappa/code/{sha256}?expires={expires}&name={quote(name, safe='')}&signature={self._sign(sha256, expires)}"

    def valid(self, sha256: str, *, expires: str, signature: str) -> bool:
        """Whether a link is ours and not yet expired."""
        if not expires.isascii() or not expires.isdigit() or len(expires) > 12 or int(expires) < self._now():
            return False
        return hmac.compare_digest(self._sign(sha256, int(expires)).encode(), signature.encode())

    def _sign(self, sha256: str, expires: int) -> str:
        return hmac.digest(self._secret, f"code/{sha256}/{expires}".encode(), hashlib.sha256).hex()
