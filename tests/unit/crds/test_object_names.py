"""Names of objects: kept where Kubernetes takes them, never shared by two resources, always short enough for what is built on them."""

from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from kappa_core.resources import LATEST, AccountId, Key, Region
from kappa_crds.names import child_name, deployment_name, is_uuid, key_name, object_name, revision_hash
from resource_strategies import names as function_names

REGION = "eu-central-1"
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
DIGEST_BEHIND = re.compile(r".*-[0-9a-f]{10}|[0-9a-f]{10}")


def _name(name: str, region: str = REGION) -> str:
    return object_name(name, region=region, default_region=REGION)


def test_a_name_that_is_a_label_is_kept() -> None:
    assert _name("hello") == "hello"
    assert _name("a" * 40) == "a" * 40


def test_any_other_name_is_a_slug_and_a_digest() -> None:
    assert _name("My_Function") == "my-function-972a79a8cf"
    assert len(_name("a" * 41)) == 40
    assert DIGEST_BEHIND.fullmatch(_name("___"))


def test_the_region_takes_part_where_it_is_not_the_default() -> None:
    assert _name("hello", "us-east-1") not in {_name("hello"), _name("hello", "us-west-2")}


@given(name=st.text("abcXYZ019-_", min_size=1, max_size=140), region=st.sampled_from([REGION, "us-east-1"]))
def test_every_name_is_a_label_of_at_most_40_characters(name: str, region: str) -> None:
    found = _name(name, region)
    assert LABEL.fullmatch(found)
    assert len(found) <= 40


@given(one=function_names, two=function_names)
def test_no_two_functions_share_a_name(one: str, two: str) -> None:
    assume(one != two)
    assume(not DIGEST_BEHIND.fullmatch(one) and not DIGEST_BEHIND.fullmatch(two))  # somebody who wants a collision can have one
    assert _name(one) != _name(two)


@given(parent=function_names, sub=st.text("abcXYZ019-_", min_size=1, max_size=128) | st.just(LATEST) | st.integers(1).map(str))
def test_every_childs_name_is_one_that_kubernetes_takes(parent: str, sub: str) -> None:
    found = child_name(_name(parent), sub)
    assert SUBDOMAIN.fullmatch(found)
    assert len(found) <= 81


def test_versions_aliases_and_the_configuration_of_latest_are_told_apart() -> None:
    assert child_name("hello", "3") == "hello.3"
    assert child_name("hello", "live") == "hello.live"
    assert child_name("hello", LATEST) == "hello"
    assert child_name("hello", "LIVE") not in {child_name("hello", "live"), child_name("hello", "Live")}


def test_keys_have_names() -> None:
    account, region = AccountId("000000000000"), Region("eu-central-1")
    uuid = "0f1e2d3c-0000-4000-8000-000000000000"
    assert key_name(Key("Function", account, region, "hello"), default_region=REGION) == "hello"
    assert key_name(Key("LayerVersion", account, region, "tools", "2"), default_region=REGION) == "tools.2"
    assert key_name(Key("Alias", account, region, "hello", "live"), default_region=REGION, parent="mine") == "mine.live"
    assert key_name(Key("EventSourceMapping", account, region, uuid), default_region=REGION) == uuid
    assert is_uuid(uuid)
    assert not is_uuid("hello")


@given(name=function_names, uid=st.uuids(), digest=st.text("0123456789abcdef", min_size=16, max_size=16))
def test_a_deployments_name_is_a_label_of_its_own(name: str, uid: object, digest: str) -> None:
    revision = f"{uid}.$LATEST.{digest}"
    found = deployment_name(_name(name), revision)
    assert LABEL.fullmatch(found)
    assert len(found) <= 63
    assert found.endswith(revision_hash(revision))
