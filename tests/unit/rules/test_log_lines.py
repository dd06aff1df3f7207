"""Platform log lines, as recorded from AWS in text format and as Telemetry API records in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kappa_core.rules.log_lines import JsonLines, Report, TextLines, billed, iso_milliseconds, lines_for
from supervised import version_spec

SPEC = version_spec(Path("/code"), memory_mb=128, runtime="python3.13")
REPORT = Report(request_id="id", duration_ms=1.234, billed_ms=102, max_memory_mb=35)
NOW = 1767323045.678


def test_text_lines_are_those_of_lambda() -> None:
    lines = TextLines(SPEC, "3.13.2")
    assert lines.init_start(NOW, "on-demand").startswith(
        "INIT_START Runtime Version: python:3.13.2\tRuntime Version ARN: arn:aws:lambda:us-east-1::runtime:"
    )
    assert lines.start(NOW, "id") == "START RequestId: id Version: $LATEST\n"
    assert lines.end("id") == "END RequestId: id\n"
    figures = "REPORT RequestId: id\tDuration: 1.23 ms\tBilled Duration: 102 ms\tMemory Size: 128 MB\tMax Memory Used: 35 MB\t"
    assert lines.report(NOW, REPORT) == figures + "\n"
    cold = Report(request_id="id", duration_ms=1.234, billed_ms=102, max_memory_mb=35, init_ms=100.123)
    assert lines.report(NOW, cold) == figures + "Init Duration: 100.12 ms\t\n"
    late = Report(
        request_id="id", duration_ms=1.234, billed_ms=102, max_memory_mb=35, status="timeout", error_type="Sandbox.Timedout"
    )
    assert lines.report(NOW, late) == figures + "Status: timeout\n"
    dead = Report(
        request_id="id", duration_ms=1.234, billed_ms=102, max_memory_mb=35, status="failure", error_type="Runtime.ExitError"
    )
    assert lines.report(NOW, dead) == figures + "Status: error\tError Type: Runtime.ExitError\n"
    raised = Report(
        request_id="id", duration_ms=1.234, billed_ms=102, max_memory_mb=35, status="error", error_type="Function.Unknown"
    )
    assert lines.report(NOW, raised) == figures + "\n"
    assert (
        lines.timed_out(NOW, "id", "Task timed out after 3.00 seconds")
        == "2026-01-02T03:04:05.678Z id Task timed out after 3.00 seconds\n\n"
    )
    assert (
        lines.failed(NOW, "id", "Runtime exited", "Runtime.ExitError")
        == "RequestId: id Error: Runtime exited\nRuntime.ExitError\n"
    )


@pytest.mark.parametrize(
    ("status", "error_type", "line"),
    [
        ("timeout", "", "INIT_REPORT Init Duration: 10000.09 ms\tPhase: init\tStatus: timeout\n"),
        (
            "error",
            "Runtime.ExitError",
            "INIT_REPORT Init Duration: 10000.09 ms\tPhase: init\tStatus: error\tError Type: Runtime.ExitError\n",
        ),
        ("success", "", ""),
    ],
)
def test_an_init_is_reported_in_text_only_if_it_failed(status: str, error_type: str, line: str) -> None:
    found = TextLines(SPEC, "").init_report(
        NOW, "on-demand", duration_ms=10000.094, phase="init", status=status, error_type=error_type
    )  # type: ignore[arg-type]
    assert found == line


@pytest.mark.parametrize(
    ("runtime", "found", "version"),
    [
        ("python3.12", "3.12.7", "python:3.12.7"),
        ("python3.12", "", "python:3.12"),
        ("nodejs20.x", "", "nodejs:20.x"),
        ("provided.al2023", "", "provided:al2023"),
        ("provided", "", "provided:"),
    ],
)
def test_the_runtime_is_named_by_language_and_version(runtime: str, found: str, version: str) -> None:
    line = TextLines(version_spec(Path("/code"), runtime=runtime), found).init_start(NOW, "on-demand")
    assert line.startswith(f"INIT_START Runtime Version: {version}\t")


def test_json_lines_are_records_of_the_telemetry_api() -> None:
    lines = lines_for(version_spec(Path("/code"), memory_mb=128, log_format="JSON"), "3.13.2")
    assert json.loads(lines.start(NOW, "id")) == {
        "time": "2026-01-02T03:04:05.678Z",
        "type": "platform.start",
        "record": {"requestId": "id", "version": "$LATEST"},
    }
    assert lines.end("id") == ""
    report = Report(
        request_id="id",
        duration_ms=1.5,
        billed_ms=2,
        max_memory_mb=35,
        init_ms=3.25,
        status="failure",
        error_type="Runtime.ExitError",
    )
    assert json.loads(lines.report(NOW, report))["record"] == {
        "requestId": "id",
        "metrics": {"durationMs": 1.5, "billedDurationMs": 2, "memorySizeMB": 128, "maxMemoryUsedMB": 35, "initDurationMs": 3.25},
        "status": "error",
        "errorType": "Runtime.ExitError",
    }


@pytest.mark.parametrize(
    ("level", "kept"),
    [("DEBUG", ["start", "report", "initReport"]), ("INFO", ["start", "report"]), ("WARN", [])],
)
def test_the_system_log_level_filters_platform_records(level: str, kept: list[str]) -> None:
    lines = JsonLines(version_spec(Path("/code"), log_format="JSON", system_log_level=level), "")
    written = [
        lines.start(NOW, "id"),
        lines.report(NOW, REPORT),
        lines.init_report(NOW, "on-demand", duration_ms=1, phase="init", status="success", error_type=""),
    ]
    assert [json.loads(line)["type"].removeprefix("platform.") for line in written if line] == kept
    failed = lines.init_report(NOW, "on-demand", duration_ms=1, phase="init", status="error", error_type="Runtime.ExitError")
    assert json.loads(failed)["record"]["errorType"] == "Runtime.ExitError"


@pytest.mark.parametrize(("duration", "init", "figure"), [(0.2, 0.0, 1), (0.0, 0.0, 1), (75.54, 138.2, 214), (3000.0, 0.0, 3000)])
def test_init_and_run_are_billed_together_and_rounded_up(duration: float, init: float, figure: int) -> None:
    assert billed(duration, init) == figure


def test_times_have_milliseconds_and_end_in_z() -> None:
    assert iso_milliseconds(0.0019) == "1970-01-01T00:00:00.001Z"
