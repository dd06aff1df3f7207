"""An invocation whose supervisor was killed with it: its answer, and the end of its log, which nobody else is left to write.

Where the kernel kills all processes of a container at once, the gateway that dispatched the invocation is the only one that knows of it.
Once an :class:`Autopsy` has found that it was the function's doing, :func:`killed` says what a living supervisor would have said. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import msgspec

from kappa_core.limits import LOG_TAIL_BYTES
from kappa_core.link.frames import Invoke, LogLine, Result
from kappa_core.rules.log_lines import Report, billed, lines_for
from kappa_core.spec import VersionSpec

EXIT_ERROR: Final = "Runtime.ExitError"
OUT_OF_MEMORY: Final = "Runtime.OutOfMemory"


class Ending(NamedTuple):
    """How a supervisor ended by its function's doing."""

    words: str
    """As AWS says it: ``signal: killed``."""
    out_of_memory: bool


class Autopsy(Protocol):
    """Finds out what became of a supervisor that is lost for good, where somebody can know."""

    async def __call__(self, supervisor_id: str, within_seconds: float, /) -> Ending | None:
        """How it ended in the last so many seconds, if it was the function's doing. Takes a few seconds at most and raises nothing."""


class Killed(NamedTuple):
    result: Result
    payload: bytes
    lines: list[LogLine]


def killed(
    invoke: Invoke, ending: Ending, *, spec: VersionSpec | None, stream: int, duration_ms: float, epoch_seconds: float
) -> Killed:
    """The answer to an invocation that was killed, and its last lines.

    The time of its init, which the supervisor alone knew, is part of neither duration nor bill; of its memory is known only that it was
    all there is. ``epoch_seconds`` is when it was lost; without ``spec`` there are no lines.
    """
    request_id = invoke.request_id
    words = f"Runtime exited with error: {ending.words}"
    error_type = OUT_OF_MEMORY if ending.out_of_memory else EXIT_ERROR
    text: list[str] = []
    memory_mb = 0
    if spec is not None:
        memory_mb = spec.memory_mb if ending.out_of_memory else 0
        lines = lines_for(spec, "")
        report = Report(
            request_id=request_id,
            duration_ms=duration_ms,
            billed_ms=billed(duration_ms),
            max_memory_mb=memory_mb,
            status="failure",
            error_type=error_type,
        )
        text = [
            lines.failed(epoch_seconds, request_id, words, EXIT_ERROR),
            lines.end(request_id),
            lines.report(epoch_seconds, report),
        ]
    result = Result(
        request_id,
        "Unhandled",
        error_type,
        duration_ms=duration_ms,
        billed_ms=billed(duration_ms),
        max_memory_mb=memory_mb,
        log_tail="".join(text).encode()[-LOG_TAIL_BYTES:] if invoke.tail else b"",
    )
    payload = msgspec.json.encode({"errorType": EXIT_ERROR, "errorMessage": f"RequestId: {request_id} Error: {words}"})
    at = int(epoch_seconds * 1000)
    return Killed(result, payload, [LogLine(stream, at, request_id, line) for line in text if line])
