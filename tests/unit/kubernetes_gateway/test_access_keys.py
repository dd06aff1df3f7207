"""Access keys: Secrets with a label become keys as they come, change and go."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kappa_gateway.auth.identity import Subject
from kappa_gateway.kubernetes.access_keys import ACCOUNT, REVIEW_AS, AccessKeys, read_key, subject_named

DEFAULT = "000000000000"


def secret(name: str = "one", *, annotations: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    given = data or {"aws_access_key_id": "AKIA1", "aws_secret_access_key": "s1"}
    return {
        "metadata": {"name": name, "annotations": annotations},
        "data": {entry: base64.b64encode(value.encode()).decode() for entry, value in given.items()},
    }


def test_a_secret_is_a_key_until_it_goes() -> None:
    keys = AccessKeys(default_account=DEFAULT)
    keys.put(secret())
    assert keys.lookup("AKIA1") == "s1"
    keys.remove(secret())
    assert keys.lookup("AKIA1") is None


def test_a_changed_secret_replaces_its_key() -> None:
    keys = AccessKeys(default_account=DEFAULT)
    keys.put(secret())
    keys.put(secret(aws_access_key_id="AKIA2", aws_secret_access_key="s2"))
    assert (keys.lookup("AKIA1"), keys.lookup("AKIA2")) == (None, "s2")
    assert len(keys) == 1


def test_a_second_secret_cannot_take_a_key_id_over() -> None:
    keys = AccessKeys(default_account=DEFAULT)
    keys.put(secret("one"))
    keys.put(secret("two", aws_access_key_id="AKIA1", aws_secret_access_key="other"))
    assert keys.lookup("AKIA1") == "s1"
    keys.remove(secret("two"))
    assert keys.lookup("AKIA1") == "s1"


def test_a_key_belongs_to_the_account_that_its_annotation_says() -> None:
    key = read_key(secret(annotations={ACCOUNT: "111111111111"}), default_account=DEFAULT)
    assert key is not None
    assert (key.account, key.subject) == ("111111111111", None)


def test_an_annotation_bounds_a_key_by_somebodys_rights() -> None:
    key = read_key(secret(annotations={REVIEW_AS: "team/deployer"}), default_account=DEFAULT)
    assert key is not None
    assert key.subject is not None
    assert key.subject.username == "system:serviceaccount:team:deployer"
    assert "system:serviceaccounts:team" in key.subject.groups
    assert subject_named("ana@example.com") == Subject(username="ana@example.com", groups=("system:authenticated",))


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"metadata": {"name": "x"}}, id="empty"),
        pytest.param(secret(aws_access_key_id="AKIA1"), id="no secret"),
        pytest.param(secret(annotations={ACCOUNT: "12"}), id="no account"),
        pytest.param({"metadata": {"name": "x"}, "data": {"aws_access_key_id": "%%"}}, id="not base64"),
    ],
)
def test_what_lacks_a_part_is_no_key(broken: dict[str, Any]) -> None:
    assert read_key(broken, default_account=DEFAULT) is None
