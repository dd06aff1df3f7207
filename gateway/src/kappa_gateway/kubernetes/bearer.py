"""Who sends a request in a cluster: SigV4 with the cluster's access keys, the session keys of functions, and Kubernetes' bearer tokens.

The :class:`~kappa_gateway.auth.identity.Authenticator` of ``auth.mode=required``. A bearer token is good for the API server or it is
not: TokenReview says so, and a token that was not seen lately makes the request wait (:class:`~kappa_gateway.auth.identity.Undecided`). It
carries neither account nor region: the account is that of the ServiceAccount's own namespace, else the default one, and both can be
named in headers. A function that calls with its session keys may do what the ServiceAccount of its role may.
It decides who, never whether they may: that is :mod:`.permissions`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kappa_core.errors import UnrecognizedClientException
from kappa_gateway.auth.credential import SignedRequest, header
from kappa_gateway.auth.identity import Defaults, Identity, Subject, Undecided
from kappa_gateway.auth.session_keys import SessionClaims, SessionKeys
from kappa_gateway.auth.sigv4 import verify
from kappa_gateway.kubernetes.access_keys import AccessKeys, service_account
from kappa_gateway.kubernetes.places import Places
from kappa_gateway.kubernetes.reviews import NoSubject, Reviews

ACCOUNT_HEADER: Final = b"x-kappa-account"
REGION_HEADER: Final = b"x-kappa-region"
TOKEN_CHARACTERS: Final = 16 * 1024
"""Longer ones are nobody's: a ServiceAccount's token has about a thousand."""

_SCHEME: Final = "bearer "
_ACCOUNT: Final = re.compile(r"[0-9]{12}")
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z0-9]+){1,4}")
_SERVICES: Final = frozenset({"lambda"})


class ClusterAuthenticator:
    """See the module."""

    def __init__(
        self,
        *,
        keys: AccessKeys,
        session_keys: SessionKeys,
        reviews: Reviews,
        defaults: Defaults,
        places: Places,
    ) -> None:
        self._keys = keys
        self._session_keys = session_keys
        self._reviews = reviews
        self._defaults = defaults
        self._places = places

    def identify(self, request: SignedRequest, *, now: float) -> Identity:
        token = bearer_token(request.headers)
        if token is None:
            return self._signed(request, now=now)
        known = self._reviews.known_subject(token)
        if known is None:
            raise Undecided(lambda: self._reviewed(token, request.headers))
        return self._identity(known, request.headers)

    async def _reviewed(self, token: str, headers: Sequence[tuple[bytes, bytes]]) -> Identity:
        return self._identity(await self._reviews.subject(token), headers)

    def _identity(self, subject: Subject | NoSubject, headers: Sequence[tuple[bytes, bytes]]) -> Identity:
        if isinstance(subject, NoSubject):
            raise _invalid()
        account = header(headers, ACCOUNT_HEADER) or self._own_account(subject) or self._defaults.account
        region = header(headers, REGION_HEADER) or self._defaults.region
        if not _ACCOUNT.fullmatch(account) or not _REGION.fullmatch(region):
            raise UnrecognizedClientException("X-Kappa-Account is twelve digits, X-Kappa-Region the name of a region.")
        return Identity(account=account, region=region, access_key_id=None, subject=subject)

    def _own_account(self, subject: Subject) -> str | None:
        parts = subject.username.split(":")
        return self._places.account_of(parts[2]) if len(parts) == 4 and parts[:2] == ["system", "serviceaccount"] else None

    def _signed(self, request: SignedRequest, *, now: float) -> Identity:
        valid = verify(request, credentials=self._keys, session_keys=self._session_keys, services=_SERVICES, now=now)
        credential, session = valid.credential, valid.session
        region = credential.region if _REGION.fullmatch(credential.region) else self._defaults.region
        if session is not None:
            return Identity(
                account=session.account,
                region=region,
                access_key_id=credential.access_key_id,
                session=session,
                subject=self._function(session),
            )
        key = self._keys.get(credential.access_key_id)
        if key is None:
            raise _invalid()
        return Identity(account=key.account, region=region, access_key_id=key.access_key_id, subject=key.subject)

    def _function(self, session: SessionClaims) -> Subject:
        namespace = self._places.of_function(session.function_arn)
        if namespace is None:  # its account has gone since
            raise _invalid()
        return service_account(
            namespace, self._places.service_account(session.role, account=session.account, namespace=namespace)
        )


def bearer_token(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The token of an Authorization header of the Bearer scheme; None where there is no such header.

    Raises UnrecognizedClientException for one that cannot be a token.
    """
    authorization = header(headers, b"authorization")
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    token = authorization[len(_SCHEME) :].strip()
    if not token or len(token) > TOKEN_CHARACTERS:
        raise _invalid()
    return token


def _invalid() -> UnrecognizedClientException:
    return UnrecognizedClientException("The security token included in the request is invalid.")
