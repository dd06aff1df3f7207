"""Output members of an operation into an HTTP response: status, headers and body, each by the model's location.

Last in the flow of a success; errors take :mod:`kappa_gateway.wire`. Absent and None members are left out, as AWS leaves them out. It
refuses members that the model does not know and values of another type: both are bugs of an operation, and a client that parses by
the model would silently lose them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final

import msgspec

from kappa_gateway.api.context import Answer
from kappa_gateway.api.model import OperationModel, Shape

HttpResponse = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""

_PYTHON_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "double": (int, float),
    "float": (int, float),
    "boolean": (bool,),
    "blob": (bytes,),
    "timestamp": (datetime, int, float),
    "structure": (Mapping,),
    "map": (Mapping,),
    "list": (list, tuple),
}


class UnserialisableAnswerError(Exception):
    """An operation answered what its output shape cannot hold. A bug; the caller sees ServiceException."""


def serialise(operation: OperationModel, result: Answer | Mapping[str, Any]) -> HttpResponse:
    """The response for an operation's success.

    Raises
    ------
    UnserialisableAnswerError
        If the members do not fit the output shape.
    """
    answer = result if isinstance(result, Answer) else Answer(members=result)
    status = operation.status if answer.status is None else answer.status
    headers = dict(answer.headers)
    shape = operation.output
    if shape is None:
        if answer.members:
            raise UnserialisableAnswerError(f"{operation.name} has no output, but members were answered")
        return status, headers, b""
    _refuse_unknown(shape, answer.members)
    body_members: dict[str, Any] = {}
    for name, value in answer.members.items():
        if value is None:
            continue
        member = shape.members[name]
        if member.location == "statusCode":
            status = int(value) if answer.status is None else answer.status
        elif member.location == "header":
            headers[member.wire_name] = _header_text(member.shape, value, path=name, timestamp_format=member.timestamp_format)
        elif name != shape.payload:
            body_members[member.wire_name] = render(member.shape, value, path=name, timestamp_format=member.timestamp_format)
    if status in {204, 304}:
        return status, headers, b""
    if shape.payload is not None:
        return status, headers, _payload(shape, answer.members.get(shape.payload), headers=headers)
    headers.setdefault("content-type", "application/json")
    return status, headers, msgspec.json.encode(body_members)


def render(shape: Shape, value: Any, *, path: str, timestamp_format: str | None = None) -> Any:
    """A value as JSON has it: blobs in base64, timestamps as epoch seconds unless the model says otherwise."""
    if not _fits(shape, value):
        raise UnserialisableAnswerError(f"{path}: {type(value).__name__} does not fit {shape.name} ({shape.type})")
    match shape.type:
        case "structure":
            _refuse_unknown(shape, value, path=path)
            return {
                member.wire_name: render(member.shape, inner, path=f"{path}.{name}", timestamp_format=member.timestamp_format)
                for name, member in shape.members.items()
                if (inner := value.get(name)) is not None
            }
        case "list" if shape.element is not None:
            return [render(shape.element, item, path=f"{path}[]") for item in value]
        case "map" if shape.value is not None:
            return {key: render(shape.value, item, path=f"{path}.{key}") for key, item in value.items()}
        case "blob":
            return base64.b64encode(value).decode("ascii")
        case "timestamp":
            return _timestamp(value, timestamp_format=timestamp_format or "unixTimestamp")
        case _:
            return value


def _fits(shape: Shape, value: object) -> bool:
    return isinstance(value, _PYTHON_TYPES[shape.type]) and (shape.type == "boolean" or not isinstance(value, bool))


def _refuse_unknown(shape: Shape, members: Mapping[str, Any], *, path: str = "answer") -> None:
    unknown = members.keys() - shape.members.keys()
    if unknown:
        raise UnserialisableAnswerError(f"{path}: {shape.name} has no {', '.join(sorted(unknown))}")


def _payload(shape: Shape, value: Any, *, headers: dict[str, str]) -> bytes:
    assert shape.payload is not None
    payload = shape.members[shape.payload].shape
    if value is None:
        return b""
    if payload.event_stream:
        raise UnserialisableAnswerError(f"{shape.name} is an event stream; only the invoke path sends these")
    if payload.type == "blob":
        headers.setdefault("content-type", "application/octet-stream")
        if not isinstance(value, bytes):
            raise UnserialisableAnswerError(f"{shape.payload}: {type(value).__name__} does not fit {payload.name} (blob)")
        return value
    headers.setdefault("content-type", "application/json")
    return msgspec.json.encode(render(payload, value, path=shape.payload))


def _header_text(shape: Shape, value: Any, *, path: str, timestamp_format: str | None) -> str:
    if shape.type == "timestamp":
        return str(_timestamp(value, timestamp_format=timestamp_format or "rfc822"))
    rendered = render(shape, value, path=path)
    return ("true" if rendered else "false") if isinstance(rendered, bool) else str(rendered)


def _timestamp(value: datetime | float, *, timestamp_format: str) -> float | str:
    moment = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    if moment.tzinfo is None:
        raise UnserialisableAnswerError("a timestamp without a time zone")
    match timestamp_format:
        case "iso8601":
            return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case "rfc822":
            return format_datetime(moment.astimezone(UTC), usegmt=True)
        case _:
            return round(moment.timestamp(), 3)
