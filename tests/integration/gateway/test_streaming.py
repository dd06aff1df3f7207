"""InvokeWithResponseStream with boto3 and over raw sockets, against real functions: what arrives when, and what ends a stream."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions
import pytest
from botocore.eventstream import EventStreamBuffer

import process_tree
from kappa_dev import KappaDev
from node_function import node, node_version

MIB = 1024 * 1024
SECONDS = 20.0
"""How long anything here may take before it counts as hanging."""

STREAMING = """
const net = require('node:net')
const told = (port) => new Promise((go, fail) => net.connect(port, '127.0.0.1').once('data', go).once('error', fail))
const drained = (stream) => new Promise((go) => stream.once('drain', go))
const actions = {
  async gated(event, stream) {
    for (const word of event.words) { stream.write(word); await told(event.port) }
    stream.end('end')
  },
  async http(event, stream) {
    const metadata = { statusCode: 201, headers: { 'x-a': 'b' }, cookies: ['c=d'] }
    const http = awslambda.HttpResponseStream.from(stream, metadata)
    http.write('<p>'); http.end('</p>')
  },
  async early() { throw new RangeError('early') },
  async late(event, stream) { stream.write('part'); await new Promise(setImmediate); throw new RangeError('late') },
  async exit(event, stream) { stream.write('part'); await told(event.port); process.exit(3) },
  async hang(event, stream) { stream.write('part'); await new Promise(() => setInterval(() => {}, 1000)) },
  async large(event, stream) {
    const report = net.connect(event.port, '127.0.0.1').on('error', () => {})
    for (let megabyte = 0; megabyte < event.megabytes; megabyte++) {
      if (!stream.write(Buffer.alloc(1048576, megabyte))) await drained(stream)
      report.write('.')
    }
    stream.end()
    report.end('!')
  },
}
exports.handler = awslambda.streamifyResponse(async (event, stream) => { console.log('begun'); await actions[event.do](event, stream) })
"""

BUFFERED = """
def handler(event, context):
    if "fail" in event: raise ValueError(event["fail"] * event.get("times", 1))
    return "x" * event["size"]
"""


class Told:
    """A port that functions connect to, to wait for the test or to report to it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SECONDS)
        self.port: int = self._listener.getsockname()[1]

    def connection(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.settimeout(SECONDS)
        return connection

    def go(self) -> None:
        """Let the function that waits, or will wait, go on."""
        with self.connection() as connection:
            connection.sendall(b"go")

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def told() -> Iterator[Told]:
    with closing(Told()) as port:
        yield port


@pytest.fixture(scope="module")
def streaming(kappa: KappaDev) -> str:
    major = node_version(node())[0]
    runtime = {"Runtime": f"nodejs{major}.x", "Handler": "index.handler"}
    kappa.create_function("streaming", {"index.js": STREAMING}, Timeout=30, **runtime)
    kappa.create_function("hasty", {"index.js": STREAMING}, Timeout=1, **runtime)
    return "streaming"


@pytest.fixture(scope="module")
def buffered(kappa: KappaDev) -> str:
    kappa.create_function("buffered", {"app.py": BUFFERED})
    return "buffered"


def invoke(kappa: KappaDev, name: str, event: Any, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = kappa.client().invoke_with_response_stream(
        FunctionName=name, Payload=json.dumps(event).encode(), **options
    )
    return answer


def whole(answer: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """All chunks joined, and the last event, which must come once and last."""
    *chunks, last = answer["EventStream"]
    return b"".join(event["PayloadChunk"]["Payload"] for event in chunks), last["InvokeComplete"]


class RawStream:
    """An invocation over a socket of one's own, to read as slowly as one likes, or to hang up."""

    def __init__(self, kappa: KappaDev, name: str, event: Any) -> None:
        url = urlsplit(kappa.endpoint)
        assert url.hostname is not None
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.socket.settimeout(SECONDS)
        self.socket.connect((url.hostname, url.port))
        body = json.dumps(event).encode()
        path = f"/2021-11-15/functions/{name}/response-streaming-invocations"
        self.socket.sendall(f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    def __enter__(self) -> RawStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def head(self) -> str:
        read = b""
        while not read.endswith(b"\r\n\r\n"):
            read += self.socket.recv(1)
        return read.decode()

    def events(self) -> Iterator[Any]:
        """The event stream inside the chunked body."""
        buffer = EventStreamBuffer()
        with self.socket.makefile("rb") as body:
            while size := int(body.readline(), 16):
                buffer.add_data(body.read(size))
                body.readline()
                yield from buffer


def test_every_write_arrives_while_the_function_still_runs(kappa: KappaDev, streaming: str, told: Told) -> None:
    answer = invoke(kappa, streaming, {"do": "gated", "words": ["one", "two", "three"], "port": told.port})
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert answer["ResponseStreamContentType"] == "application/vnd.amazon.eventstream"
    events = iter(answer["EventStream"])
    for word in (b"one", b"two", b"three"):
        assert next(events) == {"PayloadChunk": {"Payload": word}}  # the function waits for the next line
        told.go()
    assert list(events) == [{"PayloadChunk": {"Payload": b"end"}}, {"InvokeComplete": {}}]


def test_the_prelude_of_an_http_response_passes_untouched(kappa: KappaDev, streaming: str) -> None:
    body, complete = whole(invoke(kappa, streaming, {"do": "http"}))
    prelude, _, rest = body.partition(bytes(8))
    assert json.loads(prelude) == {"statusCode": 201, "headers": {"x-a": "b"}, "cookies": ["c=d"]}
    assert (rest, complete) == (b"<p></p>", {})


@pytest.mark.parametrize(
    ("do", "streamed", "message"),
    [pytest.param("early", b"", "early", id="before"), pytest.param("late", b"part", "late", id="after")],
)
def test_an_error_around_the_first_write_is_told_at_the_end_with_the_log(
    kappa: KappaDev, streaming: str, do: str, streamed: bytes, message: str
) -> None:
    body, complete = whole(invoke(kappa, streaming, {"do": do}, LogType="Tail"))
    assert body == streamed
    assert complete["ErrorCode"] == "Unhandled"
    error = json.loads(complete["ErrorDetails"])
    assert (error["errorType"], error["errorMessage"]) == ("RangeError", message)
    log = base64.b64decode(complete["LogResult"]).decode()
    assert "begun" in log
    assert "REPORT RequestId: " + answer_id(log) in log


def answer_id(log: str) -> str:
    found = re.search(r"START RequestId: (\S+)", log)
    assert found is not None
    return found[1]


def test_a_function_that_ends_or_hangs_in_the_middle_is_told_at_the_end(kappa: KappaDev, streaming: str, told: Told) -> None:
    events = iter(invoke(kappa, streaming, {"do": "exit", "port": told.port})["EventStream"])
    assert next(events) == {"PayloadChunk": {"Payload": b"part"}}
    told.go()
    (complete,) = events
    assert json.loads(complete["InvokeComplete"]["ErrorDetails"])["errorType"] == "Runtime.ExitError"
    body, timed_out = whole(invoke(kappa, "hasty", {"do": "hang"}))
    assert body == b"part"
    error = json.loads(timed_out["ErrorDetails"])
    assert error["errorType"] == "Sandbox.Timedout"
    assert error["errorMessage"].endswith("Task timed out after 1.00 seconds")


def test_a_slow_reader_slows_the_function_down_and_the_gateways_memory_stays_flat(
    kappa: KappaDev, streaming: str, told: Told
) -> None:
    whole(invoke(kappa, streaming, {"do": "http"}))
    before = process_tree.memory([kappa.pid]).resident
    with RawStream(kappa, streaming, {"do": "large", "megabytes": 40, "port": told.port}) as stream, told.connection() as report:
        assert stream.head().startswith("HTTP/1.1 200 ")
        written = 0
        report.settimeout(1.0)
        while True:
            try:
                written += len(report.recv(100))
            except TimeoutError:
                break  # it writes nothing any more: everything between it and here is full
            assert written < 40, "the function was not slowed down"
        digest, size = hashlib.sha256(), 0
        most = 0
        for number, event in enumerate(stream.events()):
            if event.headers[":event-type"] == "PayloadChunk":
                digest.update(event.payload)
                size += len(event.payload)
            if number % 40 == 0:
                most = max(most, process_tree.memory([kappa.pid]).resident)
        expected = hashlib.sha256(b"".join(bytes((megabyte,)) * MIB for megabyte in range(40)))
    assert (size, digest.digest()) == (40 * MIB, expected.digest())
    assert most - before < 12 * MIB


def test_a_client_that_hangs_up_does_not_stop_the_function(kappa: KappaDev, streaming: str, told: Told) -> None:
    with RawStream(kappa, streaming, {"do": "large", "megabytes": 30, "port": told.port}) as stream:
        report = told.connection()
        stream.head()
    with report:
        said = b""
        while not said.endswith(b"!"):
            said += report.recv(100)
    assert said == b"." * 30 + b"!"


def test_a_client_that_stops_reading_holds_the_environment_no_longer_than_the_functions_time(
    kappa: KappaDev, streaming: str, told: Told
) -> None:
    event = {"do": "large", "megabytes": 100, "port": told.port}
    with RawStream(kappa, "hasty", event) as stalled, told.connection() as report:
        stalled.head()
        while report.recv(100):
            pass  # the connection ends with the function's process
        body, complete = whole(invoke(kappa, "hasty", {"do": "http"}))
        assert (body.partition(bytes(8))[2], complete) == (b"<p></p>", {})
        *_, last = stalled.events()
    assert json.loads(json.loads(last.payload)["ErrorDetails"])["errorType"] == "Sandbox.Timedout"


def test_a_streaming_function_answers_a_plain_invocation_with_the_whole(kappa: KappaDev, streaming: str, told: Told) -> None:
    answer = kappa.client().invoke(FunctionName=streaming, Payload=json.dumps({"do": "http"}))
    assert answer["Payload"].read().endswith(bytes(8) + b"<p></p>")


@pytest.mark.parametrize("size", [pytest.param(10, id="short"), pytest.param(5 * MIB, id="5 MiB")])
def test_a_function_that_does_not_stream_is_answered_in_chunks(kappa: KappaDev, buffered: str, size: int) -> None:
    body, complete = whole(invoke(kappa, buffered, {"size": size}))
    assert json.loads(body) == "x" * size
    assert complete == {}


@pytest.mark.parametrize(
    ("event", "error_type"),
    [
        pytest.param({"fail": "no"}, "ValueError", id="raises"),
        pytest.param({"fail": "no", "times": MIB}, "ValueError", id="raises at length"),
        pytest.param({"size": 7 * MIB}, "Function.ResponseSizeTooLarge", id="returns too much"),
    ],
)
def test_the_failure_of_a_function_that_does_not_stream_is_no_chunk(
    kappa: KappaDev, buffered: str, event: dict[str, Any], error_type: str
) -> None:
    body, complete = whole(invoke(kappa, buffered, event))
    assert (body, complete["ErrorCode"]) == (b"", "Unhandled")
    assert json.loads(complete["ErrorDetails"])["errorType"] == error_type


def test_versions_and_aliases_are_found_and_a_dry_run_runs_nothing(kappa: KappaDev, buffered: str) -> None:
    client = kappa.client()
    version = client.publish_version(FunctionName=buffered)["Version"]
    client.create_alias(FunctionName=buffered, Name="live", FunctionVersion=version)
    answer = invoke(kappa, buffered, {"size": 1}, Qualifier="live")
    assert answer["ExecutedVersion"] == version
    assert whole(answer) == (b'"x"', {})
    dry = invoke(kappa, buffered, {}, InvocationType="DryRun")
    with closing(dry["EventStream"]):
        assert dry["StatusCode"] == 204


@pytest.mark.parametrize(
    ("name", "options", "code", "status"),
    [
        pytest.param("nobody", {}, "ResourceNotFoundException", 404, id="unknown function"),
        pytest.param("buffered", {"Qualifier": "9"}, "ResourceNotFoundException", 404, id="unknown version"),
        pytest.param("buffered", {"Payload": b"{"}, "InvalidRequestContentException", 400, id="no JSON"),
        pytest.param(
            "buffered", {"Payload": b'"' + b"x" * 6 * MIB + b'"'}, "RequestEntityTooLargeException", 413, id="too large"
        ),
        pytest.param("stopped", {}, "TooManyRequestsException", 429, id="throttled"),
    ],
)
def test_what_fails_before_the_stream_is_an_ordinary_error(
    kappa: KappaDev, buffered: str, name: str, options: dict[str, Any], code: str, status: int
) -> None:
    client = kappa.client()
    if name == "stopped":
        kappa.create_function(name, {"app.py": BUFFERED})
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        client.invoke_with_response_stream(FunctionName=name, **options)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
