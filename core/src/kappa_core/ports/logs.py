"""LogStore: what functions printed and what the platform said about them, by log group and stream.

Logs are best effort by design: an append may be dropped under pressure (and is counted), never an invocation delayed by one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from kappa_core.resources import AccountId, Region

T = TypeVar("T")


class LogEvent(msgspec.Struct, frozen=True):
    timestamp_ms: int
    """Epoch milliseconds at which the supervisor read the line."""
    message: str
    """With its line break."""
    stream: str
    """``YYYY/MM/DD/[version]<32 hex>``."""
    request_id: str = ""
    event_id: str = ""
    """Set by the store: unique, stable, ascending in order of arrival."""
    ingestion_ms: int = 0
    """Set by the store."""


class LogGroup(msgspec.Struct, frozen=True, order=True):
    account: AccountId
    region: Region
    name: str


def event_id(batch: int, index: int) -> str:
    """The id of an event: 56 digits as CloudWatch's, in order of arrival also when compared as text."""
    return f"{batch:040d}{index:016d}"


PAGE: Final = 10_000
"""Log events that are read at once."""


class LogQuery(NamedTuple):
    """Which events of a group are read."""

    group: LogGroup
    stream: str | None = None
    stream_prefix: str | None = None
    request_id: str | None = None
    start_ms: int | None = None
    """Inclusive."""
    end_ms: int | None = None
    """Exclusive."""
    after_event_id: str | None = None
    limit: int = PAGE
    newest: bool = False
    """The last ``limit`` events instead of the first."""

    def selects(self, event: LogEvent) -> bool:
        """Whether ``event``, one of the group, is meant; how many may be is not asked."""
        return (
            (self.after_event_id is None or event.event_id > self.after_event_id)
            and (self.start_ms is None or event.timestamp_ms >= self.start_ms)
            and (self.end_ms is None or event.timestamp_ms < self.end_ms)
            and (self.stream is None or event.stream == self.stream)
            and (self.stream_prefix is None or event.stream.startswith(self.stream_prefix))
            and (self.request_id is None or event.request_id == self.request_id)
        )

    def page(self, found: list[T], /) -> list[T]:
        """As many of those that it selects, in order of arrival, as it asks for."""
        return found[max(0, len(found) - self.limit) :] if self.newest else found[: self.limit]


class LogReader(Protocol):
    """Log events, wherever they are."""

    @property
    def missing(self) -> frozenset[str]:
        """Places whose events the latest reads lack because they do not answer; none where everything is in one place."""

    async def read(self, query: LogQuery, /) -> list[LogEvent]:
        """Events in order of arrival."""

    def follow(self, group: LogGroup, /, *, start_ms: int | None = None) -> AsyncGenerator[LogEvent, None]:
        """Events as they arrive, beginning with the stored ones from ``start_ms``; without it only those that arrive from this
        call on. Ends only by being closed, itself or with the store."""


class LogStore(LogReader, Protocol):
    def append(self, group: LogGroup, events: Sequence[LogEvent], /) -> None:
        """Never waits: whoever hands lines over is the loop that dispatches. A read that begins later finds them."""

    async def groups(self, account: AccountId, region: Region, /, *, prefix: str = "") -> list[LogGroup]: ...

    async def delete_group(self, group: LogGroup, /) -> None: ...

    async def close(self) -> None: ...
