"""Routes: what a function name and qualifier stand for at this moment, precomputed so that an invocation only looks them up.

A route is valid until any resource of its function changes; :mod:`kappa_gateway.hot.index` then drops it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from kappa_core.rules.lineage import beginning, mark_of, reached
from kappa_core.spec import VersionSpec

V = TypeVar("V")


class Record(Protocol):
    """Counts one invocation of a route; see :mod:`kappa_gateway.observe.metrics` for the code classes."""

    def __call__(self, code_class: str, seconds: float, /, *, cold: bool = False) -> None: ...


class RoutedVersion(Generic[V]):
    """One version that a route may lead to. ``spec`` is set once it has been made."""

    __slots__ = ("_make", "label", "resolved", "spec")

    def __init__(self, resolved: V, *, label: str, make: Callable[[V], Awaitable[VersionSpec]]) -> None:
        self.resolved = resolved
        self.label = label.encode()
        """Value of X-Amz-Executed-Version."""
        self.spec: VersionSpec | None = None
        self._make = make

    async def make_spec(self) -> VersionSpec:
        """Unpack what is needed and remember the spec."""
        self.spec = await self._make(self.resolved)
        return self.spec


class Route(Generic[V]):
    """Where invocations of one name and qualifier go."""

    __slots__ = (
        "_additional",
        "_draw",
        "_primary",
        "_weight",
        "function_arn",
        "function_key",
        "lineage",
        "mark",
        "record",
        "reserved",
    )

    def __init__(
        self,
        *,
        function_arn: str,
        function_key: str,
        reserved: int | None,
        primary: RoutedVersion[V],
        additional: RoutedVersion[V] | None,
        weight: float,
        draw: Callable[[], float],
        record: Record,
        loops: bool = False,
    ) -> None:
        """``loops``: the function may invoke itself without end."""
        self.function_arn = function_arn
        """As invoked: with the qualifier where one was given."""
        self.function_key = function_key
        self.reserved = reserved
        self.record = record
        self.mark = "" if loops else mark_of(function_key)
        """Names the function in a Lineage."""
        self.lineage = beginning(self.mark)
        """Added to the trace header of an invocation that comes without one."""
        self._primary = primary
        self._additional = additional
        self._weight = weight
        """Share of the invocations that go to ``additional``, 0.0–1.0."""
        self._draw = draw

    def choose(self) -> RoutedVersion[V]:
        """The version that runs the next invocation."""
        if self._additional is not None and self._draw() < self._weight:
            return self._additional
        return self._primary

    def enter(self, trace_id: str) -> str:
        """The trace header under which the function runs, of the one that the invocation came with. Raises
        RecursiveInvocationException."""
        return reached(trace_id, mark=self.mark) if "Lineage=" in trace_id else trace_id + self.lineage
