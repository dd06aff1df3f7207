"""What is read from Authorization headers and presigned queries, good and broken, and that nothing makes it fail."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_core.errors import IncompleteSignatureException, LambdaError, MissingAuthenticationTokenException
from kappa_gateway.auth.credential import SignedRequest, read_credential, read_signature
from kappa_gateway.auth.identity import Defaults, Identity, Unverified, Verified

SCOPE = "AKIDEXAMPLE/20260102/eu-west-1/lambda/aws4_request"
GOOD = f"AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
DATE = (b"x-amz-date", b"20260102T030405Z")
DEFAULTS = Defaults(account="999988887777", region="ca-west-1")


class OneKey:
    def lookup(self, access_key_id: str) -> str | None:
        return "secret" if access_key_id == "AKIDEXAMPLE" else None


def request(*headers: tuple[bytes, bytes], query: bytes = b"") -> SignedRequest:
    return SignedRequest(method="GET", raw_path=b"/", query_string=query, headers=headers, body=b"")


def authorized(text: str, *more: tuple[bytes, bytes]) -> SignedRequest:
    return request((b"authorization", text.encode()), *more)


def test_all_parameters_are_read_from_the_header() -> None:
    signature = read_signature(authorized(GOOD, DATE, (b"x-amz-security-token", b"t")))
    assert signature.credential.scope == "20260102/eu-west-1/lambda/aws4_request"
    assert signature.signed_headers == ("host", "x-amz-date")
    assert (signature.timestamp, signature.session_token, signature.expires) == ("20260102T030405Z", "t", None)


def test_an_http_date_serves_where_x_amz_date_is_missing() -> None:
    signature = read_signature(authorized(GOOD, (b"date", b"Fri, 02 Jan 2026 03:04:05 GMT")))
    assert signature.timestamp == "20260102T030405Z"


def test_separators_without_spaces_are_read() -> None:
    assert read_signature(authorized(GOOD.replace(", ", ","), DATE)).value == "0" * 64


@pytest.mark.parametrize(
    ("header", "message"),
    [
        pytest.param(
            "AWS4-HMAC-SHA256 x",
            "Authorization header requires 'Credential' parameter. Authorization header requires 'Signature' parameter. "
            "Authorization header requires 'SignedHeaders' parameter. Authorization=AWS4-HMAC-SHA256 x",
            id="nothing-in-it",
        ),
        pytest.param(
            f"AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders=host",
            "Authorization header requires 'Signature' parameter. "
            f"Authorization=AWS4-HMAC-SHA256 Credential={SCOPE}, SignedHeaders=host",
            id="no-signature",
        ),
        pytest.param(
            "AWS4-HMAC-SHA256 Credential=AKID, SignedHeaders=host, Signature=0",
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got 'AKID'",
            id="scope-of-one-part",
        ),
    ],
)
def test_a_malformed_header_is_named_part_by_part(header: str, message: str) -> None:
    with pytest.raises(IncompleteSignatureException) as caught:
        read_signature(authorized(header, DATE))
    assert caught.value.message == message
    assert caught.value.status == 403


def test_a_missing_date_is_named() -> None:
    with pytest.raises(IncompleteSignatureException, match="requires existence of either a 'X-Amz-Date' or a 'Date' header"):
        read_signature(authorized(GOOD))


def test_no_signature_at_all_is_a_missing_token() -> None:
    with pytest.raises(MissingAuthenticationTokenException, match="Missing Authentication Token"):
        read_signature(request())


@pytest.mark.parametrize("header", ["", "Basic dTpw", "Bearer t", "AWS4-HMAC-SHA256 Credential=a/b/c", "Credential=////"])
def test_a_gateway_without_keys_takes_any_header_for_the_defaults(header: str) -> None:
    assert read_credential(authorized(header)) is None
    identity = Unverified(defaults=DEFAULTS).identify(authorized(header), now=0.0)
    assert identity == Identity(account="999988887777", region="ca-west-1", access_key_id=None)


def test_a_presigned_scope_names_account_and_region_too() -> None:
    query = b"X-Amz-Credential=111122223333%2F20260102%2Feu-west-1%2Flambda%2Faws4_request"
    identity = Unverified(defaults=DEFAULTS).identify(request(query=query), now=0.0)
    assert identity == Identity(account="111122223333", region="eu-west-1", access_key_id="111122223333")


@pytest.mark.parametrize("region", ["../x", "EU", "a b", "x" * 300, "€"])
def test_a_region_that_is_none_is_replaced_by_the_default(region: str) -> None:
    identity = Unverified(defaults=DEFAULTS).identify(authorized(GOOD.replace("eu-west-1", region)), now=0.0)
    assert identity.region == "ca-west-1"


texts = st.text(max_size=60)
headers = st.lists(
    st.tuples(
        st.sampled_from([b"authorization", b"x-amz-date", b"date", b"x-amz-security-token", b"x-amz-content-sha256", b"host"]),
        st.one_of(
            st.binary(max_size=80),
            st.just(b"20260102T030405Z"),
            st.just(b"99999999T999999Z"),
            st.just(GOOD.encode()),
            st.builds(lambda a, b: f"AWS4-HMAC-SHA256 Credential={a}, SignedHeaders={b}, Signature=0".encode(), texts, texts),
        ),
    ),
    max_size=5,
)
queries = st.one_of(
    st.binary(max_size=100),
    st.lists(
        st.tuples(
            st.sampled_from(["Algorithm", "Credential", "Date", "Expires", "Signature", "SignedHeaders", "Security-Token"]),
            st.one_of(st.sampled_from(["AWS4-HMAC-SHA256", SCOPE, "20260102T030405Z", "600", "host"]), texts),
        ),
        max_size=7,
    ).map(lambda pairs: "&".join(f"X-Amz-{name}={value}" for name, value in pairs).encode()),
)


@settings(max_examples=400, deadline=None)
@given(headers=headers, query=queries)
def test_no_request_makes_authentication_fail_otherwise_than_with_a_403(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    sent = request(*headers, query=query)
    Unverified(defaults=DEFAULTS).identify(sent, now=0.0)
    with pytest.raises(LambdaError) as caught:
        Verified(credentials=OneKey(), defaults=DEFAULTS).identify(sent, now=1767323045.0)
    assert caught.value.status == 403
