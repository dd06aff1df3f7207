"""Which revisions there is a Deployment for, and that none of those is ever deleted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import made
from kappa_core.resources import Alias, FunctionStatus, FunctionVersion
from kappa_crds.api import Object
from kappa_operator.reconcile.deployment import deployment, has_no_pod, plan
from kappa_operator.reconcile.revisions import Revision, live_revisions
from kappa_operator.settings import PodSettings

HOUR = 3600.0
NOW = 1_800_000_000.0
PODS = PodSettings(gateways="dns:links:9443", link_name="links")
OWNER: Object = {
    "apiVersion": "lambda.kappa.dev/v1alpha1",
    "kind": "Function",
    "metadata": {"name": "hello", "namespace": "shop", "uid": "uid-1"},
}


def alias(name: str, version: str, weights: dict[str, float] | None = None, uid: str = "uid-1") -> Alias:
    return Alias(
        account=made.ACCOUNT,
        region=made.REGION,
        name="hello",
        alias=name,
        function_version=version,
        additional_version_weights=weights or {},
        function_uid=uid,
    )


def of_deployment(revision: Revision) -> Object:
    return deployment(OWNER, revision, image="i", service_account="s", settings=PODS)


@pytest.mark.parametrize(
    ("aliases", "wanted", "expected"),
    [
        pytest.param([], {}, ["$LATEST"], id="what $LATEST serves"),
        pytest.param([alias("live", "2")], {}, ["$LATEST", "2"], id="a version that an alias names"),
        pytest.param([alias("live", "2", {"1": 0.1})], {}, ["$LATEST", "1", "2"], id="both versions of a weighted alias"),
        pytest.param([alias("live", "$LATEST")], {}, ["$LATEST"], id="an alias of $LATEST adds nothing"),
        pytest.param([alias("live", "9")], {}, ["$LATEST"], id="an alias of a version that is not there adds nothing"),
        pytest.param([alias("live", "2", uid="earlier")], {}, ["$LATEST"], id="an alias of an earlier function adds nothing"),
        pytest.param([], {"1": NOW - 10}, ["$LATEST", "1"], id="a version that was asked for just now"),
        pytest.param([], {"1": NOW - HOUR}, ["$LATEST"], id="a version that was asked for an hour ago is not"),
    ],
)
def test_live_are_latest_aliases_targets_and_what_was_asked_for(
    aliases: list[Alias], wanted: dict[str, float], expected: list[str]
) -> None:
    live = live_revisions(
        made.function(),
        versions=[made.version(1), made.version(2)],
        aliases=aliases,
        wanted=wanted,
        now=NOW,
        wanted_seconds=HOUR,
    )
    assert [each.version for each in live.revisions] == expected


def test_a_function_that_serves_nothing_yet_has_no_live_revision() -> None:
    pending = made.function(status=FunctionStatus())
    live = live_revisions(pending, versions=[], aliases=[], wanted={}, now=NOW, wanted_seconds=HOUR)
    assert live.revisions == ()


def test_the_end_of_being_wanted_is_told_so_that_somebody_looks_again_then() -> None:
    live = live_revisions(
        made.function(), versions=[made.version(1)], aliases=[], wanted={"1": NOW - 100}, now=NOW, wanted_seconds=HOUR
    )
    assert live.until == NOW - 100 + HOUR


def test_a_revision_is_named_as_the_gateways_name_it() -> None:
    function = made.function()
    (live,) = live_revisions(function, versions=[], aliases=[], wanted={}, now=NOW, wanted_seconds=HOUR).revisions
    assert live.revision == f"uid-1.$LATEST.{made.configuration().digest()}"


numbers = st.integers(1, 6)
aliases = st.builds(lambda version, other: alias("a", str(version), {str(other): 0.5}), numbers, numbers)
states = st.fixed_dictionaries(
    {"replicas": st.integers(0, 2), "seen": st.integers(0, 2), "observed": st.booleans(), "unneeded": st.floats(0, 100)}
)


@given(
    versions=st.sets(numbers),
    named=st.lists(aliases, max_size=3),
    wanted=st.dictionaries(numbers.map(str), st.floats(NOW - 2 * HOUR, NOW)),
    there=st.dictionaries(st.integers(0, 6), states),
)
def test_a_live_revision_never_loses_its_deployment_and_no_deployment_with_pods_is_deleted(
    versions: set[int], named: list[Alias], wanted: dict[str, float], there: dict[int, dict[str, int]]
) -> None:
    published: list[FunctionVersion] = [
        made.version(each, configuration=made.configuration(description=str(each))) for each in sorted(versions)
    ]
    function = made.function()
    everything = {0: Revision(f"uid-1.$LATEST.{made.configuration().digest()}", "$LATEST", made.configuration())}
    for number in range(1, 7):
        frozen = made.configuration(description=str(number))
        everything[number] = Revision(f"uid-1.{number}.{frozen.digest()}", str(number), frozen)
    existing, unneeded = [], {}
    for number, state in there.items():
        found = of_deployment(everything[number])
        found["metadata"] |= {"uid": f"d{number}", "generation": 3}
        found["spec"]["replicas"] = state["replicas"]
        found["status"] = {"replicas": state["seen"], "observedGeneration": 3 if state["observed"] else 2}
        existing.append(found)
        unneeded[f"d{number}"] = -float(state["unneeded"])
    live = live_revisions(function, versions=published, aliases=named, wanted=wanted, now=NOW, wanted_seconds=HOUR)
    decided = plan(
        [of_deployment(each) for each in live.revisions], existing, unneeded_since=unneeded, now=0.0, linger_seconds=30.0
    )
    alive = {of_deployment(each)["metadata"]["name"] for each in live.revisions}
    deleted = {each["metadata"]["name"] for each in decided.delete}
    assert not alive & deleted
    assert all(has_no_pod(each) for each in decided.delete)
    created = {each["metadata"]["name"] for each in decided.create}
    assert alive == created | (alive & {each["metadata"]["name"] for each in existing})
    assert all(each["spec"]["replicas"] == 0 for each in decided.create)
