"""Which requests a browser on the same machine may make, and that nobody else notices the guard."""

from __future__ import annotations

import pytest

from kappa_gateway.auth.browser import BrowserGuard, ForbiddenHostException

HOST = (b"host", b"127.0.0.1:9000")


def accepts(guard: BrowserGuard, *headers: tuple[bytes, bytes]) -> bool:
    try:
        guard.check(headers)
    except ForbiddenHostException:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        b"127.0.0.1:9000",
        b"127.0.0.1",
        b"127.8.9.1:1",
        b"localhost",
        b"localhost:9000",
        b"LocalHost:9000",
        b"localhost.:9000",
        b"[::1]:9000",
        b"bucket.s3.localhost:9000",
    ],
)
def test_loopback_is_served_on_any_port(host: bytes) -> None:
    assert accepts(BrowserGuard(), (b"host", host))


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(b"attacker.example:9000", id="rebound-name"),
        pytest.param(b"127.0.0.1.attacker.example", id="looks-like-loopback"),
        pytest.param(b"localhost.attacker.example", id="starts-with-localhost"),
        pytest.param(b"notlocalhost", id="ends-with-localhost"),
        pytest.param(b"0.0.0.0:9000", id="any-address"),
        pytest.param(b"192.168.1.4:9000", id="lan"),
        pytest.param(b"[::]:9000", id="any-address-6"),
        pytest.param(b"", id="empty"),
        pytest.param(b"user@127.0.0.1", id="user-part"),
        pytest.param(b"127.0.0.1/x", id="path"),
        pytest.param(b"127.0.0.1:port", id="no-port-number"),
        pytest.param(b"\xff", id="not-ascii"),
        pytest.param(b"[::1", id="broken-bracket"),
        pytest.param(b"127.0.0.1:9000\x00", id="nul"),
    ],
)
def test_other_hosts_are_refused(host: bytes) -> None:
    assert not accepts(BrowserGuard(), (b"host", host))


def test_a_refusal_is_a_403_that_names_the_setting() -> None:
    with pytest.raises(ForbiddenHostException, match="KAPPA_ALLOWED_HOSTS") as caught:
        BrowserGuard().check([(b"host", b"kappa.test")])
    assert (caught.value.status, caught.value.code) == (403, "AccessDeniedException")


def test_no_host_and_two_hosts_are_refused() -> None:
    assert not accepts(BrowserGuard())
    assert not accepts(BrowserGuard(), HOST, (b"host", b"localhost"))


@pytest.mark.parametrize("configured", ["kappa.test", "KAPPA.test", "kappa.test."])
def test_a_configured_host_is_served(configured: str) -> None:
    guard = BrowserGuard([configured])
    assert accepts(guard, (b"host", b"kappa.test:9000"))
    assert not accepts(guard, (b"host", b"sub.kappa.test"))


def test_a_configured_address_is_served() -> None:
    assert accepts(BrowserGuard(["192.168.1.4", "[fd00::1]"]), (b"host", b"192.168.1.4:9000"))
    assert accepts(BrowserGuard(["192.168.1.4", "[fd00::1]"]), (b"host", b"[fd00::1]:9000"))


def test_a_star_switches_off_the_check_of_host_but_not_that_of_origin() -> None:
    guard = BrowserGuard(["*"])
    assert accepts(guard, (b"host", b"anything.example"))
    assert not accepts(guard, (b"host", b"anything.example"), (b"origin", b"https://other.example"))


@pytest.mark.parametrize(
    "origin",
    [
        pytest.param(b"https://attacker.example", id="another-site"),
        pytest.param(b"http://127.0.0.1:8000", id="another-port"),
        pytest.param(b"http://localhost:9000", id="another-name-of-this-machine"),
        pytest.param(b"http://127.0.0.1", id="default-port"),
        pytest.param(b"null", id="null"),
        pytest.param(b"", id="empty"),
        pytest.param(b"file://", id="file"),
        pytest.param(b"chrome-extension://abc", id="extension"),
        pytest.param(b"127.0.0.1:9000", id="no-scheme"),
        pytest.param(b"http://127.0.0.1:9000.attacker.example", id="suffix"),
        pytest.param(b"http://127.0.0.1:9000@attacker.example", id="user-part"),
    ],
)
def test_another_origin_is_refused(origin: bytes) -> None:
    assert not accepts(BrowserGuard(), HOST, (b"origin", origin))


def test_our_own_page_may_call_us() -> None:
    assert accepts(BrowserGuard(), HOST, (b"origin", b"http://127.0.0.1:9000"), (b"sec-fetch-site", b"same-origin"))
    assert accepts(BrowserGuard(), (b"host", b"localhost:9000"), (b"origin", b"http://localhost:9000"))
    assert accepts(BrowserGuard(["kappa.test"]), (b"host", b"kappa.test"), (b"origin", b"https://kappa.test"))


@pytest.mark.parametrize(
    ("site", "served"), [(b"cross-site", False), (b"same-site", False), (b"same-origin", True), (b"none", True)]
)
def test_what_browsers_say_of_the_site_decides_where_origin_is_missing(site: bytes, served: bool) -> None:
    assert accepts(BrowserGuard(), HOST, (b"sec-fetch-site", site)) is served


def test_one_good_origin_does_not_cover_a_bad_one() -> None:
    assert not accepts(BrowserGuard(), HOST, (b"origin", b"http://127.0.0.1:9000"), (b"origin", b"https://attacker.example"))


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"user-agent", b"Boto3/1.43"), (b"authorization", b"AWS4-HMAC-SHA256 Credential=x")], id="boto3"),
        pytest.param([(b"user-agent", b"aws-cli/2.9"), (b"x-amz-date", b"20260102T030405Z")], id="cli"),
        pytest.param([(b"user-agent", b"curl/8"), (b"accept", b"*/*")], id="curl"),
    ],
)
def test_clients_that_are_no_browsers_are_served(headers: list[tuple[bytes, bytes]]) -> None:
    assert accepts(BrowserGuard(), HOST, *headers)
