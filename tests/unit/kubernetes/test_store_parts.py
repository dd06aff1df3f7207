"""What the Kubernetes ResourceStore decides without an API server: field ownership, accounts, claims, queues, words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kappa_core.ports.store import (
    AlreadyExists,
    Change,
    Conflict,
    NotFound,
    OwnedElsewhere,
    Rejected,
    StoreError,
    StoreUnavailable,
)
from kappa_core.resources import AccountId, Key
from kappa_crds import api, labels
from kappa_crds.api import ApiError, FieldOwner, Object
from kappa_crds.convert import to_object
from kappa_gateway.kubernetes.store_counters import Counters, config_map_name, entry_name
from kappa_gateway.kubernetes.store_errors import store_error
from kappa_gateway.kubernetes.store_fields import held_by_others, to_apply
from kappa_gateway.kubernetes.store_index import ClaimIndex, Place, key_of
from kappa_gateway.kubernetes.store_namespaces import Namespaces
from kappa_gateway.kubernetes.store_watch import WatchQueue
from store_samples import ACCOUNT, REGION, alias, function, layer, version

MANAGER = "kappa-api"


# -- fields ------------------------------------------------------------------------------------------------------------------
def owned(manager: str, *fields: str, operation: str = "Apply", **more: Any) -> Object:
    tree: Object = {}
    for field in fields:
        node = tree
        for part in field.split("."):
            node = node.setdefault(f"f:{part}", {})
    return {"manager": manager, "operation": operation, "fieldsV1": tree, **more}


def live(spec: Object, *managed: Object, **metadata: Any) -> Object:
    return {
        "apiVersion": "v",
        "kind": "Function",
        "metadata": {
            "name": "f",
            "namespace": "n",
            "uid": "u",
            "resourceVersion": "7",
            "managedFields": list(managed),
            **metadata,
        },
        "spec": spec,
    }


def test_nothing_is_applied_where_nothing_changes() -> None:
    current = live({"timeout": 3}, owned(MANAGER, "spec.timeout"), labels={"a": "1", "b": "2"})
    assert to_apply(current, live({"timeout": 3}, labels={"a": "1"}), manager=MANAGER) is None


def test_what_is_applied_is_what_changes_and_what_is_owned_already() -> None:
    current = live(
        {"timeout": 3, "memorySize": 128, "handler": "a.b", "tags": {"x": "1"}},
        owned("argocd", "spec.timeout", "spec.memorySize"),
        owned(MANAGER, "spec.handler", "metadata.labels.a"),
        labels={"a": "1", "b": "2"},
    )
    wanted = live(
        {"timeout": 3, "memorySize": 256, "handler": "a.b", "tags": {"x": "1"}},
        labels={"a": "1", "b": "2"},
        annotations={"n": "1"},
    )
    body = to_apply(current, wanted, manager=MANAGER)
    assert body is not None
    assert body["spec"] == {"memorySize": 256, "handler": "a.b"}
    assert body["metadata"] == {
        "name": "f",
        "namespace": "n",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"a": "1"},
        "annotations": {"n": "1"},
    }


def test_a_field_that_goes_is_left_out_and_counts_as_a_change() -> None:
    current = live({"timeout": 3, "kmsKeyARN": "k"}, owned(MANAGER, "spec.timeout", "spec.kmsKeyARN"))
    body = to_apply(current, live({"timeout": 3}), manager=MANAGER)
    assert body is not None
    assert body["spec"] == {"timeout": 3}
    assert held_by_others(current, live({"timeout": 3}), manager=MANAGER) == ()


@pytest.mark.parametrize("operation", ["Apply", "Update"])
def test_a_field_that_goes_and_that_others_hold_is_found_with_its_owner(operation: str) -> None:
    current = live(
        {"environment": {"variables": {"A": "1", "B": "2"}}},
        owned("argocd", "spec.environment.variables.A", operation=operation),
        owned(MANAGER, "spec.environment.variables.B"),
        owned("kappa-gateway", "status.state", subresource="status"),
    )
    without_a = live({"environment": {"variables": {"B": "2"}}})
    assert held_by_others(current, without_a, manager=MANAGER) == (FieldOwner("argocd", ".spec.environment.variables.A"),)
    assert held_by_others(current, live({"environment": {"variables": {"A": "1"}}}), manager=MANAGER) == ()
    assert held_by_others(current, live({}), manager=MANAGER) == (FieldOwner("argocd", ".spec.environment"),)


def test_owners_that_an_update_left_behind_are_somebody_else_even_under_our_name() -> None:
    current = live({"timeout": 3}, owned(MANAGER, "spec.timeout", operation="Update"))
    assert held_by_others(current, live({}), manager=MANAGER) == (FieldOwner(MANAGER, ".spec.timeout"),)


def test_who_has_written_through_the_scale_owns_nothing_and_only_named_fields_are_looked_at() -> None:
    number = "provisionedConcurrentExecutions"
    current = live(
        {number: 2, "description": "Live"},
        owned("kubectl", f"spec.{number}", operation="Update", subresource="scale"),
        owned("argocd", "spec.description"),
    )
    assert held_by_others(current, live({}), manager=MANAGER, fields=(number,)) == ()
    current["metadata"]["managedFields"].append(owned("argocd", f"spec.{number}"))
    assert held_by_others(current, live({}), manager=MANAGER, fields=(number,)) == (FieldOwner("argocd", f".spec.{number}"),)


# -- namespaces --------------------------------------------------------------------------------------------------------------
def namespace(name: str, *, account: str | None = None, created: str = "2026-01-01T00:00:00Z") -> Object:
    marks = {} if account is None else {labels.ACCOUNT_ID: account}
    return {"metadata": {"name": name, "labels": marks, "creationTimestamp": created}}


def test_the_default_namespace_is_account_zero_and_others_need_a_label() -> None:
    namespaces = Namespaces(default_namespace="functions")
    assert namespaces.put(namespace("functions"))
    assert not namespaces.put(namespace("kube-system"))
    assert namespaces.put(namespace("team", account="111111111111"))
    assert not namespaces.put(namespace("team", account="111111111111"))
    assert namespaces.account_of("functions") == "000000000000"
    assert namespaces.account_of("kube-system") is None
    assert namespaces.of(AccountId("111111111111")) == ["team"]
    assert namespaces.put(namespace("team"))
    assert namespaces.account_of("team") is None
    assert not namespaces.remove(namespace("team"))
    assert namespaces.remove(namespace("functions"))


def test_new_resources_go_into_the_default_or_oldest_namespace_of_an_account() -> None:
    namespaces = Namespaces(default_namespace="z")
    namespaces.put(namespace("b", account="111111111111", created="2026-01-02T00:00:00Z"))
    namespaces.put(namespace("c", account="111111111111", created="2026-01-01T00:00:00Z"))
    namespaces.put(namespace("a", account="000000000000", created="2020-01-01T00:00:00Z"))
    namespaces.put(namespace("z"))
    assert namespaces.of(AccountId("111111111111")) == ["c", "b"]
    assert namespaces.of(AccountId("000000000000")) == ["z", "a"]


@pytest.mark.parametrize("account", ["", "12", "1234567890123", "١٢٣٤٥٦٧٨٩٠١٢", "abcdefabcdef"])
def test_what_is_no_account_id_is_not_served(account: str) -> None:
    namespaces = Namespaces(default_namespace="functions")
    assert not namespaces.put(namespace("functions", account=account))


# -- claims ------------------------------------------------------------------------------------------------------------------
def stored(
    name: str = "f",
    *,
    uid: str = "u1",
    at: int = 1,
    created: str = "2026-01-01T00:00:00Z",
    object_name: str = "",
    **metadata: Any,
) -> Object:
    obj = to_object(function(name), namespace="n", default_region=REGION)
    obj["metadata"] |= {
        "name": object_name or obj["metadata"]["name"],
        "uid": uid,
        "resourceVersion": str(at),
        "creationTimestamp": created,
        "generation": 1,
        **metadata,
    }
    return obj


def place(name: str = "f") -> Place:
    return Place("Function", "n", name)


def index(accounts: dict[str, AccountId] | None = None) -> ClaimIndex:
    known = {"n": ACCOUNT} if accounts is None else accounts
    return ClaimIndex(account_of=known.get, default_region=REGION)


def said(changes: list[Change]) -> list[tuple[str, str, str]]:
    return [(change.type, change.resource.meta.uid, change.resource.meta.resource_version) for change in changes]


KEY = Key("Function", ACCOUNT, REGION, "f")


def test_what_comes_twice_or_late_is_told_once() -> None:
    claims = index()
    assert said(claims.put(place(), stored(at=2))) == [("PUT", "u1", "2")]
    assert claims.put(place(), stored(at=2)) == []
    assert claims.put(place(), stored(at=1)) == []
    assert said(claims.put(place(), stored(at=10))) == [("PUT", "u1", "10")]
    assert said(claims.remove(place(), "u1")) == [("DELETE", "u1", "10")]
    assert claims.put(place(), stored(at=11)) == []
    assert claims.remove(place(), "u1") == []
    assert claims.locate(KEY) is None


def test_a_deletion_that_comes_before_its_creation_wins() -> None:
    claims = index()
    assert claims.remove(place(), "u1") == []
    assert claims.put(place(), stored()) == []
    assert said(claims.put(place(), stored(uid="u2", at=5))) == [("PUT", "u2", "5")]


def test_an_object_that_takes_anothers_place_is_told_as_deleted_and_new() -> None:
    claims = index()
    claims.put(place(), stored(at=2))
    assert said(claims.put(place(), stored(uid="u2", at=5))) == [("DELETE", "u1", "2"), ("PUT", "u2", "5")]
    assert claims.function_place("u1") is None
    assert claims.function_place("u2") == place()


def test_the_oldest_claim_has_the_key_whenever_it_is_seen() -> None:
    claims = index()
    younger = stored(uid="u2", at=5, object_name="two", created="2026-01-01T00:00:01Z")
    assert said(claims.put(place("two"), younger)) == [("PUT", "u2", "5")]
    assert said(claims.put(place(), stored(at=6))) == [("DELETE", "u2", "5"), ("PUT", "u1", "6")]
    assert claims.locate(KEY) == place()
    newer = stored(uid="u2", at=7, object_name="two", created="2026-01-01T00:00:01Z")
    assert claims.put(place("two"), newer) == []
    assert said(claims.remove(place(), "u1")) == [("DELETE", "u1", "6"), ("PUT", "u2", "7")]


def test_the_functions_made_of_a_config_map_are_known_while_they_are() -> None:
    def made_of(name: str, *, at: int) -> Object:
        obj = stored(at=at)
        return {**obj, "spec": {**obj["spec"], "code": {"configMap": {"name": name}}}}

    claims = index()
    claims.put(place(), made_of("one", at=1))
    assert (claims.made_of("n", "one"), claims.made_of("m", "one")) == ([KEY], [])
    claims.put(place(), made_of("two", at=2))
    assert (claims.made_of("n", "one"), claims.made_of("n", "two")) == ([], [KEY])
    claims.put(place(), stored(at=3))
    assert claims.made_of("n", "two") == []
    claims.put(place(), made_of("two", at=4))
    claims.remove(place(), "u1")
    assert claims.made_of("n", "two") == []


def test_claims_of_one_second_go_by_uid() -> None:
    claims = index()
    claims.put(place("two"), stored(uid="a", object_name="two"))
    claims.put(place(), stored(uid="b"))
    assert claims.locate(KEY) == place("two")


def test_what_is_being_deleted_has_left() -> None:
    claims = index()
    claims.put(place(), stored(at=1))
    assert said(claims.put(place(), stored(at=2, deletionTimestamp="2026-01-02T00:00:00Z"))) == [("DELETE", "u1", "1")]


def test_a_namespace_that_changes_hands_takes_its_resources_along() -> None:
    accounts = {"n": ACCOUNT}
    claims = index(accounts)
    claims.put(place(), stored())
    accounts["n"] = AccountId("111111111111")
    moved = claims.reassign("n")
    assert [(change.type, change.key.account) for change in moved] == [("DELETE", ACCOUNT), ("PUT", "111111111111")]
    accounts.clear()
    assert [change.type for change in claims.reassign("n")] == ["DELETE"]
    assert claims.resources() == []


def test_an_object_that_cannot_be_read_is_left_out_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    claims = index()
    broken = stored("g", uid="u9")
    broken["spec"]["code"] = {"blob": {}}
    assert claims.put(place("g"), broken) == []
    assert "n/g cannot be read" in caplog.text
    assert said(claims.put(place(), stored())) == [("PUT", "u1", "1")]


@pytest.mark.parametrize("resource", [function(), version(12), alias("Live_1"), layer(3)])
def test_a_key_is_read_off_an_object_as_the_whole_resource_would_say(resource: Any) -> None:
    obj = to_object(resource, namespace="n", default_region="us-east-1")
    assert key_of(resource.key.kind, obj, account=ACCOUNT, default_region="us-east-1") == resource.key


# -- queues ------------------------------------------------------------------------------------------------------------------
def test_a_watcher_that_falls_behind_keeps_deletions_and_the_newest_states() -> None:
    async def scenario() -> list[tuple[str, str, str]]:
        claims, queue = index(), WatchQueue(compact_at=8)
        changes: list[Change] = []
        for number in range(1, 100):
            changes += claims.put(place(), stored(at=number))
        changes += claims.remove(place(), "u1")
        for number in range(100, 200):
            changes += claims.put(place(), stored(uid="u2", at=number))
        for change in changes:
            queue.tell(change)
        queue.close()
        told = []
        while (change_ := await queue.take()) is not None:
            told.append(change_)
        assert len(told) <= 10
        return said(told)

    told = asyncio.run(scenario())
    assert ("DELETE", "u1", "99") in told
    assert told[-1] == ("PUT", "u2", "199")


# -- words -------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (api.NotFound("x"), NotFound),
        (api.AlreadyExists("x"), AlreadyExists),
        (api.Conflict("x"), Conflict),
        (
            api.Conflict(
                "x", details={"causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "a"', "field": ".b"}]}
            ),
            OwnedElsewhere,
        ),
        (api.Invalid("x"), Rejected),
        (api.Forbidden("exceeded quota: functions=10"), Rejected),
        (api.Forbidden("functions is forbidden: it is being terminated"), Rejected),
        (api.Forbidden('User "x" cannot list resource "functions"'), StoreUnavailable),
        (api.Forbidden("Unauthorized", status=401), StoreUnavailable),
        (api.TooManyRequests("x"), StoreUnavailable),
        (api.Unavailable("x"), StoreUnavailable),
        (api.Expired("x"), StoreUnavailable),
    ],
)
def test_errors_of_the_api_are_those_of_the_port(error: ApiError, expected: type[StoreError]) -> None:
    assert type(store_error(error)) is expected


# -- counters ----------------------------------------------------------------------------------------------------------------
class ConfigMaps:
    """ConfigMaps of the API, on which another gateway may come first."""

    def __init__(self) -> None:
        self.stored: dict[str, Object] = {}
        self.first: list[dict[str, str]] = []
        """What others write right before our next writes."""
        self._version = 0

    async def get(self, path: str) -> Object:
        if path not in self.stored:
            raise api.NotFound(path)
        return self.stored[path]

    async def create(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        name = f"{path}/{body['metadata']['name']}"
        self._others(name)
        if name in self.stored:
            raise api.AlreadyExists(name)
        return self._write(name, body["data"])

    async def merge_patch(self, path: str, body: Object, /, *, field_manager: str) -> Object:
        self._others(path)
        if body["metadata"]["resourceVersion"] != self.stored[path]["metadata"]["resourceVersion"]:
            raise api.Conflict("changed")
        return self._write(path, self.stored[path]["data"] | body["data"])

    def _others(self, path: str) -> None:
        if self.first:
            self._write(path, (self.stored.get(path) or {"data": {}})["data"] | self.first.pop(0))

    def _write(self, path: str, data: dict[str, str]) -> Object:
        self._version += 1
        self.stored[path] = {"metadata": {"resourceVersion": str(self._version)}, "data": data}
        return self.stored[path]


def test_no_number_is_given_that_another_gateway_gave_in_between() -> None:
    counter = "versions/000000000000/eu-central-1/f"
    entry = entry_name(counter)

    async def scenario() -> None:
        maps, waits = ConfigMaps(), []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        namespaces = Namespaces(default_namespace="functions")
        namespaces.put(namespace("functions"))
        counters = Counters(maps, namespaces=namespaces, sleep=sleep, uniform=lambda: 1.0)  # type: ignore[arg-type]
        maps.first = [{entry: "1"}, {entry: "2"}]
        assert await counters.allocate(counter) == 3
        assert len(waits) == 2
        assert await asyncio.gather(*(counters.allocate(counter) for _ in range(3))) == [4, 5, 6]
        assert list(maps.stored) == [f"/api/v1/namespaces/functions/configmaps/{config_map_name(counter)}"]
        maps.first = [{entry: str(number)} for number in range(100, 200)]
        with pytest.raises(StoreUnavailable, match="written by others all the time"):
            await counters.allocate(counter)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("counter", "entry"),
    [
        ("versions/000000000000/eu-central-1/My_fn-1", "versions.000000000000.eu-central-1.My_fn-1"),
        ("layers/000000000000/eu-central-1/l", "layers.000000000000.eu-central-1.l"),
    ],
)
def test_a_counter_is_an_entry_that_people_can_read(counter: str, entry: str) -> None:
    assert entry_name(counter) == entry


def test_counters_whose_names_do_not_fit_do_not_meet() -> None:
    names = ["a.b/c", "a/b.c", "a/b/c", "a//b", "x" * 300, "x" * 301, "ä"]
    entries = {entry_name(name) for name in names}
    assert len(entries) == len(names)
    assert all(len(entry) <= 253 and entry.isascii() for entry in entries)
