"""The contract between the HTTP layer and the operations: what an operation is given and what it may answer.

:mod:`.app` builds a :class:`RequestContext` per request and calls ``registry[name](context, params)``; operations live in
:mod:`kappa_gateway.operations` and never see HTTP. Plain structs only, no web framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec


class RequestContext(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, from where, for which account and region."""

    request_id: str
    """UUID, answered as ``x-amzn-RequestId``."""
    account: str
    """Twelve digits."""
    region: str
    access_key_id: str | None
    """None for an unsigned request, which only a gateway without keys accepts."""
    source_ip: str
    """Address of the TCP peer; empty on a Unix socket."""
    host: str
    """The Host header: what links back to this gateway are built from."""
    headers: Mapping[str, str]
    """All request headers, names in lower case."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A success that needs more than its members."""

    members: Mapping[str, Any] = {}
    """The output members, keyed as in the service model."""
    status: int | None = None
    """Overrides the model's HTTP status."""
    headers: Mapping[str, str] = {}
    """Further response headers."""


Params = dict[str, Any]
"""The input members, keyed as in the service model. Absent members are absent, blobs are bytes, timestamps aware datetimes."""

Operation = Callable[[RequestContext, Params], Awaitable[Answer | Mapping[str, Any]]]
"""An implementation of one Lambda operation; raises :class:`kappa_core.errors.LambdaError` for every answer that is not a success."""

Registry = Mapping[str, Operation]
"""Operation names of the service model to implementations."""
