"""Deployments come at zero, are never rolled, and go when they are of no use and without pods."""

from __future__ import annotations

import copy

import pytest

import made
from kappa_crds.api import Object
from kappa_operator.reconcile.deployment import deployment, plan, refused_pods
from kappa_operator.reconcile.revisions import Revision
from kappa_operator.settings import PodSettings

OWNER: Object = {
    "apiVersion": "lambda.kappa.dev/v1alpha1",
    "kind": "Function",
    "metadata": {"name": "hello", "namespace": "shop", "uid": "uid-1"},
}
REVISION = Revision("uid-1.$LATEST.0123", "$LATEST", made.configuration())


def wanted(image: str = "one") -> Object:
    settings = PodSettings(gateways="dns:links:9443", link_name="links")
    return deployment(OWNER, REVISION, image=image, service_account="s", settings=settings)


def there(image: str = "one", *, replicas: int = 0, seen: int = 0, observed: int = 1) -> Object:
    found = copy.deepcopy(wanted(image))
    found["metadata"] |= {"uid": "d1", "generation": 1, "resourceVersion": "7"}
    found["spec"]["replicas"] = replicas
    found["status"] = {"replicas": seen, "observedGeneration": observed}
    return found


def test_what_is_missing_is_created() -> None:
    decided = plan([wanted()], [], unneeded_since={}, now=0, linger_seconds=30)
    assert decided.create == (wanted(),)


def test_what_is_as_it_should_be_is_left_alone_whatever_the_scaler_has_set() -> None:
    decided = plan([wanted()], [there(replicas=5, seen=3)], unneeded_since={}, now=0, linger_seconds=30)
    assert (decided.create, decided.reshape, decided.delete, decided.again) == ((), (), (), None)


def test_another_image_is_taken_without_pods() -> None:
    found = there("old")
    decided = plan([wanted("new")], [found], unneeded_since={}, now=0, linger_seconds=30)
    assert decided.reshape == ((found, wanted("new")),)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(there("old", replicas=1), id="a pod is asked for"),
        pytest.param(there("old", seen=1), id="a pod is still there"),
        pytest.param(there("old", observed=0), id="its controller has not seen its last change"),
    ],
)
def test_with_pods_it_is_neither_reshaped_nor_deleted(found: Object) -> None:
    assert plan([wanted("new")], [found], unneeded_since={}, now=0, linger_seconds=30).reshape == ()
    assert plan([], [found], unneeded_since={"d1": -1000.0}, now=0, linger_seconds=30).delete == ()


def test_without_use_it_goes_after_a_while_and_not_before() -> None:
    first = plan([], [there()], unneeded_since={}, now=100.0, linger_seconds=30)
    assert (first.delete, first.again, first.unneeded_since) == ((), 30.0, {"d1": 100.0})
    early = plan([], [there()], unneeded_since=first.unneeded_since, now=120.0, linger_seconds=30)
    assert (early.delete, early.again) == ((), 10.0)
    due = plan([], [there()], unneeded_since=early.unneeded_since, now=130.0, linger_seconds=30)
    assert due.delete == (there(),)


def test_use_in_between_begins_the_wait_anew() -> None:
    first = plan([], [there()], unneeded_since={}, now=100.0, linger_seconds=30)
    used = plan([wanted()], [there()], unneeded_since=first.unneeded_since, now=110.0, linger_seconds=30)
    assert used.unneeded_since == {}


def test_one_that_is_being_deleted_is_not_made_again_beside_it() -> None:
    going = there()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    decided = plan([wanted()], [going], unneeded_since={}, now=0, linger_seconds=30)
    assert (decided.create, decided.reshape, decided.delete) == ((), (), ())


def test_the_api_servers_reason_for_taking_no_pods_is_found() -> None:
    found = there(replicas=1)
    found["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]
    assert refused_pods(found) == "exceeded quota"
    assert refused_pods(there()) is None
