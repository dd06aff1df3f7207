"""Records for destinations and dead-letter queues, byte for byte as AWS writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kappa_core.rules.destination_record import (
    Ending,
    dead_letter_attributes,
    error_message_of,
    eventbridge_entry,
    record,
    s3_key,
)

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:hello:$LATEST"
ENDED_MS = 1_795_000_000_123


def ending(**members: Any) -> Ending:
    given = {
        "event_id": "b4f9b5b0-0000-4000-8000-000000000001",
        "function_arn": FUNCTION,
        "condition": "RetriesExhausted",
        "ended_ms": ENDED_MS,
        "invoke_count": 3,
        "executed_version": "$LATEST",
        "function_error": "Unhandled",
        "response": b'{"errorMessage": "no", "errorType": "ValueError"}',
        "error_message": "no",
    }
    return Ending(**(given | members))


def test_a_failures_record_has_awss_keys_in_awss_order() -> None:
    assert record(ending(), payload=b'{"n": 1}') == (
        b'{"version":"1.0","timestamp":"2026-11-18T11:06:40.123Z","requestContext":{"requestId":"b4f9b5b0-0000-4000-8000-000000000001",'
        b'"functionArn":"arn:aws:lambda:us-east-1:000000000000:function:hello:$LATEST","condition":"RetriesExhausted",'
        b'"approximateInvokeCount":3},"requestPayload":{"n": 1},"responseContext":{"statusCode":200,"executedVersion":"$LATEST",'
        b'"functionError":"Unhandled"},"responsePayload":{"errorMessage": "no", "errorType": "ValueError"}}'
    )


def test_a_success_names_no_function_error() -> None:
    made = json.loads(record(ending(condition="Success", function_error="", response=b'"done"', invoke_count=1), payload=b"{}"))
    assert list(made) == ["version", "timestamp", "requestContext", "requestPayload", "responseContext", "responsePayload"]
    assert made["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST"}
    assert made["responsePayload"] == "done"


def test_an_event_that_never_ran_has_no_response() -> None:
    made = json.loads(record(ending(condition="ZeroReservedConcurrency", executed_version="", invoke_count=0), payload=b"[]"))
    assert list(made) == ["version", "timestamp", "requestContext", "requestPayload"]
    assert made["requestContext"]["condition"] == "ZeroReservedConcurrency"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(
            b'{"big": 12345678901234567890, "pi": 3.10}', b'{"big": 12345678901234567890, "pi": 3.10}', id="not re-encoded"
        ),
        pytest.param('"gr\u00fc\u00df"'.encode(), '"gr\u00fc\u00df"'.encode(), id="not ASCII"),
        pytest.param(b"plain", b'"plain"', id="not JSON"),
        pytest.param(b"", b'""', id="empty"),
        pytest.param(b'"\xff"', b'"\\"\xef\xbf\xbd\\""', id="not UTF-8"),
    ],
)
def test_what_the_function_answered_is_embedded_as_it_is_and_the_record_stays_json(payload: bytes, expected: bytes) -> None:
    made = record(ending(response=payload), payload=b"{}")
    json.loads(made)
    assert made.endswith(b'"responsePayload":' + expected + b"}")


def test_an_eventbridge_entry_names_the_result_the_bus_and_the_function() -> None:
    bus = "arn:aws:events:us-east-1:000000000000:event-bus/mine"
    entry = eventbridge_entry(ending(), record=b"{}", bus_arn=bus)
    assert entry == {
        "Source": "lambda",
        "DetailType": "Lambda Function Invocation Result - Failure",
        "Detail": "{}",
        "EventBusName": bus,
        "Resources": [bus, FUNCTION],
    }
    assert eventbridge_entry(ending(condition="Success"), record=b"{}", bus_arn=bus)["DetailType"].endswith("Success")


def test_a_record_in_a_bucket_lies_under_its_function_and_day() -> None:
    key = s3_key(ending(), function_name="hello", unique="u")
    assert key == "aws/lambda/async/hello/2026/11/18/2026-11-18T11.06.40-u"


def test_a_dead_letter_carries_three_attributes() -> None:
    assert dead_letter_attributes(ending()) == {
        "RequestID": {"DataType": "String", "StringValue": "b4f9b5b0-0000-4000-8000-000000000001"},
        "ErrorCode": {"DataType": "Number", "StringValue": "200"},
        "ErrorMessage": {"DataType": "String", "StringValue": "no"},
    }


def test_an_error_message_is_cut_at_a_kibibyte_without_half_a_character() -> None:
    message = dead_letter_attributes(ending(error_message="x" + "\u00fc" * 1000))["ErrorMessage"]["StringValue"]
    assert message == "x" + "\u00fc" * 511
    assert "ErrorMessage" not in dead_letter_attributes(ending(error_message=""))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b'{"errorMessage": "no"}', "no"),
        (b'{"errorMessage": 3}', ""),
        (b"[1]", ""),
        (b"not json", ""),
        (b'{"errorMessage": "\xff"}', ""),
    ],
)
def test_the_error_message_is_taken_from_the_functions_error(response: bytes, expected: str) -> None:
    assert error_message_of(response) == expected
