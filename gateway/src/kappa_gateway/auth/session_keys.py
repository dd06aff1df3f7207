"""Session credentials that functions get for calling Kappa's own API: stateless, signed by one server secret.

A key id, a secret and a session token are minted together. The token carries account, role, function and expiry under a MAC that also
covers the key id; the secret is derived from the key id, so nothing is stored and every gateway that holds the server secret can
check them. Pure: the time comes from the caller. It refuses to judge what the role may do.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

import msgspec

from kappa_core.errors import ExpiredTokenException, UnrecognizedClientException

_PREFIX: Final = "kappa1"
"""Tells our tokens from those of a real STS, which a keyless gateway lets pass; the number is the format's version."""


class SessionClaims(msgspec.Struct, frozen=True, kw_only=True):
    """What a session token says."""

    access_key_id: str
    account: str
    role: str
    function_arn: str
    expires: int
    """Unix seconds."""


class SessionCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """The three values of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."""

    access_key_id: str
    secret_access_key: str
    session_token: str


class SessionKeys:
    """Mints and checks session credentials under one server secret.

    Parameters
    ----------
    server_secret
        At least 32 random bytes; whoever knows them can be any function of any account.
    """

    def __init__(self, server_secret: bytes) -> None:
        if len(server_secret) < 32:
            raise ValueError("the server secret must have at least 32 bytes")
        self._token_key = hmac.digest(server_secret, b"kappa session token", "sha256")
        self._secret_key = hmac.digest(server_secret, b"kappa session secret", "sha256")

    def mint(self, account: str, *, role: str, function_arn: str, now: float, ttl: float) -> SessionCredentials:
        """Credentials of one function that end ``ttl`` seconds after ``now`` (Unix seconds)."""
        expires = int(now + ttl)
        subject = msgspec.json.encode([account, role, function_arn, expires])
        digest = hmac.digest(self._token_key, b"key id" + subject, "sha256")
        access_key_id = "ASIA" + base64.b32encode(digest[:10]).decode("ascii")
        claims = SessionClaims(
            access_key_id=access_key_id, account=account, role=role, function_arn=function_arn, expires=expires
        )
        payload = _encode(msgspec.json.encode(claims))
        return SessionCredentials(
            access_key_id=access_key_id,
            secret_access_key=self.secret(access_key_id),
            session_token=f"{_PREFIX}.{payload}.{self._mac(payload)}",
        )

    def secret(self, access_key_id: str) -> str:
        """The secret access key that belongs to a key id, 40 characters as AWS's have."""
        digest = hmac.digest(self._secret_key, access_key_id.encode(), "sha256")
        return _encode(digest)[:40]

    def claims(self, access_key_id: str, *, session_token: str, now: float) -> SessionClaims:
        """What a token says, if it is ours, unaltered, for this key id and still valid.

        Raises
        ------
        UnrecognizedClientException
            If it is not.
        ExpiredTokenException
            If it was, before ``now``.
        """
        prefix, _, rest = session_token.partition(".")
        payload, _, mac = rest.partition(".")
        invalid = UnrecognizedClientException("The security token included in the request is invalid.")
        if prefix != _PREFIX or not hmac.compare_digest(mac.encode(), self._mac(payload).encode()):
            raise invalid
        try:
            claims = msgspec.json.decode(_decode(payload), type=SessionClaims)
        except (binascii.Error, ValueError):
            raise invalid from None
        if claims.access_key_id != access_key_id:
            raise invalid
        if claims.expires <= now:
            raise ExpiredTokenException("The security token included in the request is expired")
        return claims

    def _mac(self, payload: str) -> str:
        return _encode(hmac.digest(self._token_key, payload.encode(), "sha256"))


def is_session_token(token: str | None) -> bool:
    """Whether a token has our form; says nothing about its validity."""
    return token is not None and token.startswith(f"{_PREFIX}.")


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
