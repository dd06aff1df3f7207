"""Resources as stores return them, with defaults for what a test does not care about."""

from __future__ import annotations

from typing import Any

from kappa_core.resources import (
    AccountId,
    Alias,
    Code,
    Configuration,
    Function,
    FunctionVersion,
    LayerVersion,
    Logging,
    Meta,
    Region,
    Sha256,
)
from kappa_core.rules import states

ACCOUNT = AccountId("123456789012")
REGION = Region("eu-central-1")


def meta(uid: str = "uid-1", *, generation: int = 1) -> Meta:
    return Meta(uid=uid, resource_version=str(generation), generation=generation, created_ms=1, updated_ms=1)


def code(digest: str = "a" * 64, *, size: int = 100, unzipped_size: int = 1000) -> Code:
    return Code(sha256=Sha256(digest), size=size, unzipped_size=unzipped_size)


def configuration(**changes: Any) -> Configuration:
    given: dict[str, Any] = {
        "runtime": "python3.12",
        "handler": "app.handler",
        "role": "arn:aws:iam::123456789012:role/lambda",
        "timeout": 3,
        "memory_size": 128,
        "ephemeral_storage_mb": 512,
        "code": code(),
        "logging": Logging(log_group="/aws/lambda/hello"),
        **changes,
    }
    return Configuration(**given)


def function(**changes: Any) -> Function:
    """Active unless said otherwise."""
    frozen = changes.pop("configuration", configuration())
    given: dict[str, Any] = {
        "account": ACCOUNT,
        "region": REGION,
        "name": "hello",
        "configuration": frozen,
        "modified_ms": 1,
        "status": states.settled(frozen),
        "meta": meta(),
        **changes,
    }
    return Function(**given)


def version(number: int = 1, **changes: Any) -> FunctionVersion:
    """Active unless said otherwise."""
    given: dict[str, Any] = {
        "account": ACCOUNT,
        "region": REGION,
        "name": "hello",
        "version": number,
        "configuration": configuration(),
        "function_uid": "uid-1",
        "modified_ms": 1,
        "status": states.settled(None),
        "meta": meta(f"version-{number}"),
        **changes,
    }
    return FunctionVersion(**given)


def alias(name: str = "live", to: str = "1", **changes: Any) -> Alias:
    given: dict[str, Any] = {
        "account": ACCOUNT,
        "region": REGION,
        "name": "hello",
        "alias": name,
        "function_version": to,
        "function_uid": "uid-1",
        "meta": meta(f"alias-{name}"),
        **changes,
    }
    return Alias(**given)


def layer(number: int = 1, **changes: Any) -> LayerVersion:
    given: dict[str, Any] = {
        "account": ACCOUNT,
        "region": REGION,
        "name": "tools",
        "version": number,
        "code": code("b" * 64),
        "meta": meta(f"layer-{number}"),
        **changes,
    }
    return LayerVersion(**given)
