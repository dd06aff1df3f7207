"""What an Invoke request may say, and what is refused before any function is looked for."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import pytest

from kappa_core.errors import InvalidRequestContentException, RequestEntityTooLargeException, ValidationException
from kappa_gateway.hot.request import (
    INVOKE,
    INVOKE_WITH_RESPONSE_STREAM,
    ClientDisconnected,
    HotOperation,
    check_event,
    parse,
    read_body,
)


def scope(path: str, *, query: bytes = b"") -> dict[str, Any]:
    return {"raw_path": path.encode(), "path": path, "query_string": query}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        pytest.param("POST", "/2015-03-31/functions/f/invocations", INVOKE, id="name"),
        pytest.param("POST", "/2015-03-31/functions/f/invocations/", INVOKE, id="trailing slash"),
        pytest.param("GET", "/2015-03-31/functions/f/invocations", None, id="another method"),
        pytest.param("POST", "/2015-03-31/functions/f/versions", None, id="another operation"),
        pytest.param(
            "POST", "/2021-11-15/functions/f/response-streaming-invocations", INVOKE_WITH_RESPONSE_STREAM, id="streaming"
        ),
        pytest.param("POST", "/2015-03-31/functions/f/response-streaming-invocations", None, id="streaming of another date"),
    ],
)
def test_only_the_operations_that_invoke_take_the_hot_path(method: str, path: str, expected: HotOperation | None) -> None:
    matching = [operation for operation in (INVOKE, INVOKE_WITH_RESPONSE_STREAM) if operation.matches(method, path)]
    assert matching == ([] if expected is None else [expected])


def test_an_arn_in_the_path_is_decoded_exactly_once() -> None:
    request = parse(
        scope("/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af%2525/invocations"), {}
    )
    assert request.name == "arn:aws:lambda:us-east-1:000000000000:function:f%25"


def test_the_qualifier_comes_from_the_query() -> None:
    assert parse(scope("/2015-03-31/functions/f/invocations", query=b"Qualifier=%24LATEST"), {}).qualifier == "$LATEST"
    assert parse(scope("/2015-03-31/functions/f/invocations"), {}).qualifier is None


def test_a_trace_header_is_kept_and_one_is_made_where_there_is_none() -> None:
    path = scope("/2015-03-31/functions/f/invocations")
    assert parse(path, {b"x-amzn-trace-id": b"Root=1-x"}).trace_id == "Root=1-x"
    made = parse(path, {}).trace_id
    assert made.startswith("Root=1-")
    assert made.endswith(";Sampled=0")


def test_both_wrong_enumerations_are_named_in_one_answer_in_awss_words() -> None:
    with pytest.raises(ValidationException) as caught:
        parse(scope("/2015-03-31/functions/f/invocations"), {b"x-amz-invocation-type": b"Soon", b"x-amz-log-type": b"All"})
    assert caught.value.message == (
        "2 validation errors detected: Value 'Soon' at 'invocationType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Event, RequestResponse, DryRun]; Value 'All' at 'logType' failed to satisfy "
        "constraint: Member must satisfy enum value set: [None, Tail]"
    )


def test_a_client_context_is_decoded_to_one_line() -> None:
    header = base64.b64encode(b'{"custom":\r\n{"a": 1}}')
    request = parse(scope("/2015-03-31/functions/f/invocations"), {b"x-amz-client-context": header})
    assert request.client_context == '{"custom":  {"a": 1}}'


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"%%%", id="not base64"),
        pytest.param(base64.b64encode(b"{"), id="not JSON"),
        pytest.param(base64.b64encode(b'["a"]'), id="not an object"),
        pytest.param(base64.b64encode(b'{"a": "\xff"}'), id="not UTF-8"),
        pytest.param(base64.b64encode(b"[" * 2000), id="nested too deeply"),
        pytest.param(b"A" * 4000, id="long"),
    ],
)
def test_a_broken_client_context_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidRequestContentException):
        parse(scope("/2015-03-31/functions/f/invocations"), {b"x-amz-client-context": header})


def test_an_empty_body_means_an_empty_object() -> None:
    assert check_event(b"") == b"{}"


@pytest.mark.parametrize("body", [b'{"a":1}', b'"text"', b"null", b" [1, 2] ", '{"ä": "€"}'.encode()])
def test_an_event_is_passed_on_as_it_came(body: bytes) -> None:
    assert check_event(body) is body


@pytest.mark.parametrize("body", [b"{", b"NaN", b"1 2", b"'x'", b'"\xff\xfe"', b"\x00", b"[" * 5000 + b"]" * 5000])
def test_what_is_not_json_is_refused_with_awss_words(body: bytes) -> None:
    with pytest.raises(InvalidRequestContentException, match=r"^Could not parse request body into json: "):
        check_event(body)


def body_of(messages: Sequence[dict[str, Any]], *, limit: int, declared: bytes | None = None) -> bytes:
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    return asyncio.run(read_body(receive, limit=limit, declared=declared))


def test_a_body_in_pieces_is_joined() -> None:
    pieces = [{"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"c"}]
    assert body_of(pieces, limit=3) == b"abc"


@pytest.mark.parametrize(
    ("pieces", "declared"),
    [
        pytest.param([], b"5", id="announced"),
        pytest.param([{"type": "http.request", "body": b"abcde"}], None, id="at once"),
        pytest.param(
            [{"type": "http.request", "body": b"abc", "more_body": True}] * 2, None, id="in pieces, not read to the end"
        ),
    ],
)
def test_a_body_over_the_limit_is_refused_without_reading_on(pieces: list[dict[str, Any]], declared: bytes | None) -> None:
    with pytest.raises(
        RequestEntityTooLargeException, match="Request must be smaller than 4 bytes for the InvokeFunction operation"
    ):
        body_of(pieces, limit=4, declared=declared)


def test_a_client_that_leaves_before_its_body_is_complete_is_told_apart() -> None:
    with pytest.raises(ClientDisconnected):
        body_of([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}], limit=9)


def test_a_streaming_invocation_is_never_asynchronous() -> None:
    path = scope("/2021-11-15/functions/f/response-streaming-invocations")
    with pytest.raises(ValidationException) as caught:
        parse(path, {b"x-amz-invocation-type": b"Event"}, operation=INVOKE_WITH_RESPONSE_STREAM)
    assert caught.value.message == (
        "1 validation error detected: Value 'Event' at 'invocationType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [RequestResponse, DryRun]"
    )


def test_the_name_is_what_stands_between_the_parts_of_the_operations_own_path() -> None:
    path = scope("/2021-11-15/functions/f%3A1/response-streaming-invocations/", query=b"Qualifier=1")
    request = parse(path, {}, operation=INVOKE_WITH_RESPONSE_STREAM)
    assert (request.name, request.qualifier) == ("f:1", "1")
