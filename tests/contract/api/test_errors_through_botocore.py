"""Errors as clients see them: the exception class in botocore, the raw body and headers, and what never leaks."""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from api_server import lambda_client, served
from kappa_core import errors
from kappa_core.limits import Limits
from kappa_gateway.api.app import build_app
from kappa_gateway.api.context import RequestContext
from kappa_gateway.api.model import load_model
from kappa_gateway.auth.identity import Defaults, Unverified

MODELLED = [
    errors.InvalidParameterValueException("not so"),
    errors.UntypedInvalidParameterValueException("not so"),
    errors.InvalidRequestContentException("not so"),
    errors.CodeStorageExceededException("not so"),
    errors.PolicyLengthExceededException("not so"),
    errors.RecursiveInvocationException("not so"),
    errors.ResourceInUseException("not so"),
    errors.ResourceNotFoundException("not so"),
    errors.ProvisionedConcurrencyConfigNotFoundException("not so"),
    errors.ResourceConflictException("not so"),
    errors.UntypedResourceConflictException("not so"),
    errors.PreconditionFailedException("not so"),
    errors.UnsupportedMediaTypeException("not so"),
    errors.TooManyRequestsException("ReservedFunctionConcurrentInvocationLimitExceeded", message="not so"),
    errors.ServiceException("not so"),
    errors.ResourceNotReadyException("not so"),
    errors.InvalidRuntimeException("not so"),
]
UNMODELLED = [
    errors.ValidationException("not so"),
    errors.SerializationException("not so"),
    errors.AccessDeniedException("not so"),
    errors.UnrecognizedClientException("not so"),
    errors.NotImplementedOperation("not so"),
    errors.ServiceUnavailableException("not so"),
]


class Server:
    """A running control plane whose GetFunction raises ``error``, or answers ``answer``."""

    def __init__(self) -> None:
        self.url = ""
        self.error: Exception | None = None
        self.answer: Mapping[str, Any] = {}

    async def get_function(self, context: RequestContext, params: dict[str, Any]) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        return self.answer

    def request(
        self, method: str, path: str, *, body: Any = None, headers: Mapping[str, str] | None = None, chunked: bool = False
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case and body of a request sent as it is."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}), encode_chunked=chunked)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    app = build_app(
        {"GetFunction": made.get_function},
        authenticator=Unverified(defaults=Defaults()),
        limits=Limits(),
        version="test",
        max_body_bytes=2000,
    )
    with served(app) as made.url:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with lambda_client(server.url, validate=False) as made:
        yield made


@pytest.mark.parametrize("error", MODELLED, ids=lambda error: type(error).__name__)
def test_a_modelled_error_raises_its_own_class_in_the_client(server: Server, client: Any, error: errors.LambdaError) -> None:
    server.error = error
    with pytest.raises(getattr(client.exceptions, error.code)) as caught:
        client.get_function(FunctionName="f")
    response = caught.value.response
    assert response["Error"]["Message"] == "not so"
    assert response["ResponseMetadata"]["HTTPStatusCode"] == error.status == load_model().errors[error.code].status
    assert response["ResponseMetadata"]["RequestId"]


@pytest.mark.parametrize("error", UNMODELLED, ids=lambda error: type(error).__name__)
def test_an_unmodelled_error_arrives_with_its_code_and_message(server: Server, client: Any, error: errors.LambdaError) -> None:
    server.error = error
    with pytest.raises(client.exceptions.ClientError) as caught:
        client.get_function(FunctionName="f")
    assert caught.value.response["Error"] == {"Code": error.code, "Message": "not so"}
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == error.status


def test_every_modelled_error_of_the_core_has_the_members_of_the_model() -> None:
    for error in MODELLED:
        body = set(error.body()) - {"Type"}
        assert body <= set(load_model().errors[error.code].members), error.code


def test_every_error_has_the_headers_that_sdks_read(server: Server) -> None:
    server.error = errors.ResourceNotFoundException("Function not found: x")
    status, headers, body = server.request("GET", "/2015-03-31/functions/f")
    assert status == 404
    assert headers["x-amzn-errortype"] == "ResourceNotFoundException"
    assert headers["content-type"] == "application/json"
    assert len(headers["x-amzn-requestid"]) == 36
    assert json.loads(body) == {"Type": "User", "Message": "Function not found: x"}


def test_throttling_says_when_to_come_back(server: Server) -> None:
    server.error = errors.TooManyRequestsException("CallerRateLimitExceeded", retry_after=7)
    status, headers, body = server.request("GET", "/2015-03-31/functions/f")
    assert (status, headers["retry-after"]) == (429, "7")
    assert json.loads(body)["Reason"] == "CallerRateLimitExceeded"


def test_a_bug_becomes_service_exception_is_logged_and_leaks_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.error = RuntimeError("the password is 12345")
    with caplog.at_level(logging.ERROR):
        status, headers, body = server.request("GET", "/2015-03-31/functions/f")
    assert (status, headers["x-amzn-errortype"]) == (500, "ServiceException")
    assert b"12345" not in body
    assert headers["x-amzn-requestid"] in json.loads(body)["Message"]
    (record,) = [record for record in caplog.records if headers["x-amzn-requestid"] in record.getMessage()]
    assert record.exc_info is not None
    assert record.exc_info[0] is RuntimeError


def test_an_answer_that_does_not_fit_the_model_is_a_bug_not_a_silent_loss(server: Server) -> None:
    server.error, server.answer = None, {"Configuration": {"FunctionNam": "f"}}
    status, headers, _ = server.request("GET", "/2015-03-31/functions/f")
    assert (status, headers["x-amzn-errortype"]) == (500, "ServiceException")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/", id="root"),
        pytest.param("GET", "/2015-03-31/function", id="near-miss"),
        pytest.param("GET", "/2015-03-31/functions//configuration", id="empty-label"),
        pytest.param("PATCH", "/2015-03-31/functions/f", id="wrong-method"),
        pytest.param("POST", "/2015-03-31/functions/f", id="method-of-another-path"),
        pytest.param("GET", "/2014-03-31/functions/f", id="wrong-date"),
    ],
)
def test_an_unknown_method_and_path_is_an_unknown_operation(server: Server, method: str, path: str) -> None:
    status, headers, body = server.request(method, path)
    assert (status, headers["x-amzn-errortype"]) == (404, "UnknownOperationException")
    assert headers["x-amzn-requestid"]
    assert path in json.loads(body)["message"]


def test_an_operation_without_an_implementation_says_so(server: Server, client: Any) -> None:
    with pytest.raises(client.exceptions.ClientError) as caught:
        client.list_functions()
    assert caught.value.response["Error"]["Code"] == "NotImplementedException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


@pytest.mark.parametrize("chunked", [pytest.param(False, id="announced"), pytest.param(True, id="chunked")])
def test_a_body_over_the_limit_is_refused_with_the_name_of_the_operation(server: Server, chunked: bool) -> None:
    body = iter([b"x" * 500] * 5) if chunked else b"x" * 2001
    headers = {"Transfer-Encoding": "chunked"} if chunked else {}
    status, answer, text = server.request("POST", "/2015-03-31/functions", body=body, headers=headers, chunked=chunked)
    assert (status, answer["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")
    assert json.loads(text) == {"Message": "Request must be smaller than 2000 bytes for the CreateFunction operation"}


def test_the_limit_counts_bytes_not_claims(server: Server) -> None:
    status, headers, _ = server.request("POST", "/2015-03-31/functions", body=b"{" + b" " * 1998)
    assert (status, headers["x-amzn-errortype"]) == (501, "NotImplementedException")
