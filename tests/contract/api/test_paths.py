"""Paths as different clients send them: encoded ARNs, trailing slashes, slashes inside labels, fixed query pairs."""

from __future__ import annotations

import http.client
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from api_server import lambda_client, served
from kappa_core.limits import Limits
from kappa_gateway.api.app import build_app
from kappa_gateway.api.context import RequestContext
from kappa_gateway.api.model import load_model
from kappa_gateway.auth.identity import Defaults, Unverified

ARN = "arn:aws:lambda:eu-west-1:111122223333:function:f:$LATEST"
Reached = list[tuple[str, dict[str, Any], RequestContext]]


_reached: Reached = []


@pytest.fixture
def reached(url: str) -> Reached:
    _reached.clear()
    return _reached


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    def recorder(name: str) -> Callable[[RequestContext, dict[str, Any]], Awaitable[dict[str, Any]]]:
        async def operation(context: RequestContext, params: dict[str, Any]) -> dict[str, Any]:
            _reached.append((name, params, context))
            return {}

        return operation

    registry = {name: recorder(name) for name in load_model().operations}
    app = build_app(registry, authenticator=Unverified(defaults=Defaults()), limits=Limits(), version="test")
    with served(app) as made:
        yield made


def send(url: str, method: str, path: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "operation", "params"),
    [
        pytest.param("GET", "/2015-03-31/functions", "ListFunctions", {}, id="no-slash"),
        pytest.param("GET", "/2015-03-31/functions/", "ListFunctions", {}, id="slash-of-older-models"),
        pytest.param("GET", "/2016-08-19/account-settings/", "GetAccountSettings", {}, id="slash-account-settings"),
        pytest.param("GET", f"/2015-03-31/functions/{ARN}", "GetFunction", {"FunctionName": ARN}, id="arn-plain"),
        pytest.param(
            "GET",
            "/2015-03-31/functions/" + ARN.replace(":", "%3A").replace("$", "%24"),
            "GetFunction",
            {"FunctionName": ARN},
            id="arn-encoded",
        ),
        pytest.param(
            "GET",
            "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aeu-west-1%3A111122223333%3Afunction%3Af",
            "ListTags",
            {"Resource": "arn:aws:lambda:eu-west-1:111122223333:function:f"},
            id="tags-arn",
        ),
        pytest.param(
            "GET",
            "/2018-10-31/layers?find=LayerVersion&Arn=arn%3Aaws%3Alambda%3Aeu-west-1%3A111122223333%3Alayer%3Al%3A3",
            "GetLayerVersionByArn",
            {"Arn": "arn:aws:lambda:eu-west-1:111122223333:layer:l:3"},
            id="fixed-query-pair",
        ),
        pytest.param("GET", "/2018-10-31/layers?MaxItems=5", "ListLayers", {"MaxItems": 5}, id="without-the-pair"),
        pytest.param(
            "GET",
            "/2019-09-30/functions/f/provisioned-concurrency?List=ALL",
            "ListProvisionedConcurrencyConfigs",
            {"FunctionName": "f"},
            id="list-all",
        ),
        pytest.param(
            "DELETE",
            "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aeu-west-1%3A111122223333%3Afunction%3Af?tagKeys=a%20b&tagKeys=c+d",
            "UntagResource",
            {"Resource": "arn:aws:lambda:eu-west-1:111122223333:function:f", "TagKeys": ["a b", "c d"]},
            id="query-list",
        ),
    ],
)
def test_a_path_reaches_its_operation(
    url: str, reached: Reached, method: str, path: str, operation: str, params: dict[str, Any]
) -> None:
    assert send(url, method, path) < 300
    assert [(name, given) for name, given, _ in reached] == [(operation, params)]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/2015-03-31/functions/a%2Fconfiguration", 400, id="encoded-slash-does-not-split"),
        pytest.param("/2015-03-31/functions/f%2541", 400, id="decoded-once"),
        pytest.param("/2015-03-31/functions/%ff%fe", 400, id="broken-utf-8"),
        pytest.param("/2015-03-31/functions/%", 400, id="broken-escape"),
        pytest.param("/2015-03-31/functions/f%00", 400, id="nul"),
        pytest.param("/2015-03-31/functions/f?Qualifier=%ff", 400, id="broken-utf-8-in-query"),
        pytest.param("/2015-03-31/functions?MaxItems=many", 400, id="no-number"),
        pytest.param("/2015-03-31/functions?MaxItems=%D9%A3", 400, id="arabic-digit"),
        pytest.param("/2015-03-31/functions?MaxItems=10001", 400, id="too-many"),
        pytest.param("/2015-03-31/functions?MaxItems=99999999999999999999999", 400, id="beyond-integer"),
        pytest.param("/2018-10-31/layers/l/versions/one", 400, id="label-no-number"),
    ],
)
def test_a_path_that_cannot_be_meant_is_the_clients_error(url: str, reached: Reached, path: str, status: int) -> None:
    assert send(url, "GET", path) == status
    assert reached == []


def test_account_and_region_come_from_the_credential_scope(url: str, reached: Reached) -> None:
    with lambda_client(url, access_key_id="123456789012", region="ap-south-1") as client:
        client.list_functions()
    with lambda_client(url, access_key_id="AKIDEXAMPLE", region="us-gov-west-1") as client:
        client.list_functions()
    send(url, "GET", "/2015-03-31/functions")
    contexts = [context for _, _, context in reached]
    assert [(context.account, context.region, context.access_key_id) for context in contexts] == [
        ("123456789012", "ap-south-1", "123456789012"),
        ("000000000000", "us-gov-west-1", "AKIDEXAMPLE"),
        ("000000000000", "us-east-1", None),
    ]
    assert {context.source_ip for context in contexts} == {"127.0.0.1"}
    assert {context.host for context in contexts} == {urlsplit(url).netloc}
    assert len({context.request_id for context in contexts}) == 3


def test_delete_function_answers_the_status_that_the_operation_binds() -> None:
    async def delete(context: RequestContext, params: dict[str, Any]) -> dict[str, Any]:
        return {"StatusCode": 204}

    app = build_app({"DeleteFunction": delete}, authenticator=Unverified(defaults=Defaults()), limits=Limits(), version="test")
    with served(app) as url, lambda_client(url) as client:
        answer = client.delete_function(FunctionName="f")
    assert (answer["StatusCode"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (204, 204)
