"""Transitions of functions and versions, and what each state forbids."""

from __future__ import annotations

import pytest

import made
from kappa_core.resources import FunctionStatus
from kappa_core.rules import states

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:hello"


def test_a_new_function_is_pending_without_an_update_status() -> None:
    status = FunctionStatus()
    assert (status.state, status.state_reason, status.state_reason_code) == (
        "Pending",
        "The function is being created.",
        "Creating",
    )
    assert status.last_update_status is None
    assert not states.is_settled(status)


def test_settling_serves_the_configuration() -> None:
    frozen = made.configuration()
    status = states.settled(frozen)
    assert (status.state, status.state_reason, status.last_update_status) == ("Active", None, "Successful")
    assert status.serving == frozen
    assert states.is_settled(status)


def test_an_update_keeps_the_old_configuration_serving_while_it_runs_and_when_it_fails() -> None:
    frozen = made.configuration()
    updating = states.updating(states.settled(frozen))
    assert (updating.state, updating.last_update_status, updating.last_update_status_reason) == (
        "Active",
        "InProgress",
        "The function is being created.",
    )
    failed = states.failed(updating, reason="why", code="InvalidRuntime")
    assert (failed.state, failed.last_update_status, failed.last_update_status_reason) == ("Active", "Failed", "why")
    assert updating.serving == failed.serving == frozen


def test_a_creation_that_fails_is_failed_and_can_be_repaired_by_an_update() -> None:
    failed = states.failed(FunctionStatus(), reason="why", code="InvalidRuntime")
    assert (failed.state, failed.state_reason, failed.state_reason_code) == ("Failed", "why", "InvalidRuntime")
    assert states.is_settled(failed)
    assert states.conflict(failed, arn=ARN) is None
    again = states.updating(failed)
    assert (again.state, again.last_update_status) == ("Pending", "InProgress")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (FunctionStatus(), "The function is currently in the following state: Pending"),
        (states.updating(states.settled(made.configuration())), f"An update is in progress for resource: {ARN}"),
    ],
)
def test_what_is_under_way_refuses_changes_in_aws_words(status: FunctionStatus, text: str) -> None:
    conflict = states.conflict(status, arn=ARN)
    assert conflict is not None
    assert conflict.message == f"The operation cannot be performed at this time. {text}"


def test_a_settled_function_refuses_nothing() -> None:
    assert states.conflict(states.settled(made.configuration()), arn=ARN) is None
