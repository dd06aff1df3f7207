"""Times as objects have them: RFC 3339 in UTC. The API server's own are whole seconds, Kappa's have milliseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MICROSECOND: Final = timedelta(microseconds=1)


def timestamp(epoch_ms: int) -> str:
    """Such as ``2026-11-21T10:30:00.000Z``."""
    moment = _EPOCH + epoch_ms * _MILLISECOND
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03d}Z"


def milliseconds(text: str | None) -> int:
    """Epoch milliseconds, rounded down; 0 where there is no time, or none that can be read."""
    moment = _moment(text)
    return 0 if moment is None else (moment - _EPOCH) // _MILLISECOND


def precise_timestamp(seconds: float) -> str:
    """Epoch seconds to the microsecond, such as ``2026-11-21T10:30:00.250000Z``."""
    moment = _EPOCH + round(seconds * 1_000_000) * _MICROSECOND
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def precise_seconds(text: str) -> float | None:
    """Epoch seconds; None for what cannot be read."""
    moment = _moment(text)
    return None if moment is None else ((moment - _EPOCH) // _MICROSECOND) / 1_000_000


def _moment(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
