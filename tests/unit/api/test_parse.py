"""What a body may be and what it becomes: JSON types, base64, numbers, timestamps, and AWS's words for what does not fit."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from kappa_core.errors import SerializationException
from kappa_gateway.api.model import OperationName, UriTemplate, load_model
from kappa_gateway.api.parse import parse_query, parse_request


def parse(name: str, body: bytes = b"", *, query: bytes = b"", labels: dict[str, str] | None = None) -> dict[str, Any]:
    operation = load_model().operations[OperationName(name)]
    return parse_request(operation, labels=labels or {}, query=parse_query(query), headers={}, body=body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b'{"Timeout": "3"}', "STRING_VALUE can not be converted to an Integer", id="string-for-integer"),
        pytest.param(b'{"Timeout": true}', "TRUE_VALUE can not be converted to an Integer", id="boolean-for-integer"),
        pytest.param(b'{"Timeout": false}', "FALSE_VALUE can not be converted to an Integer", id="false-for-integer"),
        pytest.param(b'{"Timeout": 3.5}', "NUMBER_VALUE can not be converted to an Integer", id="fraction-for-integer"),
        pytest.param(b'{"Timeout": 2147483648}', "NUMBER_VALUE can not be converted to an Integer", id="beyond-32-bits"),
        pytest.param(b'{"Timeout": 1e300}', "NUMBER_VALUE can not be converted to an Integer", id="huge"),
        pytest.param(b'{"Timeout": []}', "Start of list found where not expected", id="list-for-integer"),
        pytest.param(b'{"Handler": 1}', "NUMBER_VALUE can not be converted to a String", id="number-for-string"),
        pytest.param(b'{"Handler": {}}', "Start of structure or map found where not expected.", id="object-for-string"),
        pytest.param(b'{"Publish": "true"}', "STRING_VALUE can not be converted to an Boolean", id="string-for-boolean"),
        pytest.param(b'{"Publish": 1}', "NUMBER_VALUE can not be converted to an Boolean", id="number-for-boolean"),
        pytest.param(b'{"Code": []}', "Start of list found where not expected", id="list-for-structure"),
        pytest.param(b'{"Code": "x"}', "Expected null", id="string-for-structure"),
        pytest.param(b'{"Layers": {}}', "Start of structure or map found where not expected.", id="object-for-list"),
        pytest.param(b'{"Layers": "x"}', "Expected list or null", id="string-for-list"),
        pytest.param(b'{"Tags": []}', "Start of list found where not expected", id="list-for-map"),
        pytest.param(b'{"Tags": 1}', "Expected map or null", id="number-for-map"),
        pytest.param(b"[]", "Start of list found where not expected", id="body-a-list"),
        pytest.param(b'"x"', "Expected null", id="body-a-string"),
    ],
)
def test_another_json_type_is_refused_in_the_front_ends_words(body: bytes, message: str) -> None:
    with pytest.raises(SerializationException) as caught:
        parse("CreateFunction", body)
    assert caught.value.message == message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="cut-off"),
        pytest.param(b"{'a': 1}", id="single-quotes"),
        pytest.param(b"{} {}", id="two-values"),
        pytest.param(b"NaN", id="nan"),
        pytest.param(b'{"Handler": "\xff"}', id="broken-utf-8"),
        pytest.param('{"Handler": "x"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b"[" * 100_000, id="deep-list"),
        pytest.param(b'{"Code":' * 100_000, id="deep-object"),
        pytest.param(b'{"Timeout": ' + b"9" * 10_000 + b"}", id="ten-thousand-digits"),
        pytest.param(b'{"Handler": "\\ud800"}', id="lone-surrogate"),
    ],
)
def test_malformed_json_is_refused(body: bytes) -> None:
    with pytest.raises(SerializationException, match="Could not parse request body into json"):
        parse("CreateFunction", body)


@pytest.mark.parametrize("body", [b"", b"  \n", b"null", b"{}"])
def test_nothing_is_an_empty_object(body: bytes) -> None:
    assert parse("CreateFunction", body) == {}


def test_unknown_members_are_ignored_and_null_means_absent() -> None:
    body = b'{"FunctionName": "f", "Bogus": {"a": [1]}, "Handler": null, "Code": {"ZipFile": null, "Other": 1}}'
    assert parse("CreateFunction", body) == {"FunctionName": "f", "Code": {}}


def test_an_integral_number_with_a_fraction_part_is_an_integer() -> None:
    params = parse("CreateFunction", b'{"Timeout": 3.0, "MemorySize": 1.28e2}')
    assert params == {"Timeout": 3, "MemorySize": 128}
    assert all(type(value) is int for value in params.values())


def test_a_double_takes_integers() -> None:
    params = parse("CreateAlias", b'{"RoutingConfig": {"AdditionalVersionWeights": {"2": 1}}}', labels={"FunctionName": "f"})
    weight = params["RoutingConfig"]["AdditionalVersionWeights"]["2"]
    assert (weight, type(weight)) == (1.0, float)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1 << 20, (1 << 20) + 1, 3 * (1 << 20) // 4, 5_000_000])
def test_a_blob_of_any_size_comes_back_whole(size: int) -> None:
    blob = bytes(index % 251 for index in range(size))
    body = b'{"Code": {"ZipFile": "' + base64.b64encode(blob) + b'"}}'
    assert parse("CreateFunction", body)["Code"]["ZipFile"] == blob


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("abc", id="cut-off"),
        pytest.param("ab c", id="space"),
        pytest.param("ab-_", id="url-safe"),
        pytest.param("a===", id="padding-only"),
        pytest.param("ab==cdef", id="after-padding"),
        pytest.param("äöüß", id="not-ascii"),
        pytest.param("QUI=" * 300_000, id="padding-at-a-slice-boundary"),
    ],
)
def test_broken_base64_is_refused(text: str) -> None:
    with pytest.raises(SerializationException, match="can not be converted to a Blob"):
        parse("CreateFunction", f'{{"Code": {{"ZipFile": "{text}"}}}}'.encode())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), id="iso"),
        pytest.param("2026-01-02T03:04:05.250%2B02:00", datetime(2026, 1, 2, 1, 4, 5, 250_000, tzinfo=UTC), id="offset"),
        pytest.param("1767323045", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), id="epoch"),
    ],
)
def test_a_timestamp_in_the_query_is_utc(text: str, moment: datetime) -> None:
    params = parse("ListDurableExecutionsByFunction", query=f"StartedAfter={text}".encode(), labels={"FunctionName": "f"})
    assert params["StartedAfter"] == moment
    assert params["StartedAfter"].tzinfo is UTC


@pytest.mark.parametrize("text", ["yesterday", "1e30", "nan", "inf", "0001-01-01T00:00:00%2B23:59", "99999999999999999999"])
def test_a_timestamp_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SerializationException, match="can not be converted to a Timestamp"):
        parse("ListDurableExecutionsByFunction", query=f"StartedAfter={text}".encode(), labels={"FunctionName": "f"})


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("True", True)])
def test_booleans_in_the_query(text: str, value: bool) -> None:
    params = parse("ListDurableExecutionsByFunction", query=f"ReverseOrder={text}".encode(), labels={"FunctionName": "f"})
    assert params["ReverseOrder"] is value


def test_a_greedy_label_takes_slashes_and_a_plain_one_does_not() -> None:
    assert UriTemplate("/a/{Rest+}/end").match(b"/a/b/c%2Fd/end") == {"Rest": "b/c/d"}
    assert UriTemplate("/a/{One}").match(b"/a/b/c") is None


def test_the_first_of_repeated_parameters_counts() -> None:
    assert parse("ListFunctions", query=b"MaxItems=1&MaxItems=2") == {"MaxItems": 1}


def test_a_query_without_values_keeps_its_names() -> None:
    assert parse_query(b"a&b=&&c=1=2") == [("a", ""), ("b", ""), ("c", "1=2")]
