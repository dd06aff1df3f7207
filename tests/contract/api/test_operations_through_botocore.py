"""Every operation of the installed service model, sent by botocore over HTTP: what its handler gets, what botocore reads back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from botocore.response import StreamingBody
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from api_server import lambda_client, served
from kappa_core.limits import Limits
from kappa_gateway.api.app import build_app
from kappa_gateway.api.context import Answer, RequestContext
from kappa_gateway.api.model import load_model
from kappa_gateway.auth.identity import Defaults, Unverified
from model_strategies import structures

BOTOCORE_MODEL = botocore.session.Session().get_service_model("lambda")
EVENT_STREAMS = {"InvokeWithResponseStream"}
QUICK = settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # shrinking would send thousands of requests
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
# Bounds that Kappa sets lower than the model; the generated values are the model's.
WIDE = Limits(memory_max_mb=32768, timeout_max=5400)


class Stage:
    """Records what reached a handler and answers what the test laid out."""

    def __init__(self) -> None:
        self.operation = ""
        self.params: dict[str, Any] = {}
        self.context: RequestContext | None = None
        self.answer: Mapping[str, Any] | Answer = {}

    def handler(self, name: str) -> Callable[[RequestContext, dict[str, Any]], Awaitable[Mapping[str, Any] | Answer]]:
        async def operation(context: RequestContext, params: dict[str, Any]) -> Mapping[str, Any] | Answer:
            self.operation, self.params, self.context = name, params, context
            return self.answer

        return operation


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


@pytest.fixture(scope="module")
def client(stage: Stage) -> Iterator[Any]:
    registry = {name: stage.handler(name) for name in load_model().operations}
    app = build_app(registry, authenticator=Unverified(defaults=Defaults()), limits=WIDE, version="test")
    with served(app) as url, lambda_client(url) as made:
        yield made


def acceptable(name: str, params: dict[str, Any]) -> bool:
    """Whether Lambda's departures from its model (tested on their own) leave generated parameters alone."""
    if name == "CreateFunction" and len(params["FunctionName"]) > 64 and ":" not in params["FunctionName"]:
        return False
    return params.get("EphemeralStorage", {}).get("Size", 0) <= 10240


@pytest.mark.parametrize("name", BOTOCORE_MODEL.operation_names)
@QUICK
@given(data=st.data())
def test_the_handler_gets_what_the_client_sent_and_the_client_reads_what_the_handler_answered(
    name: str, stage: Stage, client: Any, data: st.DataObject
) -> None:
    model = BOTOCORE_MODEL.operation_model(name)
    runtimes = {"Runtime": "python3.12"}  # no longer creatable ones are refused, see the departures
    sent = (
        data.draw(structures(model.input_shape).filter(lambda params: acceptable(name, params)), label="input")
        if model.input_shape
        else {}
    )
    sent |= {member: value for member, value in runtimes.items() if member in sent}
    status_members = {
        member: shape.serialization["location"]
        for member, shape in (model.output_shape.members.items() if model.output_shape else ())
        if shape.serialization.get("location") == "statusCode"
    }
    answered: dict[str, Any] = {}
    if model.output_shape is not None and name not in EVENT_STREAMS:
        answered = data.draw(structures(model.output_shape, skip=frozenset(status_members)), label="output")
    if model.http["responseCode"] == 204:
        answered = {}
    stage.answer = answered
    stage.operation = ""

    response = getattr(client, xform_name(name))(**sent)

    assert stage.operation == name
    received = dict(stage.params)
    for filled_by_client in set(received) - set(sent):
        token = model.input_shape.members[filled_by_client]
        assert token.metadata.get("idempotencyToken") or received[filled_by_client] in (b"", {}), (
            f"{filled_by_client} came from nowhere"
        )
        del received[filled_by_client]
    assert received == sent
    assert stage.context is not None
    metadata = response.pop("ResponseMetadata")
    assert metadata["HTTPStatusCode"] == model.http["responseCode"]
    assert metadata["RequestId"] == stage.context.request_id
    for member in status_members:
        assert response.pop(member) == model.http["responseCode"]
    if name in EVENT_STREAMS:
        response.pop("EventStream").close()
        return
    read = {key: value.read() if isinstance(value, StreamingBody) else value for key, value in response.items()}
    payload = model.output_shape.serialization.get("payload") if model.output_shape else None
    if payload is not None and payload not in answered:
        assert read.pop(payload) == b""
    assert read == answered
