"""Gateways by name: how often is looked, and what is said of what was found."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from kappa_core.link.addresses import AddressError, parse_source, tls_address
from kappa_runtime.link import discovery
from kappa_runtime.link.discovery import Discovery, next_look


def test_a_source_names_a_host_and_a_port() -> None:
    assert parse_source("dns:links.kappa-system.svc:9443") == ("links.kappa-system.svc", 9443)


@pytest.mark.parametrize("source", ["", "dns:", "dns:host", "dns::9443", "dns:host:link", "tls:host:9443"])
def test_anything_else_is_refused_with_what_was_given(source: str) -> None:
    with pytest.raises(AddressError, match="not dns:host:port"):
        parse_source(source)


def test_addresses_of_both_kinds_become_link_addresses() -> None:
    assert tls_address("10.0.0.7", 9443) == "tls:10.0.0.7:9443"
    assert tls_address("fd00::7", 9443) == "tls:[fd00::7]:9443"


def test_it_looks_at_once_again_when_nobody_was_found_and_rarely_when_all_is_well() -> None:
    first = [next_look(found=False, complete=False, looks=number) for number in range(6)]
    assert first == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert next_look(found=False, complete=False, looks=10_000) == 1.0
    assert next_look(found=True, complete=False, looks=0) == 1.0
    assert next_look(found=True, complete=True, looks=0) == 5.0


class Names:
    """A resolver with a script: each look takes the next answer, the last one stays."""

    def __init__(self, *answers: Iterable[str] | OSError) -> None:
        self._answers = list(answers)
        self.looks = 0

    async def __call__(self, _host: str, _port: int) -> Iterable[str]:
        self.looks += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


def looked(names: Names, *, times: int) -> list[set[str]]:
    """What was said of the first looks."""
    found: list[set[str]] = []

    async def scenario() -> None:
        one = Discovery(["dns:links:9443"], on_found=found.append, complete=lambda: False, resolve=names)
        one.start()
        async with asyncio.timeout(10):
            while names.looks < times:
                await asyncio.sleep(0)
        await one.close()

    asyncio.run(scenario())
    return found


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(discovery, "MISSING_SECONDS", 0.0)


@pytest.mark.usefixtures("_no_pauses")
def test_gateways_that_come_and_go_are_told() -> None:
    found = looked(Names(["10.0.0.1"], ["10.0.0.1", "10.0.0.2"], ["10.0.0.2"]), times=4)
    assert found[:3] == [{"tls:10.0.0.1:9443"}, {"tls:10.0.0.1:9443", "tls:10.0.0.2:9443"}, {"tls:10.0.0.2:9443"}]


@pytest.mark.usefixtures("_no_pauses")
def test_a_name_that_is_not_there_yet_is_looked_up_again_and_complained_about_once(caplog: pytest.LogCaptureFixture) -> None:
    found = looked(Names(OSError("no such name"), OSError("no such name"), ["10.0.0.1"]), times=4)
    assert found[0] == {"tls:10.0.0.1:9443"}
    assert caplog.text.count("no such name") == 1


@pytest.mark.usefixtures("_no_pauses")
def test_a_resolver_that_is_away_or_knows_nobody_takes_no_gateway_from_us() -> None:
    found = looked(Names(["10.0.0.1"], OSError("away"), [], ["10.0.0.1"]), times=5)
    assert all(each == {"tls:10.0.0.1:9443"} for each in found)
