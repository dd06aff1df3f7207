"""Functions created, invoked and watched through a boto3 client, for tests that have no gateway fixture of their own at hand."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from kappa_dev import ROLE, RUNTIME, zip_of


def invoke(client: Any, name: str, event: Any = None, **parameters: Any) -> Any:
    answer = client.invoke(FunctionName=name, Payload=json.dumps(event).encode(), **parameters)
    result = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, result
    return result


def create(client: Any, name: str, code: Mapping[str, str | bytes], **parameters: Any) -> dict[str, Any]:
    """Create a function and do not wait."""
    given = {"Runtime": RUNTIME, "Handler": "app.handler", "Role": ROLE, "Timeout": 10, **parameters}
    described: dict[str, Any] = client.create_function(FunctionName=name, **{"Code": {"ZipFile": zip_of(code)}, **given})
    return described


def settled(client: Any, name: str, *, among: tuple[str, ...] = ("Pending",)) -> dict[str, Any]:
    """The function once it has left these states."""
    deadline = time.monotonic() + 20
    while True:
        described: dict[str, Any] = client.get_function_configuration(FunctionName=name)
        if described["State"] not in among:
            return described
        assert time.monotonic() < deadline, described
        time.sleep(0.02)
