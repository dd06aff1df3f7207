"""Layers: which a function may use together, who may use those of another account, and what a layer version's policy says.

Reading the layer versions is the caller's; these functions see them as values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from kappa_core import limits
from kappa_core.constraints import summary, violation
from kappa_core.errors import (
    AccessDeniedException,
    InvalidParameterValueException,
    ResourceConflictException,
    ResourceNotFoundException,
    ValidationException,
)
from kappa_core.limits import Limits
from kappa_core.names import LAYER_VERSION_ARN_PATTERN, parse_layer_version_arn, partition
from kappa_core.resources import AccountId, Code, LayerVersion, Region

Statement = dict[str, object]


def check_layers(
    arns: Sequence[str],
    found: Mapping[str, LayerVersion],
    *,
    account: AccountId,
    region: Region,
    attached: Collection[str] = (),
) -> tuple[LayerVersion, ...]:
    """The layer versions that a function of ``account`` in ``region`` is to run with, in merge order.

    ``found`` has what exists of ``arns``, ``attached`` what the function uses already: that may stay although it was deleted or
    its permission withdrawn since.

    Raises
    ------
    InvalidParameterValueException
        For more than five, two of one layer, another region, or one that does not exist.
    AccessDeniedException
        For one of another account that does not allow it.
    ValidationException
        For an ARN without version.
    """
    if len(arns) > limits.LAYERS_PER_FUNCTION:
        raise InvalidParameterValueException(f"Cannot reference more than {limits.LAYERS_PER_FUNCTION} layers.")
    seen: dict[str, str] = {}
    layers: list[LayerVersion] = []
    for arn in arns:
        name = parse_layer_version_arn(arn)
        if name is None:
            if arn.partition(":layer:")[2].count(":") == 0 and ":layer:" in arn:
                raise ValidationException(_no_version(arn))
            raise InvalidParameterValueException(f"Layer version {arn} does not exist.")
        version = found.get(arn)
        if name.account != account and (name.region != region or version is None or not allows(version, account)):
            raise AccessDeniedException(
                f"User: arn:{partition(region)}:iam::{account}:root is not authorized to perform: lambda:GetLayerVersion on "
                f"resource: {arn} because no resource-based policy allows the lambda:GetLayerVersion action"
            )
        if name.region != region:
            raise InvalidParameterValueException(
                f"Layers are not in the same region as the function. Layers are expected to be in region {region}."
            )
        if version is None or (version.deleted and arn not in attached):
            raise InvalidParameterValueException(f"Layer version {arn} does not exist.")
        layer = arn.rpartition(":")[0]
        if layer in seen:
            raise InvalidParameterValueException(
                "Two different versions of the same layer are not allowed to be referenced in the same function. "
                f"{seen[layer]} and {arn} are versions of the same layer."
            )
        seen[layer] = arn
        layers.append(version)
    return tuple(layers)


def check_unzipped_size(code: Code, layers: Sequence[LayerVersion], *, bounds: Limits) -> None:
    """Raises InvalidParameterValueException where code and layers together unpack to more than a function may have."""
    if layers and code.unzipped_size + sum(layer.code.unzipped_size for layer in layers) > bounds.unzipped_bytes:
        raise InvalidParameterValueException(f"Layers consume more than the available size of {bounds.unzipped_bytes} bytes")


# -- the policy of a layer version ------------------------------------------------------------------------------------------


def allows(layer: LayerVersion, account: AccountId) -> bool:
    """Whether functions of ``account`` may use it. A statement for an organisation allows nobody: Kappa knows of none."""
    if layer.account == account:
        return True
    for statement in layer.policy.values():
        if "Condition" in statement:
            continue
        principal = statement.get("Principal")
        if principal == "*":
            return True
        if isinstance(principal, dict) and principal.get("AWS") == _root(account, layer.region):
            return True
    return False


def add_statement(layer: LayerVersion, *, arn: str, sid: str, members: Mapping[str, Any]) -> LayerVersion:
    """The layer version with one more statement; ``members`` are those of AddLayerVersionPermission.

    Raises ResourceConflictException where the statement id is taken.
    """
    if sid in layer.policy:
        raise ResourceConflictException(
            f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the existing statement."
        )
    principal: str = members["Principal"]
    organization = members.get("OrganizationId")
    if organization is not None and principal != "*":
        raise InvalidParameterValueException("OrganizationId can only be given for all accounts: set Principal to *.")
    who: object = principal
    if principal != "*":
        who = {"AWS": _root(principal, layer.region) if principal.isdigit() else principal}
    statement: Statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": who,
        "Action": members["Action"],
        "Resource": arn,
    }
    if organization is not None:
        statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": organization}}
    return msgspec.structs.replace(layer, policy={**layer.policy, sid: statement})


def remove_statement(layer: LayerVersion, *, sid: str) -> LayerVersion:
    """Raises ResourceNotFoundException where there is no such statement, or no policy at all."""
    if not layer.policy:
        raise ResourceNotFoundException("No policy is associated with the given resource.")
    if sid not in layer.policy:
        raise ResourceNotFoundException(f"Statement {sid} is not found in resource policy.")
    return msgspec.structs.replace(layer, policy={key: value for key, value in layer.policy.items() if key != sid})


def policy_document(layer: LayerVersion) -> dict[str, object]:
    """Raises ResourceNotFoundException where there is none."""
    if not layer.policy:
        raise ResourceNotFoundException("No policy is associated with the given resource.")
    return {"Version": "2012-10-17", "Id": "default", "Statement": list(layer.policy.values())}


def _root(account: str, region: str) -> str:
    return f"arn:{partition(region)}:iam::{account}:root"


def _no_version(arn: str) -> str:
    constraint = (
        "Member must satisfy constraint: [Member must have length less than or equal to 2048, Member must have length greater than "
        f"or equal to 1, Member must satisfy regular expression pattern: {LAYER_VERSION_ARN_PATTERN}, Member must not be null]"
    )
    return summary([violation(f"[{arn}]", "layers", constraint)])
