"""SpecSeal: how a gateway knows a VersionSpec that a supervisor hands back for one that a gateway made.

A gateway that has just started learns from the HELLOs of supervisors what it has not seen: the specs of revisions that still run. On
one machine the supervisor is trusted with that. A pod is not, since its function can speak in its place: with a spec of its own
making it could count against another function's concurrency and write to another function's log. So ASSIGN carries a seal, which
the pod shows with the spec. All gateways share the key; pods never see it. It refuses to know what a spec says.
"""

from __future__ import annotations

import hashlib
import hmac


class SpecSeal:
    """See the module. ``key`` is any secret that the gateways share."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"kappa version spec", hashlib.sha256)

    def of(self, spec: bytes) -> bytes:
        """The seal of a spec in msgpack."""
        return hmac.digest(self._key, spec, hashlib.sha256)

    def fits(self, spec: bytes, seal: bytes) -> bool:
        return hmac.compare_digest(self.of(spec), seal)
