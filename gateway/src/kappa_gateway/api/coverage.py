"""Which operations of the installed service model this version of Kappa implements: the data of ``kappa api coverage``.

Derived from the registry that is really served, so that it cannot promise what is not there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec

from kappa_gateway.api.model import OperationName, ServiceModel, load_model

HOT_OPERATIONS: Final = frozenset({OperationName("Invoke"), OperationName("InvokeWithResponseStream")})
"""Served by the raw hot path instead of the registry."""


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """One operation and whether it is implemented."""

    operation: OperationName
    method: str
    path: str
    implemented: bool
    deprecated: bool


def coverage(
    implemented: Collection[str], *, hot: Collection[str] = HOT_OPERATIONS, model: ServiceModel | None = None
) -> list[Coverage]:
    """All operations of the model by name.

    Parameters
    ----------
    implemented
        Names in the registry (the registry itself will do).
    hot
        Names that are served outside it.
    model
        By default the installed botocore's.
    """
    service = model or load_model()
    return [
        Coverage(
            operation=operation.name,
            method=operation.method,
            path=operation.uri.path
            + ("?" + "&".join("=".join(pair) for pair in operation.uri.query) if operation.uri.query else ""),
            implemented=operation.name in implemented or operation.name in hot,
            deprecated=operation.deprecated,
        )
        for operation in sorted(service.operations.values(), key=lambda operation: operation.name)
    ]
