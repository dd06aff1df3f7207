"""What destinations and dead-letter queues are told of an event: AWS's records, key by key in the recorded order.

Pure: the facts of an event that ended in, the bytes that are sent out. Where they go is :mod:`kappa_gateway.events.delivery`'s business.
Sources: docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html and recorded deliveries.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from kappa_core.rules.retry import Condition

ERROR_MESSAGE_BYTES: Final = 1024
"""Of the ErrorMessage attribute of a dead letter."""
EVENT_SOURCE: Final = "lambda"
"""``source`` of an EventBridge event: as recorded; the documentation of 2026 says ``aws.lambda``."""

_encode: Final = msgspec.json.Encoder().encode
_is_json: Final = msgspec.json.Decoder(msgspec.Raw).decode


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """An event that has come to its end, with everything its records say."""

    event_id: str
    function_arn: str
    """Qualified: ``:$LATEST`` where the caller named no qualifier."""
    condition: Condition
    ended_ms: int
    """Epoch milliseconds."""
    invoke_count: int
    executed_version: str = ""
    """Empty where the function did not run: the record then has no response."""
    function_error: str = ""
    response: bytes = b""
    """What the function answered last."""
    status: int = 200
    """HTTP status of the last attempt."""
    error_message: str = ""
    """Of the last attempt, where it failed."""

    @property
    def succeeded(self) -> bool:
        return self.condition == "Success"


def record(ending: Ending, *, payload: bytes) -> bytes:
    """The invocation record of version 1.0, as JSON. Event and response are embedded as they came."""
    members: dict[str, Any] = {
        "version": "1.0",
        "timestamp": iso(ending.ended_ms),
        "requestContext": {
            "requestId": ending.event_id,
            "functionArn": ending.function_arn,
            "condition": ending.condition,
            "approximateInvokeCount": ending.invoke_count,
        },
        "requestPayload": embedded(payload),
    }
    if ending.executed_version:
        context: dict[str, Any] = {"statusCode": ending.status, "executedVersion": ending.executed_version}
        if ending.function_error:
            context["functionError"] = ending.function_error
        members["responseContext"] = context
        members["responsePayload"] = embedded(ending.response)
    return _encode(members)


def eventbridge_entry(ending: Ending, *, record: bytes, bus_arn: str) -> dict[str, Any]:
    """An entry of PutEvents."""
    return {
        "Source": EVENT_SOURCE,
        "DetailType": f"Lambda Function Invocation Result - {'Success' if ending.succeeded else 'Failure'}",
        "Detail": record.decode(),
        "EventBusName": bus_arn,
        "Resources": [bus_arn, ending.function_arn],
    }


def s3_key(ending: Ending, *, function_name: str, unique: str) -> str:
    """Where a record goes in a bucket; ``unique`` is a UUID."""
    moment = datetime.fromtimestamp(ending.ended_ms / 1000, UTC)
    return f"aws/lambda/async/{function_name}/{moment:%Y/%m/%d}/{moment:%Y-%m-%dT%H.%M.%S}-{unique}"


def dead_letter_attributes(ending: Ending) -> dict[str, dict[str, str]]:
    """MessageAttributes of a message in a dead-letter queue; its body is the event as it came.

    SQS refuses an empty attribute, so that ErrorMessage is left out where there is none.
    """
    attributes = {
        "RequestID": {"DataType": "String", "StringValue": ending.event_id},
        "ErrorCode": {"DataType": "Number", "StringValue": str(ending.status)},
    }
    message = ending.error_message.encode("utf-8", "replace")[:ERROR_MESSAGE_BYTES].decode("utf-8", "ignore")
    if message:
        attributes["ErrorMessage"] = {"DataType": "String", "StringValue": message}
    return attributes


def error_message_of(response: bytes) -> str:
    """``errorMessage`` of a function error's payload; empty where it has none."""
    try:
        decoded = msgspec.json.decode(response)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    message = decoded.get("errorMessage") if isinstance(decoded, dict) else None
    return message if isinstance(message, str) else ""


def embedded(document: bytes) -> msgspec.Raw | str:
    """JSON as it is; what a custom runtime answered and is none becomes a string."""
    try:
        _is_json(document)
        document.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return document.decode("utf-8", "replace")
    return msgspec.Raw(document)


def iso(epoch_ms: int) -> str:
    """Such as ``2026-11-21T10:30:00.123Z``."""
    moment = datetime.fromtimestamp(epoch_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03d}Z"
