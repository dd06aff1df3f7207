"""LogStore: what functions printed and what the platform said about them, by log group and stream.

Logs are best effort by design: an append may be dropped under pressure (and is counted), never an invocation delayed by one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

from kappa_core.resources import AccountId, Region


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


def selected(
    event: LogEvent,
    *,
    stream: str | None = None,
    stream_prefix: str | None = None,
    request_id: str | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
    after_event_id: str | None = None,
) -> bool:
    """Whether :meth:`LogStore.read` with these conditions returns ``event``."""
    return (
        (after_event_id is None or event.event_id > after_event_id)
        and (start_ms is None or event.timestamp_ms >= start_ms)
        and (end_ms is None or event.timestamp_ms < end_ms)
        and (stream is None or event.stream == stream)
        and (stream_prefix is None or event.stream.startswith(stream_prefix))
        and (request_id is None or event.request_id == request_id)
    )


class LogReader(Protocol):
    """Log events, wherever they are."""

    @property
    def missing(self) -> frozenset[str]:
        """Places whose events the latest reads lack because they do not answer; none where everything is in one place."""

    async def read(
        self,
        group: LogGroup,
        /,
        *,
        stream: str | None = None,
        stream_prefix: str | None = None,
        request_id: str | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        after_event_id: str | None = None,
        limit: int = 10_000,
        newest: bool = False,
    ) -> list[LogEvent]:
        """Events in order of arrival; ``start_ms`` inclusive, ``end_ms`` exclusive. ``newest`` takes the last ``limit``."""

    def follow(self, group: LogGroup, /, *, start_ms: int | None = None) -> AsyncGenerator[LogEvent, None]:
        """Events as they arrive, beginning with the stored ones from ``start_ms``; without it only those that arrive from this
        call on. Ends only by being closed, itself or with the store."""


class LogStore(LogReader, Protocol):
    def append(self, group: LogGroup, events: Sequence[LogEvent], /) -> None:
        """Never waits: whoever hands lines over is the loop that dispatches. A read that begins later finds them."""

    async def groups(self, account: AccountId, region: Region, /, *, prefix: str = "") -> list[LogGroup]: ...

    async def delete_group(self, group: LogGroup, /) -> None: ...

    async def close(self) -> None: ...
