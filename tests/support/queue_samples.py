"""Events for tests of queues."""

from __future__ import annotations

from kappa_core.ports.queue import Event

ARN = "arn:aws:lambda:eu-central-1:000000000000:function:"


def event(event_id: str, *, function: str = "f", payload: bytes = b"{}", qualifier: str = "") -> Event:
    """The event of a function whose uid is ``uid-`` and its name."""
    return Event(
        event_id=event_id,
        function_uid=f"uid-{function}",
        function_arn=ARN + function + (f":{qualifier}" if qualifier else ""),
        payload=payload,
        trace_id="Root=1-0",
    )
