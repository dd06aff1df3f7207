"""Provisioned concurrency in objects: whoever wrote the number, what is noted of it, and when it was asked for."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

import made
from kappa_core.resources import Alias, ProvisionedConcurrency, ProvisionedState
from kappa_crds import labels, names
from kappa_crds.convert import from_object, to_object, to_status

STATUS = {"requested": 2, "functionVersion": "1", "ready": 1, "allocated": 2, "status": "IN_PROGRESS", "revision": "uid-1.1.x"}


def alias(**spec: Any) -> dict[str, Any]:
    given = {"functionName": "hello", "name": "live", "functionVersion": "1", **spec}
    metadata = {"name": "hello.live", "namespace": "default", "uid": "u", "resourceVersion": "7"}
    return {"apiVersion": names.API_VERSION, "kind": "Alias", "metadata": metadata, "spec": given}


def read(obj: dict[str, Any]) -> ProvisionedConcurrency | None:
    found = from_object(obj, account=made.ACCOUNT, default_region=made.REGION)
    assert isinstance(found, Alias)
    return found.provisioned


def test_a_number_of_zero_is_none_unless_a_status_still_speaks_of_more() -> None:
    assert read(alias()) is None
    assert read(alias(provisionedConcurrentExecutions=0)) is None
    left = {**alias(provisionedConcurrentExecutions=0), "status": {"provisionedConcurrency": STATUS}}
    assert read(left) == ProvisionedConcurrency(
        requested=0, state=ProvisionedState(requested=2, function_version="1", ready=1, allocated=2, revision="uid-1.1.x")
    )


def test_it_was_asked_for_when_its_field_was_last_written_by_whomever() -> None:
    obj = alias(provisionedConcurrentExecutions=2)
    number = {"f:spec": {"f:provisionedConcurrentExecutions": {}}}
    obj["metadata"]["managedFields"] = [
        {"manager": "kappa-api", "time": "2026-01-01T00:00:01Z", "fieldsV1": number},
        {"manager": "kubectl", "subresource": "scale", "time": "2026-01-01T00:00:05Z", "fieldsV1": number},
        {"manager": "kappa-operator", "time": "2026-01-01T00:00:09Z", "fieldsV1": {"f:metadata": {}}},
    ]
    found = read(obj)
    assert found is not None
    assert found.modified_ms == 1_767_225_605_000


def test_where_it_was_scaled_the_status_says_when() -> None:
    obj = alias(provisionedConcurrentExecutions=2)
    obj["status"] = {"provisionedConcurrency": {**STATUS, "lastModified": "2026-01-01T00:00:05.250Z"}}
    found = read(obj)
    assert found is not None
    assert found.modified_ms == 1_767_225_605_250
    obj["spec"]["provisionedConcurrentExecutions"] = 3  # which nobody has noted yet
    found = read(obj)
    assert found is not None
    assert found.modified_ms == 0


def test_the_status_has_a_selector_that_finds_the_pods() -> None:
    state = ProvisionedState(requested=2, function_version="1", ready=1, allocated=2, revision="uid-1.1.x")
    resource = made.alias(provisioned=ProvisionedConcurrency(requested=2, state=state))
    status = to_status(resource)["provisionedConcurrency"]
    assert status == {**STATUS, "selector": f"{labels.REVISION_HASH}={names.revision_hash('uid-1.1.x')}"}
    assert to_status(replace(resource, provisioned=None)) == {}


def test_a_number_that_somebody_scaled_to_zero_stays_as_it_stands() -> None:
    current = alias(provisionedConcurrentExecutions=0)
    resource = from_object(current, account=made.ACCOUNT, default_region=made.REGION)
    again = to_object(resource, namespace="default", default_region=made.REGION, current=current)
    assert again["spec"]["provisionedConcurrentExecutions"] == 0
