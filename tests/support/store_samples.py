"""Resources for tests of stores: valid, small, and different where a test wants them to be."""

from __future__ import annotations

from kappa_core.resources import (
    AccountId,
    Alias,
    Code,
    Configuration,
    Function,
    FunctionVersion,
    LayerVersion,
    Logging,
    Region,
    Sha256,
)

ACCOUNT = AccountId("000000000000")
REGION = Region("eu-central-1")
CODE = Code(sha256=Sha256("0" * 64), size=100, unzipped_size=300)


def configuration(*, description: str = "") -> Configuration:
    return Configuration(
        runtime="python3.12",
        handler="app.handler",
        role="arn:aws:iam::000000000000:role/lambda",
        description=description,
        timeout=3,
        memory_size=128,
        ephemeral_storage_mb=512,
        environment={"STAGE": "tést"},
        code=CODE,
        logging=Logging(log_group="/aws/lambda/f"),
    )


def function(name: str = "f", *, account: str = ACCOUNT, region: str = REGION, description: str = "") -> Function:
    return Function(
        account=AccountId(account),
        region=Region(region),
        name=name,
        configuration=configuration(description=description),
        modified_ms=1,
    )


def version(number: int, *, name: str = "f") -> FunctionVersion:
    return FunctionVersion(
        account=ACCOUNT,
        region=REGION,
        name=name,
        version=number,
        configuration=configuration(),
        function_uid="uid",
        modified_ms=1,
    )


def alias(alias_name: str, *, name: str = "f") -> Alias:
    return Alias(account=ACCOUNT, region=REGION, name=name, alias=alias_name, function_version="1", function_uid="uid")


def layer(number: int, *, name: str = "l") -> LayerVersion:
    return LayerVersion(account=ACCOUNT, region=REGION, name=name, version=number, code=CODE)
