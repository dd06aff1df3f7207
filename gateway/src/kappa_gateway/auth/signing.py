"""Signs the requests of the ``kappa`` command with SigV4, by the same canonical form that the gateway checks.

A client's side, kept beside the verifier so that neither can change alone. It signs the header form with the body's hash only.
"""

from __future__ import annotations

import time

from kappa_gateway.auth.credential import ALGORITHM, Credential, Signature, SignedRequest
from kappa_gateway.auth.sigv4 import TERMINATOR, signature_of


def sign(
    *,
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes,
    access_key_id: str,
    secret: str,
    session_token: str | None,
    region: str,
    now: float,
) -> dict[str, str]:
    """The headers to add to a request for ``target`` (path and query as sent); ``headers`` must hold Host. ``now``: Unix seconds."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    added = {"X-Amz-Date": stamp}
    if session_token:
        added["X-Amz-Security-Token"] = session_token
    signed = {name.lower(): value for name, value in (headers | added).items()}
    path, _, query = target.partition("?")
    credential = Credential(access_key_id, stamp[:8], region, "lambda", TERMINATOR)
    signature = Signature(
        credential=credential,
        signed_headers=tuple(sorted(signed)),
        value="",
        timestamp=stamp,
        session_token=session_token,
        expires=None,
    )
    request = SignedRequest(
        method=method,
        raw_path=path.encode(),
        query_string=query.encode(),
        headers=[(name.encode(), value.encode()) for name, value in signed.items()],
        body=body,
    )
    value = signature_of(secret, signature, request)
    added["Authorization"] = (
        f"{ALGORITHM} Credential={access_key_id}/{credential.scope}, "
        f"SignedHeaders={';'.join(signature.signed_headers)}, Signature={value}"
    )
    return added
