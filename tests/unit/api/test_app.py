"""What the application refuses to be built with, how it reads big bodies, and what `kappa api coverage` says of it."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from kappa_core.limits import Limits
from kappa_core.ports.store import OwnedElsewhere, Rejected, StoreError, StoreUnavailable
from kappa_gateway.api.app import build_app
from kappa_gateway.api.context import Registry, RequestContext
from kappa_gateway.api.coverage import coverage
from kappa_gateway.api.model import load_model
from kappa_gateway.auth.identity import Defaults, Unverified


def build(registry: Registry) -> Any:
    return build_app(registry, authenticator=Unverified(defaults=Defaults()), limits=Limits(), version="test")


async def nothing(context: RequestContext, params: dict[str, Any]) -> Mapping[str, Any]:
    return {}


async def request(app: Any, *, method: str, path: str, chunks: list[bytes], disconnect: bool = False) -> list[dict[str, Any]]:
    """The messages that an application sends for one request."""
    sent: list[dict[str, Any]] = []
    pending = [{"type": "http.request", "body": chunk, "more_body": disconnect or chunk is not chunks[-1]} for chunk in chunks]

    async def receive() -> dict[str, Any]:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return sent


def test_a_registry_with_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="CreateFunktion"):
        build({"CreateFunktion": nothing})


def test_a_big_body_is_parsed_beside_the_event_loop_and_arrives_whole() -> None:
    received: dict[str, Any] = {}

    async def create(context: RequestContext, params: dict[str, Any]) -> Mapping[str, Any]:
        received.update(params, thread=threading.get_ident())
        return {"FunctionName": params["FunctionName"]}

    code = bytes(3 << 20)
    body = b'{"FunctionName":"f","Role":"arn:aws:iam::000000000000:role/r","Code":{"ZipFile":"' + base64.b64encode(code) + b'"}}'
    chunks = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    sent = asyncio.run(request(build({"CreateFunction": create}), method="POST", path="/2015-03-31/functions", chunks=chunks))
    assert sent[0]["status"] == 201
    assert received["Code"]["ZipFile"] == code
    assert received["thread"] == threading.get_ident(), "the operation itself belongs to the event loop"


def test_a_client_that_hangs_up_while_sending_runs_nothing() -> None:
    called: list[str] = []

    async def create(context: RequestContext, params: dict[str, Any]) -> Mapping[str, Any]:
        called.append("create")
        return {}

    app = build({"CreateFunction": create})
    asyncio.run(request(app, method="POST", path="/2015-03-31/functions", chunks=[b'{"FunctionName'], disconnect=True))
    assert called == []


def test_a_server_without_raw_paths_is_served_from_the_decoded_one() -> None:
    seen: list[str] = []

    async def get(context: RequestContext, params: dict[str, Any]) -> Mapping[str, Any]:
        seen.append(params["FunctionName"])
        return {}

    async def scenario() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            return

        path = "/2015-03-31/functions/arn:aws:lambda:eu-west-1:111122223333:function:f:$LATEST"
        await build({"GetFunction": get})(
            {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}, receive, send
        )

    asyncio.run(scenario())
    assert seen == ["arn:aws:lambda:eu-west-1:111122223333:function:f:$LATEST"]


def test_coverage_lists_every_operation_once_and_says_what_is_served() -> None:
    rows = coverage({"GetFunction": nothing})
    assert [row.operation for row in rows] == sorted(load_model().operations)
    assert {row.operation for row in rows if row.implemented} == {"GetFunction", "Invoke", "InvokeWithResponseStream"}
    assert {row.operation for row in coverage([], hot=[]) if row.implemented} == set()
    by_arn = next(row for row in rows if row.operation == "GetLayerVersionByArn")
    assert (by_arn.method, by_arn.path) == ("GET", "/2018-10-31/layers?find=LayerVersion")


@pytest.mark.parametrize(
    ("raised", "status", "code", "said"),
    [
        (OwnedElsewhere(".spec.timeout by 'argocd'"), 409, b"ResourceConflictException", ".spec.timeout by 'argocd'"),
        (Rejected("timeout must be at most 900"), 400, b"InvalidParameterValueException", "timeout must be at most 900"),
        (StoreUnavailable("10.0.0.1 refuses"), 500, b"ServiceException", "cannot be read or written at the moment"),
    ],
)
def test_what_the_store_does_not_take_is_answered_in_words_that_help_the_caller(
    raised: StoreError, status: int, code: bytes, said: str
) -> None:
    async def create(context: RequestContext, params: dict[str, Any]) -> Mapping[str, Any]:
        raise raised

    body = b'{"FunctionName":"f","Role":"arn:aws:iam::000000000000:role/r","Code":{"ZipFile":"eA=="}}'
    sent = asyncio.run(request(build({"CreateFunction": create}), method="POST", path="/2015-03-31/functions", chunks=[body]))
    assert sent[0]["status"] == status
    assert dict(sent[0]["headers"])[b"x-amzn-errortype"] == code
    assert said in sent[1]["body"].decode()
    assert "10.0.0.1" not in sent[1]["body"].decode()
