"""Links to archives: valid for ten minutes, for that archive only, unforgeable."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from kappa_core.resources import Sha256
from kappa_gateway.code.links import CODE_LINK_SECONDS, CodeLinks

ARCHIVE = Sha256("a" * 64)


def parts(path: str) -> tuple[str, dict[str, str]]:
    split = urlsplit(path)
    return split.path.rsplit("/", 1)[1], {name: values[0] for name, values in parse_qs(split.query).items()}


def test_a_link_works_until_it_expires() -> None:
    now = [1000.0]
    links = CodeLinks(b"s" * 32, now=lambda: now[0])
    sha256, query = parts(links.path(ARCHIVE, name="hello"))
    assert query["name"] == "hello"
    assert links.valid(sha256, expires=query["expires"], signature=query["signature"])
    now[0] += CODE_LINK_SECONDS + 1
    assert not links.valid(sha256, expires=query["expires"], signature=query["signature"])


def test_a_link_survives_a_restart_but_not_another_secret() -> None:
    sha256, query = parts(CodeLinks(b"s" * 32, now=lambda: 0.0).path(ARCHIVE, name="hello"))
    assert CodeLinks(b"s" * 32, now=lambda: 1.0).valid(sha256, expires=query["expires"], signature=query["signature"])
    assert not CodeLinks(b"t" * 32, now=lambda: 1.0).valid(sha256, expires=query["expires"], signature=query["signature"])


@pytest.mark.parametrize(
    "changed",
    [
        {"sha256": "b" * 64},
        {"expires": "99999999999"},
        {"signature": "0" * 64},
        {"signature": "ä"},
        {"expires": "-1"},
        {"expires": "1e9"},
    ],
)
def test_a_changed_link_is_refused(changed: dict[str, str]) -> None:
    links = CodeLinks(b"s" * 32, now=lambda: 0.0)
    sha256, query = parts(links.path(ARCHIVE, name="hello"))
    given = {"sha256": sha256, "expires": query["expires"], "signature": query["signature"]} | changed
    assert not links.valid(given["sha256"], expires=given["expires"], signature=given["signature"])
