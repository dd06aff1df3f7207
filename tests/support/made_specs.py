"""Specs of functions as a gateway hands them to supervisors, with defaults for what a test does not care about."""

from __future__ import annotations

import sys
from typing import Any

from kappa_core.spec import VersionSpec

THIS_PYTHON = f"python3.{sys.version_info.minor}"
"""The runtime that the interpreter of the tests is."""


def version_spec(name: str = "hello", /, **changes: Any) -> VersionSpec:
    """A small function's; ``changes`` override its fields. Its uid is the first part of its revision."""
    revision = changes.get("revision", f"uid-{name}.$LATEST.1")
    given: dict[str, Any] = {
        "revision": revision,
        "function_uid": revision.partition(".")[0],
        "account": "000000000000",
        "region": "us-east-1",
        "function_name": name,
        "version": "$LATEST",
        "function_arn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}",
        "runtime": THIS_PYTHON,
        "handler": "app.handler",
        "memory_mb": 128,
        "timeout": 10.0,
        "ephemeral_mb": 512,
        "task_root": "/var/task",
        "log_group": f"/aws/lambda/{name}",
    }
    return VersionSpec(**(given | changes))
