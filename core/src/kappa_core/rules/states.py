"""States of functions and versions: which follows which, and what each forbids.

    create ──► Pending ──► Active, Successful ◄──► Active, InProgress (update; the old configuration serves)
                  │                                       └──► Active, Failed (the old configuration goes on serving)
                  └──► Failed ──update──► Pending, InProgress

Transitions are values; the settler decides when they happen.
"""

from __future__ import annotations

from typing import Final

import msgspec

from kappa_core.errors import InvalidRuntimeException, LambdaError, ResourceConflictException, ResourceNotReadyException
from kappa_core.resources import Configuration, FunctionStatus

CREATING: Final = "The function is being created."
"""Recorded for updates as well."""
INVALID_RUNTIME: Final = "InvalidRuntime"
INVALID_ZIP: Final = "InvalidZipFileException"
INTERNAL_ERROR: Final = "InternalError"

_NOT_NOW: Final = "The operation cannot be performed at this time."


def is_settled(status: FunctionStatus) -> bool:
    """Whether nothing is under way."""
    return status.state != "Pending" and status.last_update_status != "InProgress"


def updating(status: FunctionStatus) -> FunctionStatus:
    """After an accepted change of code or configuration."""
    changed = msgspec.structs.replace(
        status,
        last_update_status="InProgress",
        last_update_status_reason=CREATING,
        last_update_status_reason_code="Creating",
    )
    if status.serving is not None:
        return changed
    return msgspec.structs.replace(changed, state="Pending", state_reason=CREATING, state_reason_code="Creating")


def settled(serving: Configuration | None) -> FunctionStatus:
    """Ready to be invoked. ``serving`` is None for a version: its configuration never changes."""
    return FunctionStatus(
        state="Active",
        state_reason=None,
        state_reason_code=None,
        last_update_status="Successful",
        serving=serving,
    )


def failed(status: FunctionStatus, *, reason: str, code: str) -> FunctionStatus:
    """What was under way did not work out: what served before goes on serving, else nothing does."""
    changed = msgspec.structs.replace(
        status,
        last_update_status="Failed",
        last_update_status_reason=reason,
        last_update_status_reason_code=code,
    )
    if status.serving is not None:
        return changed
    return msgspec.structs.replace(changed, state="Failed", state_reason=reason, state_reason_code=code)


def conflict(status: FunctionStatus, *, arn: str) -> ResourceConflictException | None:
    """The error that a change gets while something is under way; ``arn`` is the function's."""
    if status.state == "Pending":
        return ResourceConflictException(f"{_NOT_NOW} The function is currently in the following state: Pending")
    if status.last_update_status == "InProgress":
        return ResourceConflictException(f"{_NOT_NOW} An update is in progress for resource: {arn}")
    return None


def not_invocable(status: FunctionStatus) -> LambdaError:
    """The error that an invocation gets while nothing serves."""
    if status.state_reason_code == INVALID_RUNTIME:
        return InvalidRuntimeException(status.state_reason)
    if status.state == "Active":
        return ResourceNotReadyException("The function is not ready yet.")
    text = f"{_NOT_NOW} The function is currently in the following state: {status.state}"
    if status.state == "Failed" and status.state_reason:
        text = f"{text} ({status.state_reason})"
    return ResourceConflictException(text)
