"""Who may invoke what in a cluster: the hot path's Authenticate, which answers at once what was asked lately and asks for the rest.

The name of the function stands in the path; who calls and whether they may invoke it is remembered by :mod:`.reviews`. Callers whose
rights are not bounded (the owner's keys, everybody in ``auth.mode=anonymous``) never wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from kappa_gateway.auth.credential import SignedRequest, raw_path
from kappa_gateway.auth.identity import Authenticator, Identity, Undecided, identified
from kappa_gateway.hot.path import Caller, Unadmitted
from kappa_gateway.hot.request import INVOKE, INVOKE_WITH_RESPONSE_STREAM
from kappa_gateway.kubernetes import permissions
from kappa_gateway.kubernetes.permissions import Permissions

_OPERATIONS: Final = (INVOKE, INVOKE_WITH_RESPONSE_STREAM)


class Admission:
    """See the module. ``now`` is Unix seconds."""

    def __init__(self, authenticator: Authenticator, permissions: Permissions, *, now: Callable[[], float]) -> None:
        self._authenticator = authenticator
        self._permissions = permissions
        self._now = now

    def __call__(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], body: bytes, /) -> Caller:
        request = SignedRequest.of(scope, body)
        try:
            identity = self._authenticator.identify(request, now=self._now())
        except Undecided:
            raise Unadmitted(lambda: self._ask(request, scope)) from None
        if identity.subject is not None and not self._permissions.known(identity, permissions.INVOKE, invoked(scope)):
            raise Unadmitted(lambda: self._admit(identity, scope))
        return Caller(identity.account, identity.region)

    async def _ask(self, request: SignedRequest, scope: Mapping[str, Any]) -> Caller:
        return await self._admit(await identified(self._authenticator, request, now=self._now()), scope)

    async def _admit(self, identity: Identity, scope: Mapping[str, Any]) -> Caller:
        await self._permissions.check(identity, permissions.INVOKE, invoked(scope), action="Invoke")
        return Caller(identity.account, identity.region)


def invoked(scope: Mapping[str, Any]) -> str:
    """The function that the path of a request to invoke names."""
    path = raw_path(scope).decode("latin-1").rstrip("/")
    for operation in _OPERATIONS:
        if path.startswith(operation.prefix) and path.endswith(operation.suffix):
            return unquote(path[len(operation.prefix) : -len(operation.suffix)])
    return ""
