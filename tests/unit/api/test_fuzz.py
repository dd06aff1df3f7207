"""No request whatever makes the control plane answer 500 or raise: everything a client can get wrong is the client's error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_core.limits import Limits
from kappa_gateway.api.app import build_app
from kappa_gateway.api.context import RequestContext
from kappa_gateway.api.model import OperationModel, Shape, load_model
from kappa_gateway.auth.identity import Defaults, Unverified

OPERATIONS = list(load_model().operations.values())
HEADERS = [b"authorization", b"content-type", b"content-length", b"x-amz-invocation-type", b"host", b"x-amz-client-context"]
Headers = Sequence[tuple[bytes, bytes]]
FUZZED = settings(max_examples=300, deadline=None)

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.just("QUJD"),
)
documents = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


def near_misses(shape: Shape, *, depth: int = 0) -> st.SearchStrategy[Any]:
    """JSON that follows a shape's structure with anything at the leaves, and sometimes anything in between."""
    if depth > 4:
        return documents
    inner: st.SearchStrategy[Any]
    match shape.type:
        case "structure":
            members = {member.wire_name: near_misses(member.shape, depth=depth + 1) for member in shape.members.values()}
            inner = st.fixed_dictionaries({}, optional=members)
        case "list" if shape.element is not None:
            inner = st.lists(near_misses(shape.element, depth=depth + 1), max_size=3)
        case "map" if shape.value is not None:
            inner = st.dictionaries(st.text(max_size=5), near_misses(shape.value, depth=depth + 1), max_size=3)
        case _:
            inner = leaves
    return st.one_of(inner, documents) if depth else inner


async def accept(context: RequestContext, params: dict[str, Any]) -> Mapping[str, Any]:
    return {}


APP = build_app(
    {operation.name: accept for operation in OPERATIONS},
    authenticator=Unverified(defaults=Defaults()),
    limits=Limits(),
    version="test",
)


def status_of(method: str, raw_path: bytes, *, query: bytes = b"", headers: Headers = (), body: bytes = b"") -> int:
    """The status of one request, whose answer must have Lambda's form if it is an error."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": raw_path.decode("latin-1"),
        "raw_path": raw_path,
        "query_string": query,
        "headers": list(headers),
        "client": None,
    }
    asyncio.run(APP(scope, receive, send))
    status: int = sent[0]["status"]
    if status >= 400:
        names = {name.decode() for name, _ in sent[0]["headers"]}
        assert {"x-amzn-errortype", "x-amzn-requestid"} <= names
        assert isinstance(json.loads(b"".join(message.get("body", b"") for message in sent[1:])), dict)
    return status


def concrete(operation: OperationModel, label: str = "x") -> bytes:
    """The operation's path with every label filled in."""
    return "/".join(label if part.startswith("{") else part for part in operation.uri.path.split("/")).encode()


@FUZZED
@given(operation=st.sampled_from(OPERATIONS), body=st.one_of(st.binary(max_size=200), documents.map(msgspec.json.encode)))
def test_any_body(operation: OperationModel, body: bytes) -> None:
    assert status_of(operation.method, concrete(operation), body=body) in {200, 201, 202, 204, 400}


@FUZZED
@given(data=st.data())
def test_any_body_that_almost_follows_the_model(data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from([operation for operation in OPERATIONS if operation.input is not None]))
    assert operation.input is not None
    body = msgspec.json.encode(data.draw(near_misses(operation.input)))
    assert status_of(operation.method, concrete(operation), body=body) in {200, 201, 202, 204, 400}


@FUZZED
@given(
    operation=st.sampled_from(OPERATIONS),
    label=st.text(st.sampled_from("aZ0-_.:$%/ü\x00 +&?"), min_size=1, max_size=12).map(lambda text: text.encode("utf-8")),
    query=st.binary(max_size=60),
)
def test_any_label_and_query(operation: OperationModel, label: bytes, query: bytes) -> None:
    path = b"/".join(label if part.startswith("{") else part.encode() for part in operation.uri.path.split("/"))
    assert status_of(operation.method, path, query=query) in {200, 201, 202, 204, 400, 404}


@FUZZED
@given(
    operation=st.sampled_from(OPERATIONS),
    data=st.data(),
    value=st.one_of(st.text(max_size=20), st.sampled_from(["true", "-1", "1e9", "2026-01-01", "٣", "1_000", " 7", "+7"])),
)
def test_any_value_for_a_known_query_parameter(operation: OperationModel, data: st.DataObject, value: str) -> None:
    members = operation.input.members.values() if operation.input is not None else []
    names = [member.wire_name for member in members if member.location == "querystring"] or ["none"]
    query = f"{data.draw(st.sampled_from(names))}={value}".encode("utf-8", "surrogatepass")
    assert status_of(operation.method, concrete(operation), query=query) in {200, 201, 202, 204, 400}


@FUZZED
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"]),
    path=st.one_of(st.binary(max_size=40), st.sampled_from([concrete(operation) for operation in OPERATIONS])),
    headers=st.lists(st.tuples(st.sampled_from(HEADERS), st.binary(max_size=40)), max_size=4),
)
def test_any_method_path_and_headers(method: str, path: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    assert status_of(method, b"/" + path.lstrip(b"/"), headers=headers) in {200, 201, 202, 204, 400, 404, 413}
