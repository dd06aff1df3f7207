"""The policy of a layer version as a list of statements (a list-map by ``sid``), and back into AWS's own form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Statement = dict[str, object]
_ORGANIZATION = "aws:PrincipalOrgID"


def statements(policy: Mapping[str, Statement]) -> list[dict[str, Any]]:
    """What AddLayerVersionPermission can have made, in its order."""
    return [_fields(sid, statement) for sid, statement in policy.items()]


def policy_of(fields: Sequence[Mapping[str, Any]]) -> dict[str, Statement]:
    return {one["sid"]: _statement(one) for one in fields}


def _fields(sid: str, statement: Mapping[str, Any]) -> dict[str, Any]:
    principal = statement["Principal"]
    fields = {
        "sid": sid,
        "principal": principal if isinstance(principal, str) else principal["AWS"],
        "action": statement["Action"],
        "resource": statement["Resource"],
    }
    condition = statement.get("Condition")
    if condition is not None:
        fields["organizationID"] = condition["StringEquals"][_ORGANIZATION]
    return fields


def _statement(fields: Mapping[str, Any]) -> Statement:
    statement: Statement = {
        "Sid": fields["sid"],
        "Effect": "Allow",
        "Principal": "*" if fields["principal"] == "*" else {"AWS": fields["principal"]},
        "Action": fields["action"],
        "Resource": fields["resource"],
    }
    if "organizationID" in fields:
        statement["Condition"] = {"StringEquals": {_ORGANIZATION: fields["organizationID"]}}
    return statement
