"""A resolved function version: what the index answers, and what a VersionSpec is made of."""

from __future__ import annotations

import msgspec

from kappa_core.resources import Configuration


class Version(msgspec.Struct, frozen=True, kw_only=True):
    account: str
    region: str
    function: str
    function_uid: str
    version: str
    """Number or ``$LATEST``."""
    configuration: Configuration

    @property
    def revision(self) -> str:
        """Names the spec; see VersionSpec.revision."""
        return f"{self.function_uid}.{self.version}.{self.configuration.digest()}"
