"""The certificate of the links' listener while it is in use: taken over when it changes, and spoken of before it ends."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kappa_gateway.kubernetes.certificates import AUTHORITY_DAYS, SERVER_DAYS, Pair, make_authority, make_server
from kappa_gateway.kubernetes.link_tls import WARNING_DAYS, LinkTls, LinkTlsError

NAME = "kappa-gateway-links.kappa-system.svc"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86400.0


def _put(folder: Path, server: Pair, *, authority: Pair) -> None:
    (folder / "tls.crt").write_bytes(server.certificate)
    (folder / "tls.key").write_bytes(server.key)
    (folder / "ca.crt").write_bytes(authority.certificate)


def _connect(tls: LinkTls) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Both ends of a connection with the certificates that are loaded now."""
    near, far = socket.socketpair()
    accepted: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: accepted.append(tls.server.wrap_socket(far, server_side=True)))
    thread.start()
    try:
        dialled = tls.client.wrap_socket(near, server_hostname=NAME)
    finally:
        thread.join()
    return dialled, accepted[0]


def _ends(connection: ssl.SSLSocket) -> float:
    """The end of the certificate that the other side shows."""
    return ssl.cert_time_to_seconds(str((connection.getpeercert() or {})["notAfter"]))


def test_a_new_certificate_counts_for_new_connections_and_those_that_stand_stay(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = make_authority(now=now)
    short = make_server((NAME,), authority=authority, now=now - timedelta(days=SERVER_DAYS - 1))
    _put(tmp_path, short, authority=authority)
    tls = LinkTls(tmp_path)
    old = _connect(tls)
    _put(tmp_path, make_server((NAME,), authority=authority, now=now), authority=authority)
    assert tls.reload()
    assert not tls.reload()
    new = _connect(tls)
    assert _ends(new[0]) - _ends(old[0]) == pytest.approx((SERVER_DAYS - 1) * DAY, abs=1)
    for dialled, accepted in (old, new):
        accepted.sendall(b"still here")
        assert dialled.recv(10) == b"still here"
        dialled.close()
        accepted.close()


def test_a_certificate_with_another_key_is_refused_and_the_one_before_it_serves_on(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = make_authority(now=now)
    good = make_server((NAME,), authority=authority, now=now)
    _put(tmp_path, good, authority=authority)
    tls = LinkTls(tmp_path)
    (tmp_path / "tls.crt").write_bytes(make_server((NAME,), authority=authority, now=now).certificate)
    with pytest.raises(ssl.SSLError):
        tls.reload()
    dialled, accepted = _connect(tls)
    dialled.close()
    accepted.close()


def test_without_a_certificate_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(LinkTlsError):
        LinkTls(tmp_path)


def test_the_metric_says_when_both_certificates_end(tmp_path: Path) -> None:
    authority = make_authority(now=NOW)
    _put(tmp_path, make_server((NAME,), authority=authority, now=NOW), authority=authority)
    (family,) = LinkTls(tmp_path).gauges()
    assert family.name == "kappa_gateway_link_certificate_end_seconds"
    assert {sample.labels["certificate"]: sample.value - NOW.timestamp() for sample in family.samples} == {
        "server": SERVER_DAYS * DAY,
        "authority": AUTHORITY_DAYS * DAY,
    }


def test_the_log_is_told_once_a_day_when_the_end_is_near_and_no_longer_after_a_renewal(tmp_path: Path) -> None:
    authority = make_authority(now=NOW)
    _put(tmp_path, make_server((NAME,), authority=authority, now=NOW), authority=authority)
    tls = LinkTls(tmp_path)
    end = (NOW + timedelta(days=SERVER_DAYS)).timestamp()
    assert tls.warning(end - (WARNING_DAYS + 1) * DAY) == ""
    assert "server ends in 29 days" in tls.warning(end - 29 * DAY)
    assert tls.warning(end - 28.5 * DAY) == ""
    assert "server ends in 28 days" in tls.warning(end - 28 * DAY)
    assert "server has ended" in tls.warning(end + DAY)
    _put(tmp_path, make_server((NAME,), authority=authority, now=NOW + timedelta(days=SERVER_DAYS)), authority=authority)
    tls.reload()
    assert tls.warning(end + DAY) == ""
