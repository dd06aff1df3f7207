"""Which layers a function may use together, and who may use those of others."""

from __future__ import annotations

import pytest

import made
from kappa_core.errors import (
    AccessDeniedException,
    InvalidParameterValueException,
    LambdaError,
    ResourceConflictException,
    ResourceNotFoundException,
    ValidationException,
)
from kappa_core.limits import Limits
from kappa_core.names import LayerName
from kappa_core.resources import AccountId, LayerVersion, Region
from kappa_core.rules.layers import add_statement, allows, check_layers, check_unzipped_size, policy_document, remove_statement

OTHER = AccountId("210987654321")


def arn(layer: LayerVersion) -> str:
    return LayerName(layer.account, layer.region, layer.name, layer.version).arn


def check(*layers: LayerVersion, missing: tuple[str, ...] = (), attached: tuple[str, ...] = ()) -> tuple[LayerVersion, ...]:
    return check_layers(
        [*map(arn, layers), *missing],
        {arn(layer): layer for layer in layers},
        account=made.ACCOUNT,
        region=made.REGION,
        attached=attached,
    )


def test_layers_come_back_in_the_order_given() -> None:
    first, second = made.layer(1, name="b"), made.layer(1, name="a")
    assert check(first, second) == (first, second)


_TWICE = (
    "Two different versions of the same layer are not allowed to be referenced in the same function. "
    f"{arn(made.layer(1))} and {arn(made.layer(2))} are versions of the same layer."
)

_DENIED = (
    "User: arn:aws:iam::123456789012:root is not authorized to perform: lambda:GetLayerVersion on resource: "
    f"{arn(made.layer(1, account=OTHER))} because no resource-based policy allows the lambda:GetLayerVersion action"
)


@pytest.mark.parametrize(
    ("layers", "missing", "error", "text"),
    [
        (
            tuple(made.layer(1, name=f"l{n}") for n in range(6)),
            (),
            InvalidParameterValueException,
            "Cannot reference more than 5 layers.",
        ),
        ((made.layer(1), made.layer(2)), (), InvalidParameterValueException, _TWICE),
        (
            (),
            (arn(made.layer(9)),),
            InvalidParameterValueException,
            f"Layer version {arn(made.layer(9))} does not exist.",
        ),
        (
            (made.layer(1, deleted=True),),
            (),
            InvalidParameterValueException,
            f"Layer version {arn(made.layer(1))} does not exist.",
        ),
        (
            (made.layer(1, region=Region("us-east-1")),),
            (),
            InvalidParameterValueException,
            "Layers are not in the same region as the function. Layers are expected to be in region eu-central-1.",
        ),
        (
            (made.layer(1, account=OTHER),),
            (),
            AccessDeniedException,
            _DENIED,
        ),
    ],
)
def test_layers_are_refused_in_aws_words(
    layers: tuple[LayerVersion, ...], missing: tuple[str, ...], error: type[LambdaError], text: str
) -> None:
    with pytest.raises(error) as caught:
        check(*layers, missing=missing)
    assert caught.value.message == text


def test_an_arn_without_version_is_a_validation_error_at_layers() -> None:
    plain = arn(made.layer(1)).rpartition(":")[0]
    with pytest.raises(ValidationException) as caught:
        check(missing=(plain,))
    assert caught.value.message is not None
    assert caught.value.message.startswith(f"1 validation error detected: Value '[{plain}]' at 'layers' failed to satisfy")


def test_a_deleted_layer_may_stay_where_it_is_attached() -> None:
    gone = made.layer(1, deleted=True)
    assert check(gone, attached=(arn(gone),)) == (gone,)


def test_code_and_layers_together_are_bounded() -> None:
    limits = Limits(unzipped_bytes=1500)
    check_unzipped_size(made.code(unzipped_size=2000), (), bounds=limits)
    check_unzipped_size(made.code(unzipped_size=500), (made.layer(),), bounds=limits)
    with pytest.raises(InvalidParameterValueException) as caught:
        check_unzipped_size(made.code(unzipped_size=501), (made.layer(),), bounds=limits)
    assert caught.value.message == "Layers consume more than the available size of 1500 bytes"


def test_a_policy_opens_a_layer_to_exactly_whom_it_names() -> None:
    members = {"Action": "lambda:GetLayerVersion", "Principal": OTHER}
    layer = add_statement(made.layer(), arn="the-arn", sid="s1", members=members)
    assert layer.policy["s1"] == {
        "Sid": "s1",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{OTHER}:root"},
        "Action": "lambda:GetLayerVersion",
        "Resource": "the-arn",
    }
    assert allows(layer, OTHER)
    assert allows(layer, made.ACCOUNT)
    assert not allows(layer, AccountId("111111111111"))
    everybody = add_statement(layer, arn="the-arn", sid="s2", members={**members, "Principal": "*"})
    assert allows(everybody, AccountId("111111111111"))


def test_an_organisation_that_cannot_be_known_opens_nothing() -> None:
    members = {"Action": "lambda:GetLayerVersion", "Principal": "*", "OrganizationId": "o-0123456789"}
    layer = add_statement(made.layer(), arn="the-arn", sid="s1", members=members)
    assert layer.policy["s1"]["Condition"] == {"StringEquals": {"aws:PrincipalOrgID": "o-0123456789"}}
    assert not allows(layer, OTHER)


def test_statement_ids_are_unique_and_removing_the_last_removes_the_policy() -> None:
    members = {"Action": "lambda:GetLayerVersion", "Principal": "*"}
    layer = add_statement(made.layer(), arn="the-arn", sid="s1", members=members)
    with pytest.raises(ResourceConflictException) as taken:
        add_statement(layer, arn="the-arn", sid="s1", members=members)
    assert taken.value.message == (
        "The statement id (s1) provided already exists. Please provide a new statement id, or remove the existing statement."
    )
    with pytest.raises(ResourceNotFoundException, match=r"Statement s2 is not found in resource policy\."):
        remove_statement(layer, sid="s2")
    assert policy_document(layer)["Id"] == "default"
    with pytest.raises(ResourceNotFoundException, match=r"No policy is associated with the given resource\."):
        policy_document(remove_statement(layer, sid="s1"))
