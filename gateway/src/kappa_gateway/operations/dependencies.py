"""What operations are given: the ports, the limits and the settings, as one frozen value built where the gateway is wired.

The narrow protocols here name exactly what operations use of code handling, links and the settler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from kappa_core.limits import Limits
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import Code, Key, ProvisionedState, Sha256
from kappa_gateway.api.context import RequestContext
from kappa_gateway.operations.locks import KeyedLocks
from kappa_gateway.operations.storage import CodeStorage

Members = dict[str, Any]
"""Output members, keyed as in the service model."""


class CodeIntake(Protocol):
    """Checks an archive and takes it into the BlobStore; see kappa_gateway.code.intake."""

    async def from_zip(self, data: bytes, /) -> Code: ...

    async def from_s3(self, bucket: str, key: str, version: str | None, /, *, region: str) -> Code: ...


class Links(Protocol):
    """Makes links that download code for a short time."""

    def code_url(self, context: RequestContext, key: Key, sha256: Sha256, /) -> str: ...


class Settling(Protocol):
    """The settler as operations see it."""

    def changed(self, key: Key, /) -> None:
        """Something about this resource may need settling. Never blocks and never fails."""

    async def await_settled(self, key: Key, seconds: float, /) -> bool:
        """Wait until nothing is under way for this function or version. False after ``seconds``."""


class OperationSettings(msgspec.Struct, frozen=True, kw_only=True):
    strict_states: bool = False
    """Refuse at once what meets a Pending function or an update in progress, as AWS does, instead of waiting for it."""
    settle_wait_seconds: float = 30.0
    """How long such a request waits before it gets AWS's error after all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependencies:
    store: ResourceStore
    intake: CodeIntake
    links: Links
    settle: Settling
    limits: Limits
    clock: Callable[[], int]
    """Epoch milliseconds."""
    locks: KeyedLocks
    """Shared with the settler."""
    settings: OperationSettings = field(default_factory=OperationSettings)
    storage: CodeStorage = field(default_factory=CodeStorage)
    provisioned: Callable[[Key], ProvisionedState | None] = lambda key: None
    """The state of a version's or alias's provisioned concurrency at this moment, where this gateway is the one that knows; None where
    the store tells."""
