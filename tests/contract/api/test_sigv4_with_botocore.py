"""Signatures made by botocore's own signers, over HTTP and as presigned URLs, against Kappa's verification."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from api_server import lambda_client, served
from kappa_core.errors import ExpiredTokenException, InvalidSignatureException, LambdaError, UnrecognizedClientException
from kappa_core.limits import Limits
from kappa_gateway.api.app import build_app
from kappa_gateway.api.context import RequestContext
from kappa_gateway.auth.credential import SignedRequest, read_signature
from kappa_gateway.auth.identity import Defaults, Identity, Unverified, Verified
from kappa_gateway.auth.session_keys import SessionKeys

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY = "AKIDEXAMPLE"
NOW = datetime.now(UTC).replace(microsecond=0)
SESSION_KEYS = SessionKeys(b"0123456789abcdef0123456789abcdef")
ROLE, FUNCTION_ARN = "arn:aws:iam::444455556666:role/r", "arn:aws:lambda:eu-west-1:444455556666:function:f"


class Keys:
    def lookup(self, access_key_id: str) -> str | None:
        return {KEY: SECRET, "111122223333": SECRET}.get(access_key_id)


AUTHENTICATOR = Verified(credentials=Keys(), defaults=Defaults(), session_keys=SESSION_KEYS)


def sign(
    url: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    key: str = KEY,
    secret: str = SECRET,
    token: str | None = None,
    region: str = "eu-west-1",
    service: str = "lambda",
    presigned_for: int | None = None,
) -> SignedRequest:
    """A request as it arrives, signed by botocore."""
    request = AWSRequest(method=method, url=url, data=body, headers={"Host": urlsplit(url).netloc, **(headers or {})})
    credentials = Credentials(key, secret, token)
    if presigned_for is None:
        SigV4Auth(credentials, service, region).add_auth(request)
    else:
        SigV4QueryAuth(credentials, service, region, expires=presigned_for).add_auth(request)
    parts = urlsplit(request.url)
    return SignedRequest(
        method=method,
        raw_path=parts.path.encode(),
        query_string=parts.query.encode(),
        headers=[(name.lower().encode(), str(value).encode()) for name, value in request.headers.items()],
        body=body if presigned_for is None else b"",  # the query signer moves a body into the query
    )


def identify(request: SignedRequest, *, after: timedelta = timedelta(0)) -> Identity:
    """Who sent the request, had it arrived so long after it was signed; botocore signs by the real clock."""
    signed = datetime.strptime(read_signature(request).timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return AUTHENTICATOR.identify(request, now=(signed + after).timestamp())


BASE = "http://127.0.0.1:9000"
REQUESTS = [
    pytest.param({"url": f"{BASE}/2015-03-31/functions"}, id="plain"),
    pytest.param(
        {"url": f"{BASE}/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af%3A%24LATEST"}, id="encoded-arn"
    ),
    pytest.param({"url": f"{BASE}/2015-03-31/functions/"}, id="trailing-slash"),
    pytest.param({"url": f"{BASE}/a//b/./c/../d"}, id="dot-segments"),
    pytest.param({"url": f"{BASE}/2017-03-31/tags/x?tagKeys=b%20b&tagKeys=a%2Fa&A=1&a=%C3%BC&empty="}, id="query"),
    pytest.param({"url": f"{BASE}/x", "method": "POST", "body": b'{"a": "\xc3\xbc"}'}, id="body"),
    pytest.param({"url": f"{BASE}/x", "headers": {"X-Amz-Invocation-Type": "  Event   now "}}, id="header-with-spaces"),
    pytest.param({"url": "https://lambda.example.com/x"}, id="default-port"),
    pytest.param({"url": f"{BASE}/x", "region": "cn-north-1"}, id="region"),
    pytest.param(
        {"url": f"{BASE}/x", "body": b"y", "method": "PUT", "headers": {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}},
        id="unsigned-payload",
    ),
]


@pytest.mark.parametrize("given_request", REQUESTS)
def test_a_signature_made_by_botocore_holds(given_request: dict[str, Any]) -> None:
    identity = identify(sign(**given_request))
    assert identity == Identity(account="000000000000", region=given_request.get("region", "eu-west-1"), access_key_id=KEY)


@pytest.mark.parametrize("given_request", REQUESTS[:6])
def test_a_presigned_url_made_by_botocore_holds_until_it_expires(given_request: dict[str, Any]) -> None:
    request = sign(**given_request, presigned_for=600)
    assert identify(request, after=timedelta(minutes=9)).access_key_id == KEY
    with pytest.raises(InvalidSignatureException, match="Signature expired"):
        identify(request, after=timedelta(minutes=11))


SEGMENTS = st.text(st.sampled_from("abcXYZ019-_.~%:/$"), max_size=30)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    path=SEGMENTS, pairs=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=8)), max_size=4), body=st.binary(max_size=50)
)
def test_any_path_query_and_body_that_botocore_signs_is_accepted(path: str, pairs: list[tuple[str, str]], body: bytes) -> None:
    url = f"{BASE}/x/{quote(path, safe='')}"
    clean = [(name, value) for name, value in pairs if not any("\ud800" <= letter <= "\udfff" for letter in name + value)]
    if clean:
        url += "?" + urlencode(clean, quote_via=quote)
    assert identify(sign(url, method="POST", body=body)).access_key_id == KEY


TAMPERED = [
    pytest.param({"method": "PUT"}, id="method"),
    pytest.param({"raw_path": b"/2015-03-31/functions/g"}, id="path"),
    pytest.param({"query_string": b"Qualifier=2"}, id="query"),
    pytest.param({"body": b"other"}, id="body"),
]


@pytest.mark.parametrize("change", TAMPERED)
def test_what_was_signed_cannot_be_changed(change: dict[str, Any]) -> None:
    request = sign(f"{BASE}/2015-03-31/functions/f?Qualifier=1", method="POST", body=b"{}")
    identify(request)
    with pytest.raises(InvalidSignatureException, match="The request signature we calculated does not match"):
        identify(msgspec.structs.replace(request, **change))


def without(request: SignedRequest, *names: bytes, **added: bytes) -> SignedRequest:
    """The request with headers taken out and others (underscores as dashes) put in."""
    headers = [(name, value) for name, value in request.headers if name not in names]
    headers += [(name.replace("_", "-").encode(), value) for name, value in added.items()]
    return SignedRequest(
        method=request.method, raw_path=request.raw_path, query_string=request.query_string, headers=headers, body=request.body
    )


def test_a_signed_header_cannot_be_changed() -> None:
    request = sign(f"{BASE}/x", headers={"X-Amz-Invocation-Type": "Event"})
    with pytest.raises(InvalidSignatureException):
        identify(without(request, b"x-amz-invocation-type", x_amz_invocation_type=b"RequestResponse"))


def test_a_declared_payload_hash_is_not_believed() -> None:
    declared = hashlib.sha256(b"signed body").hexdigest()
    request = sign(f"{BASE}/x", method="POST", body=b"other body", headers={"X-Amz-Content-SHA256": declared})
    with pytest.raises(InvalidSignatureException):
        identify(request)


def test_a_body_cannot_be_declared_unsigned_afterwards() -> None:
    request = sign(f"{BASE}/x", method="POST", body=b"a")
    with pytest.raises(InvalidSignatureException):
        identify(without(request, x_amz_content_sha256=b"UNSIGNED-PAYLOAD"))


ERRORS = [
    pytest.param(
        {"key": "AKIAUNKNOWN"},
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
        id="unknown-key",
    ),
    pytest.param(
        {"secret": "wrong"}, "InvalidSignatureException", "The request signature we calculated does not match", id="wrong-secret"
    ),
    pytest.param(
        {"service": "s3"}, "InvalidSignatureException", "Credential should be scoped to correct service: 'lambda'.", id="service"
    ),
    pytest.param(
        {"region": "EU West"}, "InvalidSignatureException", "Credential should be scoped to a valid region.", id="region"
    ),
]


@pytest.mark.parametrize(("change", "code", "message"), ERRORS)
def test_a_wrong_key_or_scope_is_refused_in_awss_words(change: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(LambdaError) as caught:
        identify(sign(f"{BASE}/x", **change))
    assert (caught.value.code, caught.value.status) == (code, 403)
    assert str(caught.value.message).startswith(message)
    assert list(caught.value.body()) == ["message"]


def test_the_order_of_answers_is_key_then_time_then_scope_then_signature() -> None:
    late = timedelta(minutes=10)
    wrong = {"secret": "wrong", "service": "s3"}
    with pytest.raises(UnrecognizedClientException):
        identify(sign(f"{BASE}/x", key="AKIAUNKNOWN", **wrong), after=late)
    with pytest.raises(InvalidSignatureException, match="Signature expired"):
        identify(sign(f"{BASE}/x", **wrong), after=late)
    with pytest.raises(InvalidSignatureException, match="correct service"):
        identify(sign(f"{BASE}/x", **wrong))


@pytest.mark.parametrize(
    ("minutes", "start"),
    [pytest.param(6, "Signature expired: ", id="behind"), pytest.param(-6, "Signature not yet current: ", id="ahead")],
)
def test_five_minutes_of_skew_are_allowed_and_six_are_not(minutes: int, start: str) -> None:
    request = sign(f"{BASE}/x")
    identify(request, after=timedelta(minutes=minutes * 4.9 / 6))
    with pytest.raises(InvalidSignatureException) as caught:
        identify(request, after=timedelta(minutes=minutes))
    assert str(caught.value.message).startswith(start)
    assert "5 min.)" in str(caught.value.message)


def test_session_keys_of_a_function_sign_for_its_account() -> None:
    minted = SESSION_KEYS.mint("444455556666", role=ROLE, function_arn=FUNCTION_ARN, now=NOW.timestamp(), ttl=3600)
    request = sign(f"{BASE}/x", key=minted.access_key_id, secret=minted.secret_access_key, token=minted.session_token)
    identity = identify(request)
    assert (identity.account, identity.access_key_id) == ("444455556666", minted.access_key_id)
    assert identity.session is not None
    assert (identity.session.role, identity.session.function_arn) == (ROLE, FUNCTION_ARN)


def test_session_keys_end() -> None:
    minted = SESSION_KEYS.mint("444455556666", role=ROLE, function_arn=FUNCTION_ARN, now=NOW.timestamp() - 3601, ttl=3600)
    request = sign(f"{BASE}/x", key=minted.access_key_id, secret=minted.secret_access_key, token=minted.session_token)
    with pytest.raises(ExpiredTokenException, match="The security token included in the request is expired"):
        identify(request)


def test_session_keys_do_not_work_without_their_token_or_with_anothers() -> None:
    minted = SESSION_KEYS.mint("444455556666", role=ROLE, function_arn=FUNCTION_ARN, now=NOW.timestamp(), ttl=3600)
    other = SESSION_KEYS.mint("777788889999", role=ROLE, function_arn=FUNCTION_ARN, now=NOW.timestamp(), ttl=3600)
    first, end = minted.session_token[:-3], minted.session_token[-3:]
    for token in (None, other.session_token, first + ("B" if end.startswith("A") else "A") + end[1:]):
        request = sign(f"{BASE}/x", key=minted.access_key_id, secret=minted.secret_access_key, token=token)
        with pytest.raises(UnrecognizedClientException):
            identify(request)


@pytest.fixture(scope="module")
def urls() -> Iterator[tuple[str, str]]:
    """A control plane with keys and one without; both answer the caller's account as AccountUsage's code size."""

    async def settings_of(context: RequestContext, params: dict[str, Any]) -> dict[str, Any]:
        return {"AccountUsage": {"TotalCodeSize": int(context.account)}}

    def app(authenticator: Any) -> Any:
        return build_app({"GetAccountSettings": settings_of}, authenticator=authenticator, limits=Limits(), version="test")

    with served(app(AUTHENTICATOR)) as locked, served(app(Unverified(defaults=Defaults(), session_keys=SESSION_KEYS))) as open_:
        yield locked, open_


def test_a_client_with_the_key_is_served_and_one_without_is_not(urls: tuple[str, str]) -> None:
    locked, _ = urls
    with lambda_client(locked, access_key_id="111122223333", secret_access_key=SECRET) as client:
        assert client.get_account_settings()["AccountUsage"]["TotalCodeSize"] == 111122223333
    with lambda_client(locked, access_key_id="111122223333", secret_access_key="guess") as client:
        with pytest.raises(client.exceptions.ClientError) as caught:
            client.get_account_settings()
        assert caught.value.response["Error"]["Code"] == "InvalidSignatureException"
    with pytest.raises(urllib.error.HTTPError) as unsigned:
        urllib.request.urlopen(f"{locked}/2016-08-19/account-settings", timeout=20)
    with unsigned.value:
        assert unsigned.value.code == 403
        assert unsigned.value.headers["x-amzn-ErrorType"] == "MissingAuthenticationTokenException"
        assert json.loads(unsigned.value.read()) == {"message": "Missing Authentication Token"}


def test_without_keys_a_function_still_acts_in_its_own_account(urls: tuple[str, str]) -> None:
    _, open_ = urls
    minted = SESSION_KEYS.mint("444455556666", role=ROLE, function_arn=FUNCTION_ARN, now=NOW.timestamp(), ttl=3600)
    with lambda_client(
        open_, access_key_id=minted.access_key_id, secret_access_key="any", session_token=minted.session_token
    ) as client:
        assert client.get_account_settings()["AccountUsage"]["TotalCodeSize"] == 444455556666
    with lambda_client(
        open_, access_key_id="ASIAREAL", secret_access_key="any", session_token="a token of the real STS"
    ) as client:
        assert client.get_account_settings()["AccountUsage"]["TotalCodeSize"] == 0
