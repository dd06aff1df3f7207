"""``kappa cluster test``: one function made by the Lambda API, invoked, and deleted; the chart's `helm test` runs it in a pod.

A client like any other, on boto3: what works here works for users. It tries everything once, names the step that fails, and deletes what
it made whatever happens.
"""

from __future__ import annotations

import io
import json
import secrets
import zipfile
from collections.abc import Callable
from typing import Any, Final

import boto3
import botocore.config
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

_SOURCE: Final = (
    "def handler(event, context):\n    return {'sum': event['left'] + event['right'], 'name': context.function_name}\n"
)
_ACTIVE_ATTEMPTS: Final = 120
"""With half a second between them."""


class TrialError(Exception):
    """A step failed; the message is one line that names it."""


def run(endpoint_url: str, *, runtime: str, say: Callable[[str], None]) -> None:
    """Make, invoke and delete a function of ``runtime``; ``say`` gets one line per step. Raises TrialError."""
    config = botocore.config.Config(retries={"total_max_attempts": 3, "mode": "standard"}, read_timeout=120)
    client = boto3.client("lambda", endpoint_url=endpoint_url, config=config)
    name = f"kappa-test-{secrets.token_hex(4)}"
    step = "create"
    try:
        client.create_function(
            FunctionName=name,
            Runtime=runtime,
            Handler="app.handler",
            Role="arn:aws:iam::000000000000:role/kappa-test",
            Code={"ZipFile": _archive()},
            Timeout=30,
        )
        try:
            say(f"function {name}: created")
            step = "wait until it is Active"
            client.get_waiter("function_active_v2").wait(
                FunctionName=name, WaiterConfig={"Delay": 0.5, "MaxAttempts": _ACTIVE_ATTEMPTS}
            )
            step = "invoke"
            _check(client.invoke(FunctionName=name, Payload=json.dumps({"left": 40, "right": 2})), name=name)
            say("invoked: it answers what it should")
        finally:
            client.delete_function(FunctionName=name)
        say("deleted")
    except (BotoCoreError, ClientError, WaiterError) as error:
        raise TrialError(f"{step}: {error}") from None
    finally:
        client.close()


def _check(answer: dict[str, Any], *, name: str) -> None:
    payload = answer["Payload"].read()
    if "FunctionError" in answer or json.loads(payload) != {"sum": 42, "name": name}:
        raise TrialError(f"invoke: the answer is {payload.decode('utf-8', 'replace')[:500]}")


def _archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", _SOURCE)
    return buffer.getvalue()
