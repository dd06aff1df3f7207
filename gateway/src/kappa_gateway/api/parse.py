"""An HTTP request into the input members of an operation: path labels, query, headers and body, each by the model's location.

Second in the flow, after routing. What cannot be read as the operation's input at all (malformed JSON, a string where a number
belongs, broken base64) is refused here with SerializationException; what can be read but breaks a constraint is left for
:mod:`.validate`. Members that the model does not know are dropped, and null means absent, both as AWS does. The texts are those
recorded from AWS's front ends; where none is known, the text says what is wrong.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from kappa_core.errors import SerializationException
from kappa_gateway.api.model import Member, OperationModel, Shape

_INTEGER_BITS: Final = {"integer": 31, "long": 63}
_JAVA_NAME: Final = {
    "string": "a String",
    "integer": "an Integer",
    "long": "a Long",
    "double": "a Double",
    "float": "a Float",
    "boolean": "an Boolean",  # the front ends' own spelling
    "blob": "a Blob",
    "timestamp": "a Timestamp",
}
_LIST_UNEXPECTED: Final = "Start of list found where not expected"
_MAP_UNEXPECTED: Final = "Start of structure or map found where not expected."
_BASE64_SLICE: Final = 1 << 20
"""Characters decoded at once (a multiple of four): a 50 MiB zip must not hold the interpreter for one long call."""


def parse_request(
    operation: OperationModel,
    *,
    labels: Mapping[str, str],
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
    body: bytes,
) -> dict[str, Any]:
    """The input members of a request that was routed to ``operation``.

    Parameters
    ----------
    labels
        Decoded path labels, see :class:`.model.UriTemplate`.
    query
        Decoded pairs in the order sent, see :func:`parse_query`.
    headers
        Names in lower case.
    body
        The whole body; empty means an empty JSON object.

    Raises
    ------
    SerializationException
        If a value has the wrong form for its shape.
    """
    params: dict[str, Any] = {}
    if operation.input is None:
        return params
    json_members: list[Member] = []
    for member in operation.input.members.values():
        value: Any = None
        match member.location:
            case "uri":
                value = _from_text(member, labels[member.wire_name])
            case "querystring":
                value = _from_query(member, query)
            case "header":
                text = headers.get(member.wire_name.lower())
                value = None if text is None else _from_text(member, text)
            case "headers":
                prefix = member.wire_name.lower()
                value = {name[len(prefix) :]: text for name, text in headers.items() if name.startswith(prefix)} or None
            case "statusCode" | None:
                if member.name == operation.input.payload:
                    value = _from_payload(member, body)
                elif operation.input.payload is None:
                    json_members.append(member)
        if value is not None:
            params[member.name] = value
    if json_members:
        params.update(_from_object(json_members, decode_json_object(body)))
    return params


def parse_query(query_string: bytes) -> list[tuple[str, str]]:
    """The decoded pairs of a raw query string. Unlike a form, a pair may be empty; broken UTF-8 becomes U+FFFD."""
    pairs = []
    for part in query_string.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((_decoded(name), _decoded(value)))
    return pairs


def decode_json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; nothing and null are empty ones."""
    if not body.strip(b" \t\r\n"):
        return {}
    try:
        decoded = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise SerializationException(f"Could not parse request body into json: {error}") from None
    if decoded is None:
        return {}
    if not isinstance(decoded, dict):
        raise SerializationException(_LIST_UNEXPECTED if isinstance(decoded, list) else "Expected null")
    return decoded


def _decoded(raw: bytes) -> str:
    return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8", "replace")


# -- path, query and headers: everything is text -------------------------------------------------------------------
def _from_query(member: Member, query: Sequence[tuple[str, str]]) -> Any:
    shape = member.shape
    if shape.type == "list":
        assert shape.element is not None
        texts = [value for name, value in query if name == member.wire_name]
        return [_scalar_from_text(shape.element, text, timestamp_format=None) for text in texts] or None
    for name, value in query:
        if name == member.wire_name:
            return _from_text(member, value)
    return None


def _from_text(member: Member, text: str) -> Any:
    return _scalar_from_text(member.shape, text, timestamp_format=member.timestamp_format)


def _scalar_from_text(shape: Shape, text: str, *, timestamp_format: str | None) -> Any:
    mismatch = SerializationException(f"STRING_VALUE can not be converted to {_JAVA_NAME.get(shape.type, shape.type)}")
    match shape.type:
        case "string":
            return text
        case "boolean":
            if text.lower() not in {"true", "false"}:
                raise mismatch
            return text.lower() == "true"
        case "integer" | "long":
            # int() alone would take spaces, underscores and other scripts' digits.
            if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
                raise mismatch
            return _in_range(shape, int(text))
        case "double" | "float":
            try:
                number = float(text)
            except ValueError:
                raise mismatch from None
            if not math.isfinite(number):
                raise mismatch
            return number
        case "timestamp":
            return _timestamp_from_text(text, timestamp_format=timestamp_format)
        case "blob":
            return _blob_from_base64(text)
        case _:
            raise mismatch


def _timestamp_from_text(text: str, *, timestamp_format: str | None) -> datetime:
    try:
        if timestamp_format == "rfc822":
            moment = parsedate_to_datetime(text)
        else:
            try:
                return _timestamp_from_epoch(float(text))
            except ValueError:
                moment = datetime.fromisoformat(text)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)
    except (ValueError, OverflowError):
        raise SerializationException("STRING_VALUE can not be converted to a Timestamp") from None


def _timestamp_from_epoch(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise SerializationException("NUMBER_VALUE can not be converted to a Timestamp") from None


# -- body ----------------------------------------------------------------------------------------------------------
def _from_payload(member: Member, body: bytes) -> Any:
    match member.shape.type:
        case "blob":
            return body
        case "string":
            return body.decode("utf-8", "replace") if body else None
        case _:
            return _from_json(member.shape, decode_json_object(body), timestamp_format=None) if body else None


def _from_object(members: Iterable[Member], decoded: Mapping[str, Any]) -> dict[str, Any]:
    return {
        member.name: _from_json(member.shape, value, timestamp_format=member.timestamp_format)
        for member in members
        if (value := decoded.get(member.wire_name)) is not None
    }


def _from_json(shape: Shape, value: Any, *, timestamp_format: str | None) -> Any:
    """A decoded JSON value as the shape's Python value; nulls inside lists and maps stay for the validator to name."""
    if value is None:
        return None
    match shape.type:
        case "structure":
            if isinstance(value, dict):
                return _from_object(shape.members.values(), value)
            raise SerializationException(_LIST_UNEXPECTED if isinstance(value, list) else "Expected null")
        case "list":
            if isinstance(value, list) and shape.element is not None:
                return [_from_json(shape.element, item, timestamp_format=None) for item in value]
            raise SerializationException(_MAP_UNEXPECTED if isinstance(value, dict) else "Expected list or null")
        case "map":
            if isinstance(value, dict) and shape.value is not None:
                return {key: _from_json(shape.value, item, timestamp_format=None) for key, item in value.items()}
            raise SerializationException(_LIST_UNEXPECTED if isinstance(value, list) else "Expected map or null")
        case _:
            return _scalar_from_json(shape, value, timestamp_format=timestamp_format)


def _scalar_from_json(shape: Shape, value: Any, *, timestamp_format: str | None) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match shape.type:
        case "string" if isinstance(value, str):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" | "long" if is_number and value == int(value):  # 3.0 is an integer in JavaScript's JSON
            return _in_range(shape, int(value))
        case "double" | "float" if is_number:
            return float(value)
        case "timestamp" if is_number:
            return _timestamp_from_epoch(value)
        case "timestamp" if isinstance(value, str):
            return _timestamp_from_text(value, timestamp_format=timestamp_format)
        case "blob" if isinstance(value, str):
            return _blob_from_base64(value)
        case _:
            raise _mismatch(shape, value)


def _mismatch(shape: Shape, value: Any) -> SerializationException:
    match value:
        case bool():
            kind = "TRUE_VALUE" if value else "FALSE_VALUE"
        case int() | float():
            kind = "NUMBER_VALUE"
        case list():
            return SerializationException(_LIST_UNEXPECTED)
        case dict():
            return SerializationException(_MAP_UNEXPECTED)
        case _:
            kind = "STRING_VALUE"
    return SerializationException(f"{kind} can not be converted to {_JAVA_NAME.get(shape.type, shape.type)}")


def _in_range(shape: Shape, number: int) -> int:
    bound = 1 << _INTEGER_BITS[shape.type]
    if not -bound <= number < bound:
        raise SerializationException(f"NUMBER_VALUE can not be converted to {_JAVA_NAME[shape.type]}")
    return number


def _blob_from_base64(text: str) -> bytes:
    if len(text) % 4:
        raise SerializationException(
            f"Value can not be converted to a Blob: Base64 encoded length is expected a multiple of 4 bytes but found: {len(text)}"
        )
    pieces = []
    try:
        for start in range(0, len(text), _BASE64_SLICE):
            piece = text[start : start + _BASE64_SLICE]
            if start + _BASE64_SLICE < len(text) and piece.endswith("="):
                raise binascii.Error("Excess data after padding")
            pieces.append(binascii.a2b_base64(piece, strict_mode=True))
    except (binascii.Error, ValueError) as error:
        raise SerializationException(f"Value can not be converted to a Blob: {error}") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
