"""What an API server makes of an object that is applied: the metadata it adds, and numbers as Go writes them."""

from __future__ import annotations

import json
from typing import Any

Object = dict[str, Any]


def served(
    obj: Object,
    *,
    status: Object | None = None,
    uid: str = "00000000-0000-4000-8000-000000000001",
    version: int = 7,
    generation: int = 1,
) -> Object:
    """The object as a GET would return it, written at 2026-11-21T10:00:00Z."""
    found: Object = _as_go(json.loads(json.dumps(obj)))
    found["metadata"] |= {
        "uid": uid,
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": "2026-11-21T10:00:00Z",
        "managedFields": [{"manager": "kubectl", "operation": "Update", "time": "2026-11-21T10:00:00Z"}],
    }
    if status is not None:
        found["status"] = _as_go(json.loads(json.dumps(status)))
    return found


def function_manifest(name: str = "hello", **spec: Any) -> Object:
    """The shortest manifest of a function, with ``spec`` on top."""
    return {
        "apiVersion": "lambda.kappa.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": name},
        "spec": {
            "runtime": "python3.12",
            "handler": "app.handler",
            "code": {"inline": "def handler(event, context): return event"},
            **spec,
        },
    }


def edited(obj: Object, *, at: str = "2026-11-21T11:00:00Z", **spec: Any) -> Object:
    """The object after ``kubectl edit`` of some fields of its spec; None removes one."""
    metadata = obj["metadata"]
    entry = {"manager": "kubectl-edit", "operation": "Update", "time": at}
    return {
        **obj,
        "metadata": {
            **metadata,
            "resourceVersion": str(int(metadata["resourceVersion"]) + 1),
            "generation": metadata["generation"] + 1,
            "managedFields": [*metadata["managedFields"], entry],
        },
        "spec": {field: value for field, value in {**obj["spec"], **spec}.items() if value is not None},
    }


def _as_go(value: Any) -> Any:
    """A whole float64 is written without a fraction."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _as_go(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_go(one) for one in value]
    return value
