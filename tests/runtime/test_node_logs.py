"""What a Node.js function logs: AWS's text and JSON formats, levels, and frames on the telemetry descriptor."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import pytest

from node_function import node, node_function

pytestmark = [pytest.mark.node, pytest.mark.usefixtures("_has_node")]

ALL_LEVELS = "for (const level of ['trace','debug','info','log','warn','error','fatal']) console[level](level);"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.fixture
def _has_node() -> None:
    node()


def handler(body: str) -> dict[str, str]:
    """A function whose handler has this body."""
    return {"index.js": f"console.log('at init'); exports.handler = async () => {{ {body} }}"}


def test_text_lines_carry_time_request_and_level(tmp_path: Path) -> None:
    body = ALL_LEVELS + "console.log('%s has %d', 'it', 2, {a: 1}); console.log('two\\nlines'); process.stdout.write('raw\\n')"
    with node_function(tmp_path, handler(body), "index.handler") as function:
        request_id = function.invoke().request_id
        lines = function.output().split("\n")
        assert re.fullmatch(rf"{TIME}\tundefined\tINFO\tat init", lines[0])
        rows = [line.split("\t") for line in lines[1:10]]
        assert all(re.fullmatch(TIME, row[0]) and row[1] == request_id for row in rows)
        assert [row[2:] for row in rows] == [
            ["TRACE", "trace"],
            ["DEBUG", "debug"],
            ["INFO", "info"],
            ["INFO", "log"],
            ["WARN", "warn"],
            ["ERROR", "error"],
            ["FATAL", "fatal"],
            ["INFO", "it has 2 { a: 1 }"],
            ["INFO", "two\rlines"],
        ]
        assert lines[10:] == ["raw", ""]


def test_nodejs24_has_a_dash_where_there_is_no_request(tmp_path: Path) -> None:
    with node_function(tmp_path, handler(""), "index.handler", runtime="nodejs24.x") as function:
        function.invoke()
        assert re.match(rf"{TIME}\t-\tINFO\tat init\n", function.output())


def test_json_lines_are_records(tmp_path: Path) -> None:
    body = """console.info({a: [1]}); console.warn('x', 1); console.error('failed', new TypeError('bad')); console.log(10n);
        console.error(Object.assign(new RangeError('far'), {code: 7}))"""
    with node_function(tmp_path, handler(body), "index.handler", variables={"AWS_LAMBDA_LOG_FORMAT": "JSON"}) as function:
        request_id = function.invoke(headers={"Lambda-Runtime-Aws-Tenant-Id": "blue"}).request_id
        first, *records = [json.loads(line) for line in function.output().splitlines()]
        assert (first["level"], first["message"], "requestId" in first) == ("INFO", "at init", False)
        assert all(record["requestId"] == request_id and record["tenantId"] == "blue" for record in records)
        assert all(list(record)[:3] == ["timestamp", "level", "requestId"] for record in records)
        assert [record["message"] for record in records[:2]] == [{"a": [1]}, "x 1"]
        assert (records[2]["errorType"], records[2]["errorMessage"]) == ("TypeError", "bad")
        assert records[2]["stackTrace"][0] == "TypeError: bad"
        assert records[3]["message"] == "10n"
        assert records[4]["message"] | {"stackTrace": []} == {
            "errorType": "RangeError",
            "errorMessage": "far",
            "stackTrace": [],
            "code": 7,
        }


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("", ["TRACE", "DEBUG", "INFO", "INFO", "WARN", "ERROR", "FATAL"]),
        ("info", ["INFO", "INFO", "WARN", "ERROR", "FATAL"]),
        ("ERROR", ["ERROR", "FATAL"]),
        ("FATAL", ["FATAL"]),
    ],
)
@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_only_the_level_asked_for_and_above_is_written(tmp_path: Path, level: str, shown: list[str], log_format: str) -> None:
    variables = {"AWS_LAMBDA_LOG_LEVEL": level, "AWS_LAMBDA_LOG_FORMAT": log_format}
    files = {"index.js": f"exports.handler = async () => {{ {ALL_LEVELS} }}"}
    with node_function(tmp_path, files, "index.handler", variables=variables) as function:
        function.invoke()
        lines = function.output().splitlines()
        found = [json.loads(line)["level"] if log_format == "JSON" else line.split("\t")[2] for line in lines]
        assert found == shown


def test_an_error_of_the_handler_is_logged_with_its_properties(tmp_path: Path) -> None:
    body = "throw Object.assign(new TypeError('bad'), {code: 'E_BAD', extra: {a: 1}})"
    with node_function(tmp_path, handler(body), "index.handler") as function:
        request_id = function.invoke().request_id
        line = function.output().splitlines()[1]
        prefix, _, logged = line.partition("\t{")
        assert prefix.split("\t")[1:] == [request_id, "ERROR", "Invoke Error "]
        error = json.loads("{" + logged)
        assert error.pop("stack")[0] == "TypeError: bad"
        assert error == {"errorType": "TypeError", "errorMessage": "bad", "code": "E_BAD", "extra": {"a": 1}}


@pytest.mark.parametrize(("log_format", "kind"), [("Text", 0xA55A0003), ("JSON", 0xA55A0002)])
def test_records_are_framed_where_there_is_a_descriptor_for_them(tmp_path: Path, log_format: str, kind: int) -> None:
    reading, writing = os.pipe()
    variables = {"AWS_LAMBDA_LOG_FORMAT": log_format, "_LAMBDA_TELEMETRY_LOG_FD": str(writing)}
    body = "console.warn('two\\nlines'); return Object.keys(process.env)"
    try:
        with node_function(tmp_path, handler(body), "index.handler", variables=variables, pass_fds=(writing,)) as function:
            assert "_LAMBDA_TELEMETRY_LOG_FD" not in function.returned()
            data = os.read(reading, 65536)
    finally:
        os.close(reading)
        os.close(writing)
    frames = []
    while data:
        head, length, micros = struct.unpack(">IIQ", data[:16])
        frames.append((head, data[16 : 16 + length].decode()))
        assert micros > 1_600_000_000_000_000
        data = data[16 + length :]
    assert [head for head, _ in frames] == [kind | 0x0C, kind | 0x10]
    assert frames[1][1].endswith("two\nlines\n") if log_format == "Text" else json.loads(frames[1][1])["message"] == "two\nlines"


def test_a_handler_that_closes_its_output_goes_on(tmp_path: Path) -> None:
    body = "require('fs').closeSync(1); console.log('nowhere'); return 'still here'"
    with node_function(tmp_path, handler(body), "index.handler") as function:
        assert [function.returned(), function.invoke().kind] == ["still here", "error"]


def test_output_waits_for_its_reader_and_nothing_is_lost(tmp_path: Path) -> None:
    body = "for (let i = 0; i < 4000; i++) { console.log('x'.repeat(100)); process.stdout.write('y'.repeat(100) + '\\n') } process.exit(0)"
    reading, writing = os.pipe()
    try:
        files = {"index.js": f"exports.handler = async () => {{ {body} }}"}
        with node_function(tmp_path, files, "index.handler", stdout=writing) as function:
            os.close(writing)
            writing = -1
            function.api.queue_event({})
            with os.fdopen(reading, "rb") as stream:
                reading = -1
                lines = stream.read().split(b"\n")
            assert function.exit_status() == 0
            assert [line.rsplit(b"\t", 1)[-1] for line in lines[:-1]] == [b"x" * 100, b"y" * 100] * 4000
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                os.close(descriptor)
