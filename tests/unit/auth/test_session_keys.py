"""Session keys of functions: what is in them, who can read them, when they end."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_core.errors import ExpiredTokenException, UnrecognizedClientException
from kappa_gateway.auth.session_keys import SessionCredentials, SessionKeys, is_session_token

KEYS = SessionKeys(bytes(32))
ROLE, ARN = "arn:aws:iam::111122223333:role/r", "arn:aws:lambda:eu-west-1:111122223333:function:f"


def mint(
    *, keys: SessionKeys = KEYS, account: str = "111122223333", now: float = 1000.0, ttl: float = 60.0
) -> SessionCredentials:
    return keys.mint(account, role=ROLE, function_arn=ARN, now=now, ttl=ttl)


def test_the_three_values_look_like_those_of_aws() -> None:
    minted = mint()
    assert re.fullmatch(r"ASIA[A-Z2-7]{16}", minted.access_key_id)
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", minted.secret_access_key)
    assert is_session_token(minted.session_token)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", minted.session_token)


def test_another_gateway_with_the_same_secret_knows_them() -> None:
    minted, other = mint(), SessionKeys(bytes(32))
    claims = other.claims(minted.access_key_id, session_token=minted.session_token, now=1059.0)
    assert (claims.account, claims.role, claims.function_arn, claims.expires) == ("111122223333", ROLE, ARN, 1060)
    assert other.secret(minted.access_key_id) == minted.secret_access_key


def test_a_gateway_with_another_secret_does_not() -> None:
    minted, other = mint(), SessionKeys(b"x" * 32)
    with pytest.raises(UnrecognizedClientException):
        other.claims(minted.access_key_id, session_token=minted.session_token, now=1000.0)
    assert other.secret(minted.access_key_id) != minted.secret_access_key


def test_they_end_to_the_second() -> None:
    minted = mint()
    KEYS.claims(minted.access_key_id, session_token=minted.session_token, now=1059.9)
    with pytest.raises(ExpiredTokenException):
        KEYS.claims(minted.access_key_id, session_token=minted.session_token, now=1060.0)


def test_functions_and_accounts_have_different_keys() -> None:
    assert len({mint(account=account).access_key_id for account in ("111122223333", "444455556666")}) == 2
    assert mint() == mint()


@given(position=st.integers(min_value=0), letter=st.sampled_from("ABCxyz019-_."))
def test_a_token_with_any_character_changed_is_refused(position: int, letter: str) -> None:
    minted = mint()
    token = minted.session_token
    position %= len(token)
    changed = token[:position] + letter + token[position + 1 :]
    if changed != token:
        with pytest.raises(UnrecognizedClientException):
            KEYS.claims(minted.access_key_id, session_token=changed, now=1000.0)


@given(token=st.text(), access_key_id=st.text())
def test_an_arbitrary_token_is_refused_and_never_fails(token: str, access_key_id: str) -> None:
    for candidate in (token, f"kappa1.{token}"):
        with pytest.raises(UnrecognizedClientException):
            KEYS.claims(access_key_id, session_token=candidate, now=1000.0)


def test_a_short_server_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SessionKeys(b"short")
