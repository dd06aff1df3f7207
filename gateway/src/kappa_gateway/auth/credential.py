"""The signature parameters that a request carries, read from the Authorization header or from a presigned query.

First step of authentication, before any key is known. :func:`read_signature` is strict and answers AWS's IncompleteSignatureException;
:func:`read_credential` is lenient, for a gateway without keys that only wants account and region. Neither checks a signature: that
is :mod:`.sigv4`'s work. Works on raw ASGI bytes, because what was signed must not be decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Self
from urllib.parse import quote, unquote_to_bytes

import msgspec

from kappa_core.errors import IncompleteSignatureException, MissingAuthenticationTokenException

ALGORITHM: Final = "AWS4-HMAC-SHA256"
_AMZ_DATE: Final = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_HTTP_DATE: Final = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)


class SignedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature covers, as ASGI delivers it."""

    method: str
    raw_path: bytes
    """As sent, percent-encoded, without the query."""
    query_string: bytes
    headers: Sequence[tuple[bytes, bytes]]
    """Names in lower case."""
    body: bytes

    @classmethod
    def of(cls, scope: Mapping[str, Any], body: bytes) -> Self:
        """The request of an ASGI scope."""
        return cls(
            method=scope["method"],
            raw_path=raw_path(scope),
            query_string=scope["query_string"],
            headers=scope["headers"],
            body=body,
        )


def raw_path(scope: Mapping[str, Any]) -> bytes:
    """The path as sent. ASGI lets a server leave it out; then encoding the decoded one is the best there is."""
    sent: bytes | None = scope.get("raw_path")
    return sent if sent is not None else quote(scope["path"], safe="/~").encode("ascii")


class Credential(msgspec.Struct, frozen=True):
    """The scope ``<key id>/<yyyymmdd>/<region>/<service>/aws4_request``."""

    access_key_id: str
    date: str
    region: str
    service: str
    terminator: str

    @property
    def scope(self) -> str:
        """Everything but the key id, as it stands in the string to sign."""
        return f"{self.date}/{self.region}/{self.service}/{self.terminator}"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """All signature parameters of one request."""

    credential: Credential
    signed_headers: tuple[str, ...]
    value: str
    """64 hexadecimal digits, if the client is honest."""
    timestamp: str
    """``YYYYMMDDTHHMMSSZ``"""
    session_token: str | None
    expires: int | None
    """Seconds that a presigned request stays valid; None for the header form."""


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The first header of that name."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None


def query_parameters(query_string: bytes) -> dict[str, str]:
    """The first value of each decoded query parameter."""
    parameters: dict[str, str] = {}
    for part in query_string.split(b"&"):
        name, _, value = part.partition(b"=")
        parameters.setdefault(
            unquote_to_bytes(name).decode("utf-8", "replace"),
            unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8", "replace"),
        )
    return parameters


def read_credential(request: SignedRequest) -> Credential | None:
    """The credential scope, or None where there is none or none that can be read."""
    authorization = header(request.headers, b"authorization")
    if authorization is not None:
        _, _, rest = authorization.partition("Credential=")
        text, _, _ = rest.partition(",")
    elif b"X-Amz-Credential=" in request.query_string:
        text = query_parameters(request.query_string).get("X-Amz-Credential", "")
    else:
        return None
    credential = _usual_scope(text.strip()) if len(text) <= _KEPT_SCOPE_CHARACTERS else None
    return credential if credential is not None and credential.access_key_id else None


def read_session_token(request: SignedRequest) -> str | None:
    """The session token of either form."""
    token = header(request.headers, b"x-amz-security-token")
    if token is None and b"X-Amz-Security-Token=" in request.query_string:
        token = query_parameters(request.query_string).get("X-Amz-Security-Token")
    return token


def read_signature(request: SignedRequest) -> Signature:
    """All signature parameters.

    Raises
    ------
    MissingAuthenticationTokenException
        If the request is not signed at all.
    IncompleteSignatureException
        If a part is missing or malformed; the text names every missing one, as AWS's does.
    """
    authorization = header(request.headers, b"authorization")
    if authorization is not None:
        return _from_header(authorization, request)
    if b"X-Amz-Algorithm=" in request.query_string:
        return _from_query(query_parameters(request.query_string), request)
    raise MissingAuthenticationTokenException("Missing Authentication Token")


def _from_header(authorization: str, request: SignedRequest) -> Signature:
    algorithm, _, rest = authorization.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise IncompleteSignatureException(f"Unsupported AWS 'algorithm': '{algorithm}'. Authorization={authorization}")
    parts = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in rest.split(","))}
    timestamp = _timestamp(request.headers)
    missing = [f"Authorization header requires '{name}' parameter." for name in _HEADER_PARAMETERS if not parts.get(name)]
    if timestamp is None:
        missing.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if missing or timestamp is None:
        raise IncompleteSignatureException(f"{' '.join(missing)} Authorization={authorization}")
    return Signature(
        credential=_credential(parts["Credential"]),
        signed_headers=tuple(parts["SignedHeaders"].lower().split(";")),
        value=parts["Signature"],
        timestamp=timestamp,
        session_token=header(request.headers, b"x-amz-security-token"),
        expires=None,
    )


def _from_query(parameters: dict[str, str], request: SignedRequest) -> Signature:
    if parameters["X-Amz-Algorithm"] != ALGORITHM:
        raise IncompleteSignatureException(f"Unsupported AWS 'algorithm': '{parameters['X-Amz-Algorithm']}'.")
    missing = [f"AWS query-string parameters must include '{name}'." for name in _QUERY_PARAMETERS if not parameters.get(name)]
    if missing:
        raise IncompleteSignatureException(f"{' '.join(missing)} Re-examine the query-string parameters.")
    timestamp, expires = parameters["X-Amz-Date"], parameters["X-Amz-Expires"]
    if _AMZ_DATE.fullmatch(timestamp) is None:
        raise IncompleteSignatureException(f"Date must be in ISO-8601 'basic format'. Got '{timestamp}'.")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 6 and 1 <= int(expires) <= _MAX_EXPIRES):
        raise IncompleteSignatureException(f"X-Amz-Expires must be a number between 1 and {_MAX_EXPIRES} seconds.")
    return Signature(
        credential=_credential(parameters["X-Amz-Credential"]),
        signed_headers=tuple(parameters["X-Amz-SignedHeaders"].lower().split(";")),
        value=parameters["X-Amz-Signature"],
        timestamp=timestamp,
        session_token=read_session_token(request),
        expires=int(expires),
    )


_KEPT_SCOPE_CHARACTERS: Final = 512
"""Longer than any real scope: key ids have at most 128 characters."""
_HEADER_PARAMETERS: Final = ("Credential", "Signature", "SignedHeaders")
_QUERY_PARAMETERS: Final = ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Signature", "X-Amz-SignedHeaders")
_MAX_EXPIRES: Final = 604_800  # seven days, the limit of SigV4 presigning


def _credential(text: str) -> Credential:
    credential = _usual_scope(text) if len(text) <= _KEPT_SCOPE_CHARACTERS else None
    if credential is None:
        raise IncompleteSignatureException(
            f"Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{text}'"
        )
    return credential


@lru_cache(maxsize=1024)
def _usual_scope(text: str) -> Credential | None:
    """The same keys call all day."""
    parts = text.split("/")
    return Credential(*parts) if len(parts) == 5 else None


def _timestamp(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """X-Amz-Date, or Date in either form; None where neither is there."""
    text = header(headers, b"x-amz-date") or header(headers, b"date")
    if text is None:
        return None
    if _AMZ_DATE.fullmatch(text):
        return text
    http = _HTTP_DATE.fullmatch(text)
    if http is None or http[2] not in _MONTHS:
        raise IncompleteSignatureException(f"Date must be in ISO-8601 'basic format'. Got '{text}'.")
    return f"{http[3]}{_MONTHS.index(http[2]) + 1:02d}{http[1]}T{http[4]}{http[5]}{http[6]}Z"
