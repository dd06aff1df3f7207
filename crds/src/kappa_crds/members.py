"""AWS's member names as field names of objects (``EventSourceArn``, ``eventSourceARN``) and back, for structures kept as given.

ACK's spelling: camelCase with initialisms in capitals. Two names that ACK's generator mangles (``uRI``, ``type_``) are written as
people expect them. Keys that are data, such as those of tags, are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kappa_crds.times import precise_seconds, precise_timestamp

_IRREGULAR: Final = {
    "KMSKeyArn": "kmsKeyARN",
    "URI": "uri",
    "ConsumerGroupId": "consumerGroupID",
    "EventSourceArn": "eventSourceARN",
}
_REGULAR: Final = {field: member for member, field in _IRREGULAR.items()}
_DATA: Final = frozenset({"Tags", "Endpoints"})
"""Members that are maps with keys of their own."""
_TIMES: Final = frozenset({"StartingPositionTimestamp"})
"""Epoch seconds in AWS's protocol, RFC 3339 in an object."""


def field_name(member: str) -> str:
    return _IRREGULAR.get(member) or member[:1].lower() + member[1:]


def member_name(field: str) -> str:
    return _REGULAR.get(field) or field[:1].upper() + field[1:]


def camel(members: Mapping[str, Any]) -> dict[str, Any]:
    """Members of a structure, at any depth, as fields."""
    return {field_name(name): _field(name, value) for name, value in members.items()}


def pascal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The members that :func:`camel` made these fields of."""
    return {member_name(name): _member(member_name(name), value) for name, value in fields.items()}


def _field(name: str, value: Any) -> Any:
    if name in _TIMES and isinstance(value, int | float):
        return precise_timestamp(value)
    if isinstance(value, Mapping):
        return dict(value) if name in _DATA else camel(value)
    if isinstance(value, list | tuple):
        return [camel(one) if isinstance(one, Mapping) else one for one in value]
    return value


def _member(name: str, value: Any) -> Any:
    if name in _TIMES and isinstance(value, str):
        return precise_seconds(value) or value
    if isinstance(value, Mapping):
        return dict(value) if name in _DATA else pascal(value)
    if isinstance(value, list):
        return [pascal(one) if isinstance(one, Mapping) else one for one in value]
    return value
