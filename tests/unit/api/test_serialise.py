"""Answers by the model: where members go, how values look, and what is a bug."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from kappa_gateway.api.context import Answer
from kappa_gateway.api.model import OperationName, load_model
from kappa_gateway.api.serialise import HttpResponse, UnserialisableAnswerError, serialise


def answer(name: str, result: Any) -> HttpResponse:
    return serialise(load_model().operations[OperationName(name)], result)


def test_none_and_absent_members_are_left_out() -> None:
    status, headers, body = answer("GetFunctionConcurrency", {"ReservedConcurrentExecutions": None})
    assert (status, headers, body) == (200, {"content-type": "application/json"}, b"{}")


def test_nested_none_is_left_out_and_empty_is_kept() -> None:
    configuration = {"FunctionName": "f", "Layers": [], "Environment": {"Variables": {}, "Error": None}, "KMSKeyArn": None}
    _, _, body = answer("GetFunction", {"Configuration": configuration})
    assert msgspec.json.decode(body) == {"Configuration": {"FunctionName": "f", "Layers": [], "Environment": {"Variables": {}}}}


def test_the_status_is_the_models_unless_bound_or_overridden() -> None:
    assert answer("CreateFunction", {})[0] == 201
    assert answer("DeleteFunction", {"StatusCode": 204}) == (204, {}, b"")
    assert answer("CreateFunction", Answer(members={}, status=202))[0] == 202
    assert answer("DeleteFunction", Answer(members={"StatusCode": 204}, status=202))[0] == 202


@pytest.mark.parametrize("name", ["DeleteAlias", "TagResource"])
def test_an_operation_without_output_has_no_body(name: str) -> None:
    assert answer(name, {}) == (204, {}, b"")


def test_header_members_and_payload_go_where_the_model_says() -> None:
    members = {"StatusCode": 200, "ExecutedVersion": "3", "FunctionError": None, "Payload": b'{"a": 1}'}
    status, headers, body = answer("Invoke", members)
    assert (status, body) == (200, b'{"a": 1}')
    assert headers == {"X-Amz-Executed-Version": "3", "content-type": "application/octet-stream"}


def test_further_headers_are_kept() -> None:
    assert answer("DeleteAlias", Answer(headers={"x-more": "1"}))[1] == {"x-more": "1"}


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC), id="utc"),
        pytest.param(datetime(2026, 1, 2, 5, 4, 5, 678_000, tzinfo=timezone(timedelta(hours=2))), id="elsewhere"),
        pytest.param(1767323045.678, id="epoch"),
    ],
)
def test_a_timestamp_is_epoch_seconds(moment: datetime | float) -> None:
    _, _, body = answer("GetEventSourceMapping", {"LastModified": moment})
    assert body == b'{"LastModified":1767323045.678}'


def test_dates_that_the_model_calls_strings_stay_strings() -> None:
    _, _, body = answer("GetFunctionConfiguration", {"LastModified": "2026-01-02T03:04:05.678+0000"})
    assert body == b'{"LastModified":"2026-01-02T03:04:05.678+0000"}'


@pytest.mark.parametrize(
    ("name", "members"),
    [
        pytest.param("GetFunction", {"Bogus": 1}, id="unknown-member"),
        pytest.param("GetFunction", {"Configuration": {"Bogus": 1}}, id="unknown-nested-member"),
        pytest.param("GetFunction", {"Configuration": []}, id="list-for-structure"),
        pytest.param("GetFunction", {"Tags": {"a": 1}}, id="number-for-string"),
        pytest.param("GetFunctionConfiguration", {"Timeout": "3"}, id="string-for-integer"),
        pytest.param("GetFunctionConfiguration", {"Timeout": True}, id="boolean-for-integer"),
        pytest.param("GetFunctionConfiguration", {"Layers": [None]}, id="null-in-a-list"),
        pytest.param("GetEventSourceMapping", {"LastModified": datetime(2026, 1, 2)}, id="timestamp-without-zone"),
        pytest.param("DeleteAlias", {"Name": "x"}, id="member-without-output"),
        pytest.param("Invoke", {"Payload": "text"}, id="text-for-payload"),
        pytest.param("InvokeWithResponseStream", {"EventStream": {}}, id="event-stream"),
    ],
)
def test_what_the_output_shape_cannot_hold_is_a_bug(name: str, members: dict[str, Any]) -> None:
    with pytest.raises(UnserialisableAnswerError):
        answer(name, members)
