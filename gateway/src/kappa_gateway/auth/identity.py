"""Account, region and key of a caller: the one question that both the control plane and the invoke path ask about a request.

Two answers to it. :class:`Unverified` is the embedded gateway without keys: it believes the credential scope, so that ``aws configure``
with any key works and the region chosen there is used. :class:`Verified` checks SigV4 signatures. Both know the session keys of
functions, whose account is the function's own. A third answer, Kubernetes' own identities, is in :mod:`kappa_gateway.kubernetes`; it
may have to ask the API server first (:class:`Undecided`). Authorisation is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Final, Protocol

import msgspec

from kappa_gateway.auth.credential import Credential, SignedRequest, read_credential, read_session_token
from kappa_gateway.auth.session_keys import SessionClaims, SessionKeys, is_session_token
from kappa_gateway.auth.sigv4 import Credentials, verify

_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z0-9]+){1,4}")
_PREFIX_BYTES: Final = 512
"""Longer credentials are nobody's, and are not to be remembered."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A user of Kubernetes, as its reviews name one."""

    username: str
    """Such as ``system:serviceaccount:team:deployer``."""
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request."""

    account: str
    """Twelve digits."""
    region: str
    access_key_id: str | None
    """None if the request is not signed."""
    session: SessionClaims | None = None
    """Set where a function called with its own session keys."""
    subject: Subject | None = None
    """In a cluster: whose rights on the custom resources bound the request. None: all of the account's."""


class Undecided(Exception):
    """Who sends a request is not known here yet: ``decide`` asks where it is known. It raises what ``identify`` raises."""

    def __init__(self, decide: Callable[[], Awaitable[Identity]]) -> None:
        super().__init__("not known here yet")
        self.decide = decide


class Authenticator(Protocol):
    """Tells who sent a request, or refuses it."""

    def identify(self, request: SignedRequest, *, now: float) -> Identity:
        """The sender of a request that arrived at ``now`` (Unix seconds).

        Raises
        ------
        kappa_core.errors.LambdaError
            One of AWS's authentication errors (status 403).
        Undecided
            Only in a cluster, for a token that was not seen lately.
        """
        ...


async def identified(authenticator: Authenticator, request: SignedRequest, *, now: float) -> Identity:
    """:meth:`Authenticator.identify` for whoever can wait."""
    try:
        return authenticator.identify(request, now=now)
    except Undecided as undecided:
        return await undecided.decide()


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What holds where the request does not say."""

    account: str = "000000000000"
    region: str = "us-east-1"

    def account_of(self, access_key_id: str) -> str:
        """The key id itself where it is twelve digits, as test set-ups choose their account; else the default."""
        return access_key_id if _ACCOUNT.fullmatch(access_key_id) else self.account

    def identity(self, credential: Credential | None, *, session: SessionClaims | None) -> Identity:
        """Account and region of a credential scope, with the defaults filled in."""
        if session is None:
            return _usual_identity(self, credential)
        return msgspec.structs.replace(_usual_identity(self, credential), account=session.account, session=session)


@lru_cache(maxsize=1024)
def _usual_identity(defaults: Defaults, credential: Credential | None) -> Identity:
    """Of a caller that is no function; the same ones call all day."""
    if credential is None:
        return Identity(account=defaults.account, region=defaults.region, access_key_id=None)
    return Identity(
        account=defaults.account_of(credential.access_key_id),
        region=credential.region if _REGION.fullmatch(credential.region) else defaults.region,
        access_key_id=credential.access_key_id,
    )


@lru_cache(maxsize=1024)
def _identity_by_prefix(defaults: Defaults, prefix: bytes) -> Identity | None:
    """Of an Authorization up to its first comma; None where the credential is not all of that."""
    algorithm, _, text = prefix.partition(b" Credential=")
    if algorithm != b"AWS4-HMAC-SHA256" or not text or len(text) > _PREFIX_BYTES:
        return None
    credential = read_credential(
        SignedRequest(method="", raw_path=b"", query_string=b"", headers=((b"authorization", prefix),), body=b"")
    )
    return None if credential is None else _usual_identity(defaults, credential)


class Unverified:
    """Believes the credential scope and checks only Kappa's own session tokens. Implements :class:`Authenticator`."""

    def __init__(self, *, defaults: Defaults, session_keys: SessionKeys | None = None) -> None:
        self._defaults = defaults
        self._session_keys = session_keys

    def usual(self, headers: Mapping[bytes, bytes]) -> Identity | None:
        """What :meth:`identify` says of a request that is signed in its headers by no function; None where that has to be asked.
        Clients sign with the same key all day, so this is a look into a cache."""
        authorization = headers.get(b"authorization")
        if authorization is None or b"x-amz-security-token" in headers:
            return None
        return _identity_by_prefix(self._defaults, authorization.partition(b",")[0])

    def identify(self, request: SignedRequest, *, now: float) -> Identity:
        credential = read_credential(request)
        session = None
        if credential is not None and self._session_keys is not None:
            token = read_session_token(request)
            if token is not None and is_session_token(token):
                session = self._session_keys.claims(credential.access_key_id, session_token=token, now=now)
        return self._defaults.identity(credential, session=session)


class Verified:
    """Requires a valid SigV4 signature by a known key. Implements :class:`Authenticator`."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        defaults: Defaults,
        session_keys: SessionKeys | None = None,
        services: frozenset[str] = frozenset({"lambda"}),
    ) -> None:
        self._credentials = credentials
        self._defaults = defaults
        self._session_keys = session_keys
        self._services = services

    def identify(self, request: SignedRequest, *, now: float) -> Identity:
        valid = verify(request, credentials=self._credentials, session_keys=self._session_keys, services=self._services, now=now)
        return self._defaults.identity(valid.credential, session=valid.session)
