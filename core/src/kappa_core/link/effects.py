"""What the state machines of the link ask their shells to do. Plain frozen values: a shell matches on the type and does I/O.

Effects are carried out in the order in which they were returned. ``Send`` is any control frame whose body is small and complete;
frames with a payload (INVOKE, RESULT) have effects of their own, because the shell holds the payload and the machines never see it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kappa_core.link.frames import Collect, Demand, Deny, EnvironmentState, FrameType


class Effect(msgspec.Struct, frozen=True, gc=False):
    """Base of all effects."""


class Send(Effect, frozen=True, gc=False):
    """Send a control frame. ``to`` is a gateway's name (parking) or the number of a link (dispatch)."""

    to: str | int
    kind: FrameType
    stream: int = 0
    epoch: int = 0
    body: msgspec.Struct | None = None
    """None: the empty body."""


# -- parking: the supervisor ---------------------------------------------------------------------------------------
class SendHello(Effect, frozen=True, gc=False):
    """The first frame of a link. The shell completes the HELLO with identity, versions and token."""

    gateway: str
    environments: list[EnvironmentState]


class StartEnvironment(Effect, frozen=True, gc=False):
    """Begin the init of a new environment under this stream number."""

    stream: int
    environment_id: str


class Run(Effect, frozen=True, gc=False):
    """The INVOKE was accepted: hand it to the environment's runtime."""

    stream: int
    request_id: str


class SendResult(Effect, frozen=True, gc=False):
    """Send the RESULT that the shell holds for this request, then forget it."""

    gateway: str
    stream: int
    request_id: str


class DropResult(Effect, frozen=True, gc=False):
    """Nobody waits for this result any more: forget it."""

    stream: int
    request_id: str


class Stop(Effect, frozen=True, gc=False):
    """End the processes of an environment, gracefully; report with ``on_gone``."""

    stream: int
    reason: str


class End(Effect, frozen=True, gc=False):
    """The supervisor itself was retired and its last environment is gone: exit."""

    reason: str


# -- dispatch: a gateway -------------------------------------------------------------------------------------------
class Dispatch(Effect, frozen=True, gc=False):
    """Send the INVOKE of this request on the link, naming the epoch."""

    link: int
    stream: int
    epoch: int
    request_id: str


class Throttled(Effect, frozen=True, gc=False):
    """Answer 429 TooManyRequestsException with this ThrottleReason."""

    request_id: str
    reason: str


class Unavailable(Effect, frozen=True, gc=False):
    """Answer 503 ServiceUnavailableException; nothing has run."""

    request_id: str
    cause: str


class EnvironmentLost(Effect, frozen=True, gc=False):
    """Answer 502: what ran this request is gone, or its result is. It may have had effects and is never dispatched again."""

    request_id: str
    cause: str
    supervisor: str = ""
    """Whose link was lost for good; empty where the supervisor itself said what became of the request."""
    age: float = 0.0
    """With ``supervisor``: seconds since the invocation arrived."""


class Report(Effect, frozen=True, gc=False):
    """Send this demand to the gateway that holds the scaler (or hand it to the scaler in this process)."""

    demand: Demand


class CloseLink(Effect, frozen=True, gc=False):
    """Close this connection; another one of the same supervisor has replaced it. No ``on_link_down`` is to follow."""

    link: int
    reason: str


# -- scale: the gateway that holds the scaler ----------------------------------------------------------------------
class StartEnvironments(Effect, frozen=True, gc=False):
    """Have the provider start these. ``epoch`` fences: a provider that has seen a higher one refuses."""

    epoch: int
    revision: str
    environment_ids: list[str]


class StopEnvironments(Effect, frozen=True, gc=False):
    """These did not arrive by the start deadline: have the provider end them, then report each with ``on_environment_gone``."""

    revision: str
    environment_ids: list[str]
    reason: str


class RetireEnvironment(Effect, frozen=True, gc=False):
    """Send RETIRE to the environment's supervisor. Where it is not linked, do nothing: the scaler asks again."""

    environment_id: str
    reason: str
    when_busy: Literal["refuse", "finish"] = "refuse"
    idle_ms: int = 0


class SendDeny(Effect, frozen=True, gc=False):
    """Send DENY to a gateway (or hand it to the dispatcher in this process)."""

    gateway: str
    deny: Deny


class SendCollect(Effect, frozen=True, gc=False):
    """Send COLLECT to a gateway (or ask the dispatcher in this process and answer at once)."""

    gateway: str
    collect: Collect


class StartsFail(Effect, frozen=True, gc=False):
    """Environments of this revision cannot be started: for the function's conditions. Empty ``cause``: they can again."""

    revision: str
    cause: str


class ProvisionedChanged(Effect, frozen=True, gc=False):
    """How far the provisioned concurrency of this revision has come may have changed; see ``Scaler.provisioned``."""

    revision: str
