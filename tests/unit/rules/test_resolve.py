"""From a name to what runs: versions, aliases, weights, and what an earlier function of the name left behind."""

from __future__ import annotations

import msgspec
import pytest

import made
from kappa_core.errors import (
    InvalidParameterValueException,
    InvalidRuntimeException,
    ResourceConflictException,
    ResourceNotFoundException,
)
from kappa_core.names import FunctionName
from kappa_core.resources import FunctionStatus, Key, Resource
from kappa_core.rules import states
from kappa_core.rules.resolve import layer_digests, resolve

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:hello"


def index(*resources: Resource) -> dict[Key, Resource]:
    return {resource.key: resource for resource in resources}


def name(qualifier: str | None = None) -> FunctionName:
    return FunctionName(made.ACCOUNT, made.REGION, "hello", qualifier)


def test_latest_runs_what_serves_not_what_is_desired() -> None:
    old, new = made.configuration(timeout=3), made.configuration(timeout=9)
    updating = states.updating(states.settled(old))
    target = resolve(index(made.function(configuration=new, status=updating)), name())
    assert target.version == "$LATEST"
    assert target.runnable() == old


def test_a_version_runs_its_frozen_configuration() -> None:
    frozen = made.configuration(timeout=7)
    target = resolve(index(made.function(), made.version(2, configuration=frozen)), name("2"))
    assert (target.version, target.runnable()) == ("2", frozen)
    assert target.key == Key("FunctionVersion", made.ACCOUNT, made.REGION, "hello", "2")


@pytest.mark.parametrize(("draw", "expected"), [(0.0, "2"), (0.2499, "2"), (0.25, "1"), (0.999, "1")])
def test_an_alias_is_followed_by_weight(draw: float, expected: str) -> None:
    weighted = made.alias(to="1", additional_version_weights={"2": 0.25})
    target = resolve(index(made.function(), made.version(1), made.version(2), weighted), name("live"), draw=draw)
    assert (target.version, target.qualifier) == (expected, "live")


def test_a_weight_of_zero_is_never_chosen_and_of_one_always() -> None:
    for weight, expected in ((0.0, "1"), (1.0, "2")):
        weighted = made.alias(to="1", additional_version_weights={"2": weight})
        for draw in (0.0, 0.5, 0.999999):
            target = resolve(index(made.function(), made.version(1), made.version(2), weighted), name("live"), draw=draw)
            assert target.version == expected


def test_an_alias_may_point_to_latest() -> None:
    assert resolve(index(made.function(), made.alias(to="$LATEST")), name("live")).version == "$LATEST"


@pytest.mark.parametrize(("qualifier", "shown"), [(None, "$LATEST"), ("$LATEST", "$LATEST"), ("3", "3"), ("live", "live")])
def test_what_is_not_there_is_not_found_with_its_qualifier(qualifier: str | None, shown: str) -> None:
    resources: list[Resource] = [] if shown == "$LATEST" else [made.function()]
    with pytest.raises(ResourceNotFoundException) as caught:
        resolve(index(*resources), name(qualifier))
    assert caught.value.message == f"Function not found: {ARN}:{shown}"


def test_leftovers_of_an_earlier_function_of_the_name_are_not_there() -> None:
    reborn = made.function(meta=made.meta("uid-2"))
    for qualifier in ("1", "live"):
        with pytest.raises(ResourceNotFoundException):
            resolve(index(reborn, made.version(1), made.alias(to="1")), name(qualifier))


def test_an_alias_whose_version_is_gone_names_that_version() -> None:
    with pytest.raises(ResourceNotFoundException, match=r":hello:1$"):
        resolve(index(made.function(), made.alias(to="1")), name("live"))


def test_nothing_runs_while_pending_and_the_error_says_so() -> None:
    target = resolve(index(made.function(status=FunctionStatus())), name())
    assert target.configuration is None
    with pytest.raises(ResourceConflictException) as caught:
        target.runnable()
    assert caught.value.message == (
        "The operation cannot be performed at this time. The function is currently in the following state: Pending"
    )
    pending = resolve(index(made.function(), made.version(1, status=FunctionStatus())), name("1"))
    assert pending.configuration is None


def test_a_function_without_its_runtime_says_what_is_missing() -> None:
    status = states.failed(FunctionStatus(), reason="python3.12 is not installed.", code=states.INVALID_RUNTIME)
    with pytest.raises(InvalidRuntimeException, match=r"python3\.12 is not installed\."):
        resolve(index(made.function(status=status)), name()).runnable()


def test_layers_resolve_to_their_archives_in_order_deleted_ones_included() -> None:
    first, second = made.layer(1, name="one"), made.layer(4, name="two", code=made.code("c" * 64), deleted=True)
    arns = tuple(f"arn:aws:lambda:eu-central-1:123456789012:layer:{one}" for one in ("two:4", "one:1"))
    digests = layer_digests(index(first, second), made.configuration(layers=arns))
    assert digests == ("c" * 64, "b" * 64)
    with pytest.raises(InvalidParameterValueException, match=r"layer:one:1 does not exist\."):
        layer_digests(index(second), made.configuration(layers=arns))


def test_resolving_never_changes_the_index() -> None:
    resources = index(made.function(), made.version(1), made.alias(to="1"))
    before = msgspec.json.encode(list(resources.values()))
    resolve(resources, name("live"), draw=0.1)
    assert msgspec.json.encode(list(resources.values())) == before
