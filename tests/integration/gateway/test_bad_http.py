"""HTTP that is ambiguous, incomplete or in disguise: refused or answered once, never taken for something else."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from kappa_dev import KappaDev
from refusals import FUNCTIONS, INVOKE, client, conversation, echoed, no_trace, send, witness

__all__ = ["client", "no_trace", "witness"]


HEAD = f"POST {INVOKE} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(
            HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="a length and chunked"
        ),
        pytest.param(HEAD + b"Content-Length: 2\r\nContent-Length: 46\r\n\r\n{}" + HIDDEN, id="two lengths"),
        pytest.param(HEAD + b"Content-Length: -2\r\n\r\n" + HIDDEN, id="negative length"),
        pytest.param(HEAD + b"Content-Length: +2\r\n\r\n{}" + HIDDEN, id="length with a sign"),
        pytest.param(HEAD + b"Content-Length : 2\r\n\r\n{}" + HIDDEN, id="blank before the colon"),
        pytest.param(HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN, id="unknown encoding"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n" + HIDDEN, id="chunk beyond any size"),
        pytest.param(HEAD + b"X-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN, id="folded header"),
        pytest.param(HEAD + b"X-Null: a\0b\r\nContent-Length: 2\r\n\r\n{}" + HIDDEN, id="null in a header"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + HIDDEN, id="TLS"),
    ],
)
def test_an_ambiguous_request_is_refused_and_what_hides_behind_it_is_not_answered(kappa: KappaDev, request_bytes: bytes) -> None:
    answer = conversation(kappa, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_requests_in_one_packet_are_answered_each_and_in_order(kappa: KappaDev) -> None:
    answer = conversation(kappa, b"".join(HEAD + b"Content-Length: 1\r\n\r\n" + str(number).encode() for number in range(3)))
    bodies = [part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert bodies == [b"0", b"1", b"2"]


def test_a_request_without_or_with_two_hosts_is_refused(kappa: KappaDev) -> None:
    for hosts in (b"", b"Host: 127.0.0.1\r\nHost: evil.example\r\n"):
        answer = conversation(kappa, f"POST {INVOKE} HTTP/1.1\r\n".encode() + hosts + b"Content-Length: 2\r\n\r\n{}")
        assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "path",
    [f"{FUNCTIONS}/witness%2finvocations", "/%32015-03-31/functions/witness/invocations", f"{FUNCTIONS}/witness/invocation%73"],
    ids=["encoded slash", "encoded prefix", "encoded suffix"],
)
def test_an_invoke_path_in_disguise_invokes_nothing(kappa: KappaDev, path: str) -> None:
    assert send(kappa, "POST", path, b"1")[0] in (400, 404)


def test_half_a_request_leaves_nothing_when_its_client_goes(kappa: KappaDev, client: Any) -> None:
    parts = urlsplit(kappa.endpoint)
    for body in (b"", b"{"):
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=10) as connection:
            connection.sendall(HEAD + b"Content-Length: 100\r\n\r\n" + body)
    assert echoed(client, os.getpid()) == os.getpid()
