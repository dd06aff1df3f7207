"""Whose a request is without keys: the short answer never differs from the whole one."""

from __future__ import annotations

import pytest

from kappa_gateway.auth.credential import SignedRequest
from kappa_gateway.auth.identity import Defaults, Unverified


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(
            "AWS4-HMAC-SHA256 Credential=test/20261121/eu-west-1/lambda/aws4_request, SignedHeaders=host, Signature=0", id="usual"
        ),
        pytest.param(
            "AWS4-HMAC-SHA256 Credential=123456789012/20261121/us-east-2/lambda/aws4_request, Signature=0", id="account as key"
        ),
        pytest.param("AWS4-HMAC-SHA256 Credential=test/20261121/nowhere/lambda/aws4_request,Signature=0", id="odd region"),
        pytest.param(
            "AWS4-HMAC-SHA256 SignedHeaders=host, Credential=test/20261121/eu-west-1/lambda/aws4_request", id="another order"
        ),
        pytest.param("AWS4-HMAC-SHA256 Credential=test", id="half a scope"),
        pytest.param("Bearer abc", id="another scheme"),
        pytest.param("AWS4-HMAC-SHA256 Credential=" + "x" * 5000, id="endless"),
    ],
)
def test_the_quick_answer_is_the_whole_one_or_none(authorization: str) -> None:
    unverified = Unverified(defaults=Defaults())
    headers = [(b"host", b"here"), (b"authorization", authorization.encode())]
    whole = unverified.identify(SignedRequest(method="POST", raw_path=b"/", query_string=b"", headers=headers, body=b""), now=0.0)
    assert unverified.usual(dict(headers)) in (whole, None)


def test_the_quick_answer_knows_the_usual_caller_and_leaves_functions_to_the_whole_one() -> None:
    unverified = Unverified(defaults=Defaults())
    headers = {b"authorization": b"AWS4-HMAC-SHA256 Credential=test/20261121/eu-west-1/lambda/aws4_request, SignedHeaders=host"}
    found = unverified.usual(headers)
    assert found is not None
    assert (found.account, found.region, found.access_key_id) == ("000000000000", "eu-west-1", "test")
    assert unverified.usual({**headers, b"x-amz-security-token": b"kappa"}) is None
