"""Resources as objects and back: nothing lost either way, and manifests of three lines mean what AWS's defaults say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

import made
from kappa_core.resources import Alias, EventSourceMapping, Function, FunctionStatus, FunctionVersion, Meta, Resource, ValueSource
from kappa_core.rules import states
from kappa_core.rules.configuration import NO_CODE
from kappa_core.rules.revision import revision_id
from kappa_crds import labels
from kappa_crds.convert import ConversionError, from_object, to_object, to_status
from kappa_crds.names import Owner
from kappa_crds.status import observation_lags
from resource_strategies import functions, resources
from served_objects import edited, function_manifest, served

NAMESPACE = "functions"
REGION = "eu-central-1"
UID = "00000000-0000-4000-8000-000000000001"


def _object(resource: Resource, **changes: Any) -> dict[str, Any]:
    """A resource as the API server has it once the API has made it and written its status."""
    applied = to_object(resource, namespace=NAMESPACE, default_region=REGION)
    return served(applied, status=to_status(resource), **changes)


def _read(obj: dict[str, Any]) -> Any:
    return from_object(obj, account=made.ACCOUNT, default_region=REGION)


def _function(obj: dict[str, Any]) -> Function:
    function = _read(obj)
    assert isinstance(function, Function)
    return function


def _settled(obj: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A kubectl-made function once the settler has taken its code in: what it writes by way of the store."""
    function = _function(obj)
    code = made.code(size=10, unzipped_size=20)
    if "blob" not in obj["spec"]["code"]:
        code = msgspec.structs.replace(code, source="inline")
    configuration = msgspec.structs.replace(function.configuration, code=code)
    done = msgspec.structs.replace(function, configuration=configuration, status=states.settled(configuration), **changes)
    return {**obj, "status": to_status(done, written=obj, now_ms=1_795_255_200_000)}


@settings(max_examples=80, deadline=None)
@given(resource=resources)
def test_what_the_api_made_comes_back_exactly(resource: Resource) -> None:
    found = _read(_object(resource))
    assert msgspec.structs.replace(found, meta=Meta()) == resource


@settings(max_examples=50, deadline=None)
@given(resource=resources)
def test_an_update_that_changes_nothing_applies_the_spec_as_it_is(resource: Resource) -> None:
    current = _object(resource)
    again = to_object(_read(current), namespace=NAMESPACE, default_region=REGION, current=current)
    assert again["spec"] == current["spec"]
    assert again["metadata"]["name"] == current["metadata"]["name"]


@settings(max_examples=50, deadline=None)
@given(before=functions(), after=functions())
def test_an_update_says_everything_that_changed(before: Function, after: Function) -> None:
    after = msgspec.structs.replace(after, name=before.name, region=before.region)
    applied = to_object(after, namespace=NAMESPACE, default_region=REGION, current=_object(before))
    written = served(applied, generation=2)
    found = _read({**written, "status": to_status(after, written=written)})
    assert msgspec.structs.replace(found, meta=Meta()) == after


def test_identity_versions_and_times_are_the_api_servers() -> None:
    function = msgspec.structs.replace(made.function(), meta=Meta(created_ms=1_795_255_200_123))
    meta = _read(_object(function, version=812)).meta
    assert meta == Meta(
        uid=UID,
        resource_version="812",
        generation=812,
        edition="1",
        created_ms=1_795_255_200_123,
        updated_ms=1_795_255_200_123,
    )


def test_what_others_note_on_a_function_changes_no_revision_id() -> None:
    written = _object(made.function(), version=812)
    condition = {"type": "Ready", "status": "True", "reason": "Deployed", "observedGeneration": 1}
    noted = {**written, "metadata": {**written["metadata"], "resourceVersion": "813"}}
    noted["status"] = {**written.get("status", {}), "conditions": [condition]}
    changed = {**written, "metadata": {**written["metadata"], "resourceVersion": "814", "generation": 2}}
    before = revision_id(_function(written))
    assert revision_id(_function(noted)) == before
    assert revision_id(_function(changed)) != before


def test_a_shortest_manifest_has_the_defaults_of_aws() -> None:
    function = _function(served(function_manifest()))
    configuration = function.configuration
    assert (function.name, function.account, function.region) == ("hello", made.ACCOUNT, REGION)
    assert (configuration.timeout, configuration.memory_size, configuration.ephemeral_storage_mb) == (3, 128, 512)
    assert configuration.role == f"arn:aws:iam::{made.ACCOUNT}:role/kappa-default"
    assert configuration.logging.log_group == "/aws/lambda/hello"
    assert configuration.architectures == ("x86_64",)
    assert configuration.environment is None
    assert configuration.code == NO_CODE
    assert function.status == FunctionStatus()
    assert function.modified_ms == 1_795_255_200_000


def test_short_forms_mean_the_objects_own_account_and_region() -> None:
    manifest = function_manifest(role="reader", layers=["tools:3"])
    manifest["metadata"]["labels"] = {labels.REGION: "us-east-1"}
    configuration = _function(served(manifest)).configuration
    assert configuration.role == f"arn:aws:iam::{made.ACCOUNT}:role/reader"
    assert configuration.layers == (f"arn:aws:lambda:us-east-1:{made.ACCOUNT}:layer:tools:3",)


@pytest.mark.parametrize(
    ("written", "arn"),
    [
        ("hello", f"arn:aws:lambda:{REGION}:{made.ACCOUNT}:function:hello"),
        ("hello:live", f"arn:aws:lambda:{REGION}:{made.ACCOUNT}:function:hello:live"),
        (f"{made.ACCOUNT}:function:hello", f"arn:aws:lambda:{REGION}:{made.ACCOUNT}:function:hello"),
        (f"arn:aws:lambda:us-east-1:{made.ACCOUNT}:function:hello", f"arn:aws:lambda:us-east-1:{made.ACCOUNT}:function:hello"),
    ],
)
def test_a_mapping_may_name_its_function_in_every_form(written: str, arn: str) -> None:
    spec = {"functionName": written, "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:jobs"}
    manifest = {**function_manifest("jobs"), "kind": "EventSourceMapping", "spec": spec}
    mapping = _read(served(manifest))
    assert isinstance(mapping, EventSourceMapping)
    assert mapping.function_arn == arn
    assert mapping.name == UID  # the object's name is none
    assert mapping.settings == {"EventSourceArn": spec["eventSourceARN"]}


# -- children ----------------------------------------------------------------------------------------------------------------
def test_children_are_owned_by_the_function_that_the_caller_names() -> None:
    version = to_object(made.version(3), namespace=NAMESPACE, default_region=REGION, owner=Owner("hello-fn", "uid-1"))
    assert version["metadata"]["name"] == "hello-fn.3"
    assert version["metadata"]["labels"] == {labels.FUNCTION: "hello-fn", labels.VERSION: "3"}
    (reference,) = version["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["name"], reference["uid"]) == ("Function", "hello-fn", "uid-1")


def test_a_child_without_owner_still_knows_its_function() -> None:
    alias = to_object(made.alias(), namespace=NAMESPACE, default_region=REGION)
    assert "ownerReferences" not in alias["metadata"]
    assert _read(served(alias)).function_uid == "uid-1"


def test_an_alias_of_kubectl_belongs_to_nobody_until_it_is_adopted() -> None:
    spec = {"functionName": "hello", "name": "live", "functionVersion": "1"}
    manifest = {**function_manifest("hello-live"), "kind": "Alias", "spec": spec}
    alias = _read(served(manifest))
    assert isinstance(alias, Alias)
    assert (alias.name, alias.alias, alias.function_version, alias.function_uid) == ("hello", "live", "1", "")
    adopted = to_object(alias, namespace=NAMESPACE, default_region=REGION, owner=Owner("hello", "u"), current=served(manifest))
    assert adopted["metadata"]["name"] == "hello-live"
    assert _read(served(adopted)).function_uid == "u"


def test_an_update_keeps_the_owner() -> None:
    current = served(to_object(made.alias(), namespace=NAMESPACE, default_region=REGION, owner=Owner("hello", "uid-1")))
    changed = to_object(made.alias(to="2"), namespace=NAMESPACE, default_region=REGION, current=current)
    assert changed["metadata"]["ownerReferences"] == current["metadata"]["ownerReferences"]
    assert changed["spec"]["functionVersion"] == "2"


def test_another_kind_stands_for_no_resource() -> None:
    with pytest.raises(ConversionError, match="Layer"):
        _read({"apiVersion": "lambda.kappa.dev/v1alpha1", "kind": "Layer", "metadata": {"name": "tools"}})


# -- what is under way -------------------------------------------------------------------------------------------------------
def test_an_edit_by_kubectl_is_an_update_in_progress_and_the_old_configuration_serves() -> None:
    before = _object(made.function())
    function = _function(edited(before, timeout=60))
    assert function.status.state == "Active"
    assert function.status.last_update_status == "InProgress"
    assert function.status.serving == made.function().configuration
    assert function.configuration.timeout == 60
    assert function.modified_ms == 1_795_258_800_000  # the time of the edit


def test_an_edit_of_what_never_served_is_pending() -> None:
    failed = msgspec.structs.replace(
        made.function(), status=states.failed(FunctionStatus(), reason="no such runtime", code=states.INVALID_RUNTIME)
    )
    function = _function(edited(_object(failed), runtime="python3.13"))
    assert (function.status.state, function.status.last_update_status) == ("Pending", "InProgress")


def test_what_is_no_update_on_aws_is_none_here() -> None:
    obj = edited(_object(made.function()), tags={"team": "a"}, reservedConcurrentExecutions=5)
    function = _function(obj)
    assert function.status == made.function().status
    assert (function.tags, function.reserved_concurrency) == ({"team": "a"}, 5)
    assert function.modified_ms == 1
    assert observation_lags(obj)


def test_a_secret_taken_into_use_is_an_update() -> None:
    environment = {"valueFrom": {"PASSWORD": {"secretKeyRef": {"name": "database", "key": "password"}}}}
    before = _settled(served(function_manifest(environment={"variables": {}})))
    assert _function(before).status.last_update_status == "Successful"
    assert _function(edited(before, environment={**environment, "variables": {}})).status.last_update_status == "InProgress"


def test_what_serves_keeps_where_its_values_come_from_and_a_function_without_any_its_digest() -> None:
    reference = {"PASSWORD": {"secretKeyRef": {"name": "database", "key": "password"}}}
    obj = _settled(served(function_manifest(environment={"valueFrom": reference})))
    assert obj["status"]["serving"]["environment"] == {"valueFrom": reference}
    serving = _function(obj).status.serving
    assert serving is not None
    assert serving.environment is None
    assert serving.value_sources == {"PASSWORD": ValueSource(kind="Secret", name="database", key="password")}
    without = made.configuration()
    assert b"environmentFrom" not in msgspec.json.encode(without)
    assert without.digest() != msgspec.structs.replace(without, environment_from=serving.environment_from).digest()


def test_a_status_says_which_generation_it_is_about() -> None:
    obj = edited(_object(made.function()), timeout=60)
    settled = msgspec.structs.replace(_function(obj), status=states.settled(_function(obj).configuration))
    status = to_status(settled, written=obj)
    assert status["observedGeneration"] == 2
    assert _function({**obj, "status": status}).status == settled.status


def test_a_reason_longer_than_the_schema_allows_is_cut() -> None:
    failed = states.failed(made.function().status, reason="x" * 5000, code=states.INTERNAL_ERROR)
    status = to_status(msgspec.structs.replace(made.function(), status=failed))
    assert len(status["lastUpdateStatusReason"]) == 4096


# -- code --------------------------------------------------------------------------------------------------------------------
def test_code_that_was_taken_in_stands_in_the_status_and_the_source_stays_as_written() -> None:
    obj = _settled(served(function_manifest()))
    function = _function(obj)
    assert function.configuration.code == msgspec.structs.replace(made.code(size=10, unzipped_size=20), source="inline")
    assert function.status.serving == function.configuration
    again = to_object(function, namespace=NAMESPACE, default_region=REGION, current=obj)
    assert again["spec"] == obj["spec"]


def test_other_source_text_is_code_to_take_in_while_the_old_serves() -> None:
    before = _settled(served(function_manifest()))
    function = _function(edited(before, code={"inline": "def handler(event, context): return 2"}))
    assert function.configuration.code == NO_CODE
    assert function.status.last_update_status == "InProgress"
    assert function.status.serving is not None
    assert function.status.serving.code.sha256 == "a" * 64


def test_source_text_that_could_not_be_taken_in_is_tried_again_once_it_changes() -> None:
    obj = served(function_manifest())
    failed = states.failed(FunctionStatus(), reason="broken", code=states.INVALID_ZIP)
    obj["status"] = to_status(msgspec.structs.replace(_function(obj), status=failed), written=obj)
    assert _function(obj).status == failed
    assert _function(edited(obj, code={"inline": "fixed"})).status.state == "Pending"


def test_an_upload_takes_the_place_of_source_text() -> None:
    obj = _settled(served(function_manifest()))
    function = _function(obj)
    uploaded = msgspec.structs.replace(function.configuration, code=made.code("c" * 64))
    changed = msgspec.structs.replace(function, configuration=uploaded)
    spec = to_object(changed, namespace=NAMESPACE, default_region=REGION, current=obj)["spec"]
    assert spec["code"] == {"blob": {"sha256": "c" * 64, "size": 100, "unzippedSize": 1000, "source": "upload"}}
    assert "timeout" not in spec  # what the manifest leaves out stays left out


def test_other_variables_leave_the_secrets_in_use() -> None:
    secret = {"PASSWORD": {"secretKeyRef": {"name": "database", "key": "password"}}}
    obj = _settled(served(function_manifest(environment={"variables": {"A": "1"}, "valueFrom": secret})))
    function = _function(obj)
    changed = msgspec.structs.replace(
        function, configuration=msgspec.structs.replace(function.configuration, environment={"B": "2"})
    )
    spec = to_object(changed, namespace=NAMESPACE, default_region=REGION, current=obj)["spec"]
    assert spec["environment"] == {"variables": {"B": "2"}, "valueFrom": secret}


# -- conditions --------------------------------------------------------------------------------------------------------------
def test_code_ready_says_why_not_and_its_transition_time_moves_with_its_status_alone() -> None:
    function = made.function()
    written = _object(function)
    (ready,) = to_status(function, written=written, now_ms=0)["conditions"]
    assert (ready["status"], ready["reason"], ready["lastTransitionTime"]) == ("True", "Settled", "1970-01-01T00:00:00Z")
    written["status"]["conditions"] = [ready]
    (later,) = to_status(function, written=written, now_ms=5000)["conditions"]
    assert later["lastTransitionTime"] == "1970-01-01T00:00:00Z"
    failed = msgspec.structs.replace(function, status=states.failed(function.status, reason="no zip", code=states.INVALID_ZIP))
    (broken,) = to_status(failed, written=written, now_ms=5000)["conditions"]
    assert (broken["status"], broken["reason"], broken["message"]) == ("False", "InvalidZipFileException", "no zip")
    assert broken["lastTransitionTime"] == "1970-01-01T00:00:05Z"


@settings(max_examples=50, deadline=None)
@given(function=functions())
def test_a_functions_status_can_be_written_again_and_again(function: Function) -> None:
    obj = _object(function)
    assert to_status(_function(obj), written=obj) == to_status(function)


def test_a_version_keeps_the_time_of_its_configuration() -> None:
    version = _read(_object(msgspec.structs.replace(made.version(), modified_ms=1_600_000_000_001)))
    assert isinstance(version, FunctionVersion)
    assert version.modified_ms == 1_600_000_000_001
