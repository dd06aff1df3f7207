"""What tests of refusals share: a gateway that must come through each of them unchanged, and requests that no SDK would send.

A test file that imports :func:`client`, :func:`witness` and :func:`no_trace` has them as fixtures: around every test its functions, its
used storage and the files under its data directory are compared, no environment may have been started, and an invocation must work.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions
import pytest

from kappa_dev import KappaDev, zip_of

FUNCTIONS = "/2015-03-31/functions"
INVOKE = f"{FUNCTIONS}/witness/invocations"
ARN = "arn:aws:lambda:us-east-1:000000000000:function"
GOOD = zip_of({"app.py": "def handler(event, context):\n    return event\n"})
STATUS = {
    "AccessDeniedException": 403,
    "InvalidParameterValueException": 400,
    "InvalidRequestContentException": 400,
    "NotImplementedException": 501,
    "PreconditionFailedException": 412,
    "RequestEntityTooLargeException": 413,
    "ResourceConflictException": 409,
    "ResourceNotFoundException": 404,
    "SerializationException": 400,
    "UnknownOperationException": 404,
    "ValidationException": 400,
}
NO_ZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."
EMPTY_ZIP = "Uploaded file must be a non-empty zip"
PAYLOAD_BYTES = 6 * 1024 * 1024
TOO_LARGE = f"Request must be smaller than {PAYLOAD_BYTES} bytes for the InvokeFunction operation"


@pytest.fixture(scope="module")
def client(kappa: KappaDev) -> Any:
    """boto3 that sends what it is told to, right or wrong."""
    return kappa.client(parameter_validation=False)


@pytest.fixture(scope="module", autouse=True)
def witness(kappa: KappaDev, client: Any) -> None:
    """A function that has to survive everything here, its one environment already there."""
    kappa.create_function("witness", {"app.py": "def handler(event, context):\n    return event\n"})
    assert echoed(client, {"n": 0}) == {"n": 0}


@pytest.fixture(autouse=True)
def no_trace(kappa: KappaDev, client: Any, witness: None) -> Iterator[None]:
    before = traces(kappa, client)
    yield
    assert traces(kappa, client) == before
    assert echoed(client, {"still": "here"}) == {"still": "here"}


def traces(kappa: KappaDev, client: Any) -> dict[str, Any]:
    """Everything that a refused request might leave."""
    listed = [(each["FunctionName"], each["RevisionId"]) for each in client.list_functions()["Functions"]]
    folders = [kappa.data_dir / name for name in ("blobs", "trees/task", "trees/opt")]
    metrics = send(kappa, "GET", "/metrics")[2].decode().splitlines()
    return {
        "functions": listed,
        "layers": client.list_layers()["Layers"],
        "usage": client.get_account_settings()["AccountUsage"],
        "files": sorted(str(path) for folder in folders for path in folder.rglob("*")),
        "environments": sum(float(line.split()[1]) for line in metrics if line.startswith("kappa_gateway_environments{")),
        "waiting": [line for line in metrics if line.startswith(("kappa_gateway_waiting", "kappa_gateway_inflight"))],
    }


def echoed(client: Any, event: Any) -> Any:
    answer = client.invoke(FunctionName="witness", Payload=json.dumps(event).encode())
    assert "FunctionError" not in answer
    return json.loads(answer["Payload"].read())


def refused(client: Any, operation: str, code: str, /, **parameters: Any) -> str:
    """The sentence with which boto3 gets an operation refused, as the exception class of the service model where there is one."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        getattr(client, operation)(**parameters)
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, STATUS[code])
    assert type(caught.value) is client.exceptions.from_code(code)
    assert response["ResponseMetadata"]["RequestId"]
    return str(response["Error"]["Message"])


def send(
    kappa: KappaDev, method: str, path: str, body: bytes = b"", headers: Mapping[str, str | bytes] | None = None
) -> tuple[int, str, bytes]:
    """Status, error type and body of a request that no SDK would send. A Content-Length in ``headers`` wins."""
    connection = http.client.HTTPConnection(urlsplit(kappa.endpoint).netloc, timeout=20)
    try:
        connection.putrequest(method, path)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.getheader("x-amzn-errortype") or "", answer.read()
    finally:
        connection.close()


def sentence(answer: tuple[int, str, bytes], code: str) -> str:
    """The message of a refusal, its status and code checked."""
    status, error_type, body = answer
    assert (status, error_type) == (STATUS[code], code), body
    decoded = json.loads(body)
    return str(decoded.get("message", decoded.get("Message")))


def conversation(kappa: KappaDev, *data: bytes) -> bytes:
    """What the gateway answers to raw bytes until it closes the connection, or falls silent for half a second."""
    parts = urlsplit(kappa.endpoint)
    assert parts.hostname is not None
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=10) as connection:
        for each in data:
            try:
                connection.sendall(each)
            except OSError:
                break  # it has said what it had to say
        connection.settimeout(0.5)
        answer = b""
        try:
            while received := connection.recv(65536):
                answer += received
        except OSError:
            pass
        return answer
