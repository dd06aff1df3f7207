"""Response streaming of the Node.js bootstrap: what goes over the wire while a handler writes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from node_function import node, node_function

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("_has_node")]


@pytest.fixture
def _has_node() -> None:
    node()


def streaming(body: str) -> dict[str, str]:
    """A function whose streaming handler has this body."""
    return {"index.js": f"exports.handler = awslambda.streamifyResponse(async (event, stream, context) => {{ {body} }})"}


def test_each_write_is_a_chunk_and_the_end_is_clean(tmp_path: Path) -> None:
    files = streaming("stream.write('one'); stream.write(Buffer.from('twö')); stream.write({three: 3}); stream.end('four')")
    with node_function(tmp_path, files, "index.handler") as function:
        for _ in range(2):
            sent = function.invoke()
            assert sent.kind == "response"
            assert sent.chunks == (b"one", "twö".encode(), b'{"three":3}', b"four")
            assert sent.trailers == {}
            assert sent.headers["lambda-runtime-function-response-mode"] == "streaming"
            assert sent.headers["content-type"] == "application/octet-stream"


def test_a_large_stream_is_not_held_in_memory_and_arrives_whole(tmp_path: Path) -> None:
    body = """
        const { pipeline } = require('node:stream/promises'); const { Readable } = require('node:stream');
        await pipeline(Readable.from((function* () { for (let i = 0; i < 200; i++) yield Buffer.alloc(65536, i) })()), stream)"""
    with node_function(tmp_path, streaming(body), "index.handler") as function:
        sent = function.invoke()
        assert sent.body == b"".join(bytes([i]) * 65536 for i in range(200))


@pytest.mark.parametrize("last", ["http.write('body'); http.end()", "http.end('body')"])
def test_the_prelude_of_an_http_response_comes_first(tmp_path: Path, last: str) -> None:
    body = f"const http = awslambda.HttpResponseStream.from(stream, {{statusCode: 201, headers: {{a: 'b'}}}}); {last}"
    with node_function(tmp_path, streaming(body), "index.handler") as function:
        sent = function.invoke()
        assert sent.headers["content-type"] == "application/vnd.awslambda.http-integration-response"
        prelude, _, payload = sent.body.partition(bytes(8))
        assert json.loads(prelude) == {"statusCode": 201, "headers": {"a": "b"}}
        assert payload == b"body"


def test_an_http_response_without_a_body_still_has_its_prelude(tmp_path: Path) -> None:
    body = "awslambda.HttpResponseStream.from(stream, {statusCode: 204}).end()"
    with node_function(tmp_path, streaming(body), "index.handler") as function:
        assert function.invoke().body == b'{"statusCode":204}' + bytes(8)


def test_a_content_type_can_be_set_until_the_first_write(tmp_path: Path) -> None:
    body = """stream.setContentType('text/html'); stream.write('x'); await new Promise(setImmediate);
        try { stream.setContentType('text/plain') } catch (error) { stream.write(error.name) } stream.end()"""
    with node_function(tmp_path, streaming(body), "index.handler") as function:
        sent = function.invoke()
        assert sent.headers["content-type"] == "text/html"
        assert sent.body == b"xRuntime.InvalidStreamingOperation"


def test_an_error_before_the_first_write_is_an_ordinary_error(tmp_path: Path) -> None:
    with node_function(tmp_path, streaming("throw new RangeError('early')"), "index.handler") as function:
        for _ in range(2):
            sent = function.invoke()
            assert (sent.kind, sent.json["errorType"], sent.json["errorMessage"]) == ("error", "RangeError", "early")


def test_an_error_in_the_middle_is_told_in_trailers_and_the_next_event_is_served(tmp_path: Path) -> None:
    files = streaming("stream.write('part'); if (event.fail) throw new RangeError('latë'); stream.end()")
    with node_function(tmp_path, files, "index.handler") as function:
        sent = function.invoke({"fail": True})
        assert (sent.kind, sent.body) == ("response", b"part")
        assert sent.trailers["lambda-runtime-function-error-type"] == "RangeError"
        error = json.loads(base64.b64decode(sent.trailers["lambda-runtime-function-error-body"]))
        assert (error["errorType"], error["errorMessage"]) == ("RangeError", "latë")
        assert function.invoke({}).body == b"part"


def test_an_error_outside_the_handler_is_told_in_trailers_too(tmp_path: Path) -> None:
    body = "stream.write('part'); setTimeout(() => { throw new RangeError('late') }, 5); await new Promise((r) => setTimeout(r, 60_000))"
    with node_function(tmp_path, streaming(body), "index.handler") as function:
        sent = function.invoke()
        assert (sent.body, sent.trailers["lambda-runtime-function-error-type"]) == (b"part", "RangeError")
        assert function.exit_status() == 129


def test_a_stream_that_is_never_ended_is_an_error(tmp_path: Path) -> None:
    with node_function(tmp_path, streaming("if (event.write) stream.write('part')"), "index.handler") as function:
        assert function.invoke({}).json["errorMessage"] == "Response stream is not finished."
        assert "lambda-runtime-function-error-body" in function.invoke({"write": True}).trailers


def test_a_streaming_handler_must_be_async(tmp_path: Path) -> None:
    files = {"index.js": "exports.handler = awslambda.streamifyResponse((event, stream) => 'returned')"}
    with node_function(tmp_path, files, "index.handler") as function:
        sent = function.invoke()
        assert (sent.kind, sent.json["errorMessage"]) == ("error", "Streaming does not support non-async handlers.")
