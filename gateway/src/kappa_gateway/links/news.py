"""What the links have to tell: of environments, as supervisors speak of them, and of waiters. The scaler's shell listens.

:class:`~kappa_gateway.links.shell.InvocationPort` tells, :class:`~kappa_gateway.links.scaling.Scaling` is told, in the callback in which
it happened; neither waits for the other. Nothing is decided here.
"""

from __future__ import annotations

from typing import Protocol

from kappa_core.link import frames
from kappa_core.link.frames import Demand, Hello
from kappa_core.spec import VersionSpec


class EnvironmentNews(Protocol):
    """Told what supervisors say of their environments and what this gateway's waiters need."""

    def learn(self, spec: VersionSpec, function_key: str, reserved: int | None, /) -> None: ...

    def superseded(self, revision: str, /) -> None: ...

    def set_reserved(self, function_key: str, reserved: int | None, /) -> None: ...

    def function_removed(self, function_key: str, /) -> None: ...

    def demand(self, demand: Demand, /) -> None: ...

    def supervisor_up(self, hello: Hello, spec: VersionSpec | None, /) -> None: ...

    def supervisor_down(self, supervisor_id: str, /) -> None: ...

    def environment(self, supervisor_id: str, environment_id: str, revision: str, state: str, /) -> None: ...

    def draining(self, supervisor_id: str, environment_id: str, revision: str, /) -> None: ...

    def retire_refused(self, environment_id: str, refused: frames.Refused, /) -> None: ...

    def gone(self, supervisor_id: str, environment_id: str, reason: str, /) -> None: ...
