"""boto3 clients whose Invoke has its whole payload when it returns.

botocore leaves a payload on the wire until somebody reads it, and whoever only wants to know that an invocation was answered never
does: its connection then ends when the collector finds it, in the middle of another test.
"""

from __future__ import annotations

import io
from typing import Any

from botocore.response import StreamingBody


def read_payloads(client: Any) -> None:
    """Of a Lambda client."""
    client.meta.events.register("after-call.lambda.Invoke", _read)


def _read(parsed: dict[str, Any], **_: Any) -> None:
    payload = parsed.get("Payload")
    if isinstance(payload, StreamingBody):
        whole = payload.read()
        payload.close()
        parsed["Payload"] = StreamingBody(io.BytesIO(whole), len(whole))
