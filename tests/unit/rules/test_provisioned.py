"""What is said of provisioned concurrency: the first configurations have the first claim, and only a change by wish is a change."""

from __future__ import annotations

from msgspec.structs import replace

import made
from kappa_core.resources import Alias, ProvisionedConcurrency, ProvisionedState
from kappa_core.rules.provisioned import Progress, noted_only, shown_state, states
from kappa_core.spec import INIT_FAILURE


def alias(name: str, number: int, state: ProvisionedState | None = None) -> Alias:
    return replace(made.alias(name, to="1"), provisioned=ProvisionedConcurrency(requested=number, state=state))


def test_what_there_is_goes_to_the_first_configuration_first() -> None:
    first, second = states([alias("a", 2), alias("b", 2)], Progress(ready=3, allocated=4, revision="uid.1.x"))
    assert (first.status, first.ready, first.allocated, first.revision) == ("READY", 2, 2, "uid.1.x")
    assert (second.status, second.ready, second.allocated) == ("IN_PROGRESS", 1, 2)


def test_only_a_failed_init_makes_it_fail_anything_else_is_waited_for() -> None:
    (failed,) = states([alias("a", 1)], Progress(cause=f"{INIT_FAILURE}: Runtime.ExitError"))
    assert (failed.status, failed.reason) == ("FAILED", INIT_FAILURE)
    (waiting,) = states([alias("a", 1)], Progress(cause="no node has room"))
    assert (waiting.status, waiting.reason) == ("IN_PROGRESS", "no node has room")
    (ready,) = states([alias("a", 1)], Progress(ready=1, allocated=2, cause=INIT_FAILURE))
    assert (ready.status, ready.reason) == ("READY", None)


def test_what_was_noted_of_another_request_settles_nothing() -> None:
    noted = ProvisionedState(requested=3, function_version="1", ready=3, allocated=3, status="READY")
    assert shown_state(alias("a", 3), noted) == noted
    fewer = shown_state(alias("a", 2), noted)
    assert (fewer.status, fewer.ready, fewer.allocated) == ("IN_PROGRESS", 2, 2)
    moved = shown_state(replace(alias("a", 3), function_version="2"), noted)
    assert (moved.status, moved.ready, moved.allocated) == ("IN_PROGRESS", 0, 0)


def test_a_note_is_no_change() -> None:
    before = alias("a", 1)
    noted = alias("a", 1, ProvisionedState(requested=1, function_version="1"))
    assert noted_only(before, noted)
    assert not noted_only(before, before)
    assert not noted_only(before, replace(noted, description="another"))
    assert not noted_only(noted, alias("a", 2, ProvisionedState(requested=1, function_version="1", ready=1)))
    assert not noted_only(noted, replace(noted, provisioned=None))
