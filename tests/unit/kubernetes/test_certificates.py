"""The links' authority and certificates: what a TLS client accepts, and when a certificate is signed anew."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kappa_gateway.kubernetes.certificates import (
    AUTHORITY_DAYS,
    RENEW_DAYS,
    SERVER_DAYS,
    CertificateError,
    Pair,
    expires,
    is_due,
    is_issued_by,
    make_authority,
    make_server,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("kappa-gateway-links.kappa-system.svc", "kappa-gateway-links")


def _handshake(server: Pair, *, authority: bytes, name: str, folder: Path) -> str:
    """What a client that trusts `authority` says to `server` under `name`: the protocol's version, or its complaint."""
    (folder / "tls.crt").write_bytes(server.certificate)
    (folder / "tls.key").write_bytes(server.key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    dialling = ssl.create_default_context(cadata=authority.decode())
    dialling.verify_flags |= ssl.VERIFY_X509_STRICT
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            serving.wrap_socket(far, server_side=True).close()
        except (ssl.SSLError, OSError):
            far.close()  # the client has said why

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with dialling.wrap_socket(near, server_hostname=name) as dialled:
            return dialled.version() or ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        near.close()
        thread.join()


def test_a_strict_client_that_trusts_the_authority_accepts_the_certificate_under_each_of_its_names(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = make_authority(now=now)
    server = make_server(NAMES, authority=authority, now=now)
    said = [_handshake(server, authority=authority.certificate, name=name, folder=tmp_path) for name in NAMES]
    assert said == ["TLSv1.3", "TLSv1.3"]


def test_a_client_refuses_another_name_and_another_authority(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority, other = make_authority(now=now), make_authority(now=now)
    server = make_server(NAMES, authority=authority, now=now)
    assert "mismatch" in _handshake(server, authority=authority.certificate, name="elsewhere", folder=tmp_path).lower()
    assert _handshake(server, authority=other.certificate, name=NAMES[0], folder=tmp_path) not in ("", "TLSv1.3")


def test_a_certificate_never_outlives_its_authority() -> None:
    authority = make_authority(now=NOW)
    late = NOW + timedelta(days=AUTHORITY_DAYS - 10)
    assert expires(make_server(NAMES, authority=authority, now=late).certificate) == expires(authority.certificate)


@pytest.mark.parametrize(
    ("days", "names", "due"),
    [
        pytest.param(0, NAMES, False, id="fresh"),
        pytest.param(SERVER_DAYS - RENEW_DAYS - 1, NAMES, False, id="a day more than needed"),
        pytest.param(SERVER_DAYS - RENEW_DAYS + 1, NAMES, True, id="a day less than needed"),
        pytest.param(SERVER_DAYS + 10, NAMES, True, id="ended"),
        pytest.param(0, (*NAMES, "another"), True, id="a name is missing"),
        pytest.param(0, NAMES[:1], False, id="a name more than needed"),
    ],
)
def test_a_certificate_is_due_when_it_ends_soon_or_lacks_a_name(days: int, names: tuple[str, ...], due: bool) -> None:
    server = make_server(NAMES, authority=make_authority(now=NOW), now=NOW)
    assert is_due(server.certificate, names=names, now=NOW + timedelta(days=days)) is due


def test_who_issued_a_certificate_is_seen_by_signature_not_by_name() -> None:
    authority, other = make_authority(now=NOW), make_authority(now=NOW)  # both have the same subject
    server = make_server(NAMES, authority=authority, now=NOW)
    assert is_issued_by(server.certificate, authority=authority.certificate)
    assert not is_issued_by(server.certificate, authority=other.certificate)


@pytest.mark.parametrize("text", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_or_key_is_one_error(text: bytes) -> None:
    authority = make_authority(now=NOW)
    with pytest.raises(CertificateError):
        is_due(text, names=NAMES, now=NOW)
    with pytest.raises(CertificateError):
        make_server(NAMES, authority=Pair(text, authority.key), now=NOW)
    with pytest.raises(CertificateError):
        make_server(NAMES, authority=Pair(authority.certificate, text), now=NOW)
