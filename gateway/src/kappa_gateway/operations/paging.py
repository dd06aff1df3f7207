"""Pages of list operations: an opaque marker that says behind which item the next page begins.

A marker stays good when items come and go; it names a place in the order, not a position.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from kappa_core.errors import InvalidParameterValueException
from kappa_core.limits import PAGE_ITEMS

T = TypeVar("T")
Place = tuple[str, ...]


def page_size(params: dict[str, Any]) -> int:
    """MaxItems, but never more than AWS returns at once."""
    return min(int(params.get("MaxItems") or PAGE_ITEMS), PAGE_ITEMS)


def place_of(params: dict[str, Any], *, parts: int) -> Place | None:
    """What Marker says, in ``parts`` strings; None for the first page. Raises InvalidParameterValueException."""
    marker = params.get("Marker")
    if not marker:
        return None
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(marker), type=tuple[str, ...])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        place = ()
    if len(place) != parts:
        raise InvalidParameterValueException("The Marker is not one that this operation has returned.")
    return place


def marker_of(place: Sequence[str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(list(place))).decode()


async def take_page(items: AsyncIterator[T], *, size: int, place: Callable[[T], Place]) -> tuple[list[T], str | None]:
    """The first ``size`` items, and the marker of the next page if there is one."""
    page: list[T] = []
    async for item in items:
        if len(page) == size:
            return page, marker_of(place(page[-1]))
        page.append(item)
    return page, None


async def iterate(items: Sequence[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


def page_members(name: str, items: list[dict[str, Any]], marker: str | None) -> dict[str, Any]:
    """The answer of a list operation."""
    return {name: items} if marker is None else {name: items, "NextMarker": marker}
