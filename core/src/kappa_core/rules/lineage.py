"""Recursive loops: the chain of invocations that a trace header carries from function to function, and where such a chain is stopped.

An invocation hands its function ``X-Amzn-Trace-Id: Root=…;Parent=…;Sampled=0;Lineage=<requests>:<mark>:<loops>``; the SDKs in the function
send it on with whatever they call, and Kappa does with an asynchronous event and a destination. So a chain carries its own books, no
gateway has to remember anything, and a chain may cross them all.

The header has room for one function (1 to 255, eight hex digits, 0 to 32767: the limits that OpenTelemetry's propagator checks). It is the
one that the chain *watches*: ``mark`` names it and ``loops`` counts how often it was reached again. Which one to watch is Brent's cycle
search: when the watched one is not reached for as many requests as the window has, the watch goes over to the function that is reached
then, with a window twice as long. ``requests`` holds both: the window is its highest bit, the rest counts the requests since the watched
function was last reached. So a function that invokes itself is found exactly, whatever led to it, and a loop of n functions after at most
two rounds more, for n up to 128.

A function that allows loops hands the header on as it came: it is neither watched nor counted. Sources: semantics of the Lambda API,
section 1; docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html.
"""

from __future__ import annotations

import re
from hashlib import blake2s
from typing import Final, NamedTuple

from kappa_core.errors import RecursiveInvocationException

LOOPS: Final = 16
"""How often a function runs in one chain: AWS says "approximately 16 times"."""
STOPPED: Final = (
    "Lambda has detected your function being invoked in a recursive loop with other Amazon Web Services resources and stopped your "
    "function's invocation."
)
"""As the service model says it."""
_WIDEST: Final = 128
_MOST_LOOPS: Final = 32_767
_FIELD: Final = re.compile(r";?\s*Lineage=([^;]*)")
_VALUE: Final = re.compile(r"(\d{1,3}):([0-9a-f]{8}):(\d{1,5})")


class Lineage(NamedTuple):
    """What a chain knows of itself; see the module."""

    requests: int
    mark: str
    loops: int

    @property
    def window(self) -> int:
        """How many requests the watched function may stay away."""
        return 1 << (self.requests.bit_length() - 1)

    def reach(self, mark: str) -> Lineage:
        """With one more function reached. A chain that was stopped watches the same function for good."""
        if mark == self.mark:
            return Lineage(self.window, mark, min(self.loops + 1, _MOST_LOOPS))
        if self.loops >= LOOPS:
            return self
        if self.requests + 1 < 2 * self.window:
            return self._replace(requests=self.requests + 1)
        return Lineage(min(2 * self.window, _WIDEST), mark, 0)


def mark_of(function_key: str) -> str:
    """Eight hex digits for a function."""
    return blake2s(function_key.encode(), digest_size=4).hexdigest()


def beginning(mark: str) -> str:
    """What is added to the trace header where a chain begins with this function; nothing where it allows loops (an empty mark)."""
    return f";Lineage=1:{mark}:0" if mark else ""


def reached(trace_id: str, *, mark: str) -> str:
    """The trace header under which a function runs, of the one that its invocation came with.

    A Lineage that means nothing is replaced. Raises RecursiveInvocationException where the function has had its turns in this chain, and
    for every function where a chain went on after it was stopped and told of it.
    """
    if not mark:
        return trace_id
    rest, before = _read(trace_id)
    if before is None:
        return (rest + beginning(mark)).lstrip(";")
    after = before.reach(mark)
    if before.loops > LOOPS or (after.mark == mark and after.loops >= LOOPS):
        raise RecursiveInvocationException(STOPPED)
    return _written(rest, after)


def refused(trace_id: str, *, mark: str) -> str:
    """The trace header of what is told of an event that :func:`reached` raised for."""
    rest, before = _read(trace_id)
    return trace_id if before is None else _written(rest, before.reach(mark))


def is_over(trace_id: str) -> bool:
    """Whether the chain went on after it was stopped and told of it: telling once more would be a loop of its own."""
    _, lineage = _read(trace_id)
    return lineage is not None and lineage.loops > LOOPS


def _read(trace_id: str) -> tuple[str, Lineage | None]:
    """The header without its Lineage, and that, where it has one that means something."""
    found = _FIELD.search(trace_id)
    if found is None:
        return trace_id, None
    rest = _FIELD.sub("", trace_id).lstrip("; ")
    value = _VALUE.fullmatch(found[1].strip())
    if value is None or not 1 <= int(value[1]) <= 255 or int(value[3]) > _MOST_LOOPS:
        return rest, None
    return rest, Lineage(int(value[1]), value[2], int(value[3]))


def _written(rest: str, lineage: Lineage) -> str:
    return f"{rest};Lineage={lineage.requests}:{lineage.mark}:{lineage.loops}".lstrip(";")
