"""The lines that Lambda itself writes into a function's log, as text or as JSON records. Pure.

Supervisors write them; a gateway does for an invocation whose supervisor was killed with it.

Text: START, END, REPORT and the rest as recorded from AWS, tabs and blanks included. JSON (LoggingConfig ``JSON``): the platform
events of the Telemetry API, filtered by SystemLogLevel as in "System log level event mapping" of the Lambda developer guide.
Every method gives complete lines with their line break, or an empty string where the format has no such line.
"""

from __future__ import annotations

import hashlib
import math
import re
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from kappa_core.spec import InitializationType, VersionSpec

Status = Literal["success", "error", "timeout", "failure"]
_RUNTIME: Final = re.compile(r"([a-z]+)\.?(.*)")
_LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARN": 30}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one invocation. Durations in milliseconds."""

    request_id: str
    duration_ms: float
    billed_ms: int
    max_memory_mb: int
    init_ms: float = 0.0
    status: Status = "success"
    error_type: str = ""


def billed(duration_ms: float, init_ms: float = 0.0) -> int:
    """Billed duration: init and run together, rounded up to the millisecond (init is billed since August 2025)."""
    return max(1, math.ceil(duration_ms + init_ms))


def iso_milliseconds(epoch: float) -> str:
    """``2026-01-02T03:04:05.678Z``."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(epoch * 1000) % 1000:03d}Z"


def _runtime_version(spec: VersionSpec, found: str) -> str:
    """``python:3.12.4``, ``nodejs:20.x``, ``provided:al2023``: the version found, or what the runtime's name says."""
    split = _RUNTIME.match(spec.runtime)
    language, version = split.groups() if split is not None else (spec.runtime, "")
    return f"{language}:{found or version}"


def _runtime_arn(spec: VersionSpec, version: str) -> str:
    return f"arn:aws:lambda:{spec.region}::runtime:{hashlib.sha256(version.encode()).hexdigest()}"


class TextLines:
    """LoggingConfig ``Text``, the default."""

    def __init__(self, spec: VersionSpec, runtime_version: str) -> None:
        self._spec = spec
        version = _runtime_version(spec, runtime_version)
        self._init = f"INIT_START Runtime Version: {version}\tRuntime Version ARN: {_runtime_arn(spec, version)}\n"
        self._start = f" Version: {spec.version}\n"
        self._memory = f" ms\tMemory Size: {spec.memory_mb} MB\tMax Memory Used: "

    def init_start(self, _now: float, _type: InitializationType) -> str:
        return self._init

    def init_report(
        self, _now: float, _type: InitializationType, *, duration_ms: float, phase: str, status: Status, error_type: str
    ) -> str:
        if status == "success":
            return ""
        kind = f"\tError Type: {error_type}" if status == "error" and error_type else ""
        return f"INIT_REPORT Init Duration: {duration_ms:.2f} ms\tPhase: {phase}\tStatus: {status}{kind}\n"

    def start(self, _now: float, request_id: str) -> str:
        return "START RequestId: " + request_id + self._start

    def end(self, request_id: str) -> str:
        return "END RequestId: " + request_id + "\n"

    def report(self, _now: float, report: Report) -> str:
        line = (
            f"REPORT RequestId: {report.request_id}\tDuration: {report.duration_ms:.2f} ms\tBilled Duration: {report.billed_ms}"
            f"{self._memory}{report.max_memory_mb} MB\t"
        )
        if report.init_ms:
            line += f"Init Duration: {report.init_ms:.2f} ms\t"
        if report.status == "timeout":
            line += "Status: timeout"
        elif report.status == "failure":
            line += f"Status: error\tError Type: {report.error_type}"
        return line + "\n"

    def timed_out(self, now: float, request_id: str, text: str) -> str:
        return f"{iso_milliseconds(now)} {request_id} {text}\n\n"

    def failed(self, _now: float, request_id: str, text: str, error_type: str) -> str:
        return f"RequestId: {request_id} Error: {text}\n{error_type}\n"

    def dropped(self, _now: float, *, lines: int, size: int) -> str:
        return f"LOGS_DROPPED {lines} lines ({size} bytes) came faster than logs are taken and were dropped\n"


class JsonLines:
    """LoggingConfig ``JSON``: one record of the Telemetry API per line."""

    def __init__(self, spec: VersionSpec, runtime_version: str) -> None:
        self._spec = spec
        self._version = _runtime_version(spec, runtime_version)
        self._least = _LEVELS.get(spec.system_log_level or "INFO", 20)

    def _line(self, now: float, level: str, kind: str, record: dict[str, Any]) -> str:
        if _LEVELS[level] < self._least:
            return ""
        line = {"time": iso_milliseconds(now), "type": f"platform.{kind}", "record": record}
        return msgspec.json.encode(line).decode() + "\n"

    def init_start(self, now: float, type_: InitializationType) -> str:
        record = {
            "initializationType": type_,
            "phase": "init",
            "runtimeVersion": self._version,
            "runtimeVersionArn": _runtime_arn(self._spec, self._version),
            "functionName": self._spec.function_name,
            "functionVersion": self._spec.version,
        }
        return self._line(now, "INFO", "initStart", record)

    def init_report(
        self, now: float, type_: InitializationType, *, duration_ms: float, phase: str, status: Status, error_type: str
    ) -> str:
        record: dict[str, Any] = {
            "initializationType": type_,
            "phase": phase,
            "status": status,
            "metrics": {"durationMs": round(duration_ms, 3)},
        }
        if error_type:
            record["errorType"] = error_type
        return self._line(now, "DEBUG" if status == "success" else "WARN", "initReport", record)

    def start(self, now: float, request_id: str) -> str:
        return self._line(now, "INFO", "start", {"requestId": request_id, "version": self._spec.version})

    def end(self, _request_id: str) -> str:
        return ""

    def report(self, now: float, report: Report) -> str:
        metrics: dict[str, Any] = {
            "durationMs": round(report.duration_ms, 3),
            "billedDurationMs": report.billed_ms,
            "memorySizeMB": self._spec.memory_mb,
            "maxMemoryUsedMB": report.max_memory_mb,
        }
        if report.init_ms:
            metrics["initDurationMs"] = round(report.init_ms, 3)
        status = "error" if report.status == "failure" else report.status
        record: dict[str, Any] = {"requestId": report.request_id, "metrics": metrics, "status": status}
        if report.error_type:
            record["errorType"] = report.error_type
        level = "INFO" if report.status == "success" else "WARN"
        return self._line(now, level, "report", record)

    def timed_out(self, _now: float, _request_id: str, _text: str) -> str:
        return ""

    def failed(self, _now: float, _request_id: str, _text: str, _error_type: str) -> str:
        return ""

    def dropped(self, now: float, *, lines: int, size: int) -> str:
        record = {"reason": "the function logs faster than its lines are taken", "droppedRecords": lines, "droppedBytes": size}
        return self._line(now, "WARN", "logsDropped", record)


Lines = TextLines | JsonLines


def lines_for(spec: VersionSpec, runtime_version: str) -> Lines:
    return JsonLines(spec, runtime_version) if spec.log_format == "JSON" else TextLines(spec, runtime_version)
