"""`kappa cluster prepare` over Secrets in memory: what is made, what stays, and two at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kappa_gateway.kubernetes.certificates import AUTHORITY_DAYS, SERVER_DAYS, is_issued_by, make_authority, make_server
from kappa_gateway.kubernetes.prepare import (
    ACCESS_KEY_SECRET,
    AUTHORITY_SECRET,
    LINK_SECRET,
    POSTGRESQL_SECRET,
    SIGNING_SECRET,
    Preparation,
    PrepareError,
    Secret,
    link_names,
    prepare,
    renew,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = Preparation(
    link_names=link_names("kappa-gateway-links", namespace="kappa-system", domain="cluster.local"),
    access_key_labels={"kind": "access-key"},
    postgresql_host="kappa-postgresql",
)


class MemorySecrets:
    """Like the API server's: creates and replacements of two callers that interleave end as there. Every call gives way once."""

    def __init__(self) -> None:
        self.kept: dict[str, Secret] = {}
        self.labels: dict[str, Mapping[str, str]] = {}
        self.writes = 0

    async def read(self, name: str) -> Secret | None:
        await asyncio.sleep(0)
        return self.kept.get(name)

    async def create(self, name: str, data: Mapping[str, bytes], *, labels: Mapping[str, str]) -> bool:
        await asyncio.sleep(0)
        if name in self.kept:
            return False
        self._write(name, data)
        self.labels[name] = labels
        return True

    async def replace(self, secret: Secret, data: Mapping[str, bytes]) -> bool:
        await asyncio.sleep(0)
        if self.kept.get(secret.name, secret).resource_version != secret.resource_version:
            return False
        self._write(secret.name, data)
        return True

    def _write(self, name: str, data: Mapping[str, bytes]) -> None:
        self.writes += 1
        self.kept[name] = Secret(name=name, data=dict(data), resource_version=str(self.writes))


def _prepare(kept: MemorySecrets, *, asked: Preparation = ASKED, now: datetime = NOW, times: int = 1) -> list[str]:
    said: list[str] = []

    async def apply() -> None:
        await asyncio.sleep(0)

    async def scenario() -> None:
        await asyncio.gather(*(prepare(asked, secrets_of=kept, apply_crds=apply, now=now, say=said.append) for _ in range(times)))

    asyncio.run(scenario())
    return said


def _data(kept: MemorySecrets) -> dict[str, Any]:
    return {name: secret.data for name, secret in kept.kept.items()}


def test_an_empty_namespace_gets_every_secret_that_the_parts_need() -> None:
    kept = MemorySecrets()
    _prepare(kept)
    assert {name: sorted(data) for name, data in _data(kept).items()} == {
        AUTHORITY_SECRET: ["tls.crt", "tls.key"],
        LINK_SECRET: ["ca.crt", "tls.crt", "tls.key"],
        SIGNING_SECRET: ["key"],
        ACCESS_KEY_SECRET: ["aws_access_key_id", "aws_secret_access_key"],
        POSTGRESQL_SECRET: ["dsn", "password"],
    }
    assert len(kept.kept[SIGNING_SECRET].data["key"]) >= 32
    assert len(kept.kept[ACCESS_KEY_SECRET].data["aws_access_key_id"]) == 20
    assert kept.labels[ACCESS_KEY_SECRET] == {"kind": "access-key"}
    password = kept.kept[POSTGRESQL_SECRET].data["password"].decode()
    assert kept.kept[POSTGRESQL_SECRET].data["dsn"].decode() == f"postgresql://kappa:{password}@kappa-postgresql:5432/kappa"


def test_without_a_postgresql_of_the_chart_no_password_is_made() -> None:
    kept = MemorySecrets()
    _prepare(kept, asked=Preparation(link_names=ASKED.link_names))
    assert POSTGRESQL_SECRET not in kept.kept


def test_a_second_run_writes_nothing() -> None:
    kept = MemorySecrets()
    _prepare(kept)
    before = _data(kept)
    writes = kept.writes
    said = _prepare(kept, now=NOW + timedelta(days=300))
    assert (_data(kept), kept.writes) == (before, writes)
    assert f"Secret {SIGNING_SECRET}: is there" in said


def test_of_runs_at_once_one_makes_each_secret_and_the_certificate_fits_the_authority() -> None:
    kept = MemorySecrets()
    _prepare(kept, times=5)
    assert kept.writes == 5
    link = kept.kept[LINK_SECRET].data
    assert is_issued_by(link["tls.crt"], authority=kept.kept[AUTHORITY_SECRET].data["tls.crt"])
    assert link["ca.crt"] == kept.kept[AUTHORITY_SECRET].data["tls.crt"]


def test_a_certificate_that_ends_soon_is_signed_anew_by_the_same_authority_once_even_by_runs_at_once() -> None:
    kept = MemorySecrets()
    _prepare(kept)
    old = kept.kept[LINK_SECRET].data
    writes = kept.writes
    _prepare(kept, now=NOW + timedelta(days=SERVER_DAYS - 30), times=3)
    new = kept.kept[LINK_SECRET].data
    assert (new["ca.crt"], kept.writes) == (old["ca.crt"], writes + 1)
    assert new["tls.crt"] != old["tls.crt"]
    assert is_issued_by(new["tls.crt"], authority=old["ca.crt"])


def _renew(kept: MemorySecrets, *, now: datetime, times: int = 1) -> list[str]:
    said: list[str] = []

    async def scenario() -> None:
        await asyncio.gather(*(renew(ASKED.link_names, secrets_of=kept, now=now, say=said.append) for _ in range(times)))

    asyncio.run(scenario())
    return said


def test_renewal_writes_a_certificate_that_ends_soon_and_nothing_else() -> None:
    kept = MemorySecrets()
    _prepare(kept)
    before, writes = _data(kept), kept.writes
    assert "is there" in _renew(kept, now=NOW + timedelta(days=300))[0]
    assert (_data(kept), kept.writes) == (before, writes)
    _renew(kept, now=NOW + timedelta(days=SERVER_DAYS - 30), times=3)
    after = _data(kept)
    assert {name for name in after if after[name] != before[name]} == {LINK_SECRET}
    assert kept.writes == writes + 1
    assert is_issued_by(after[LINK_SECRET]["tls.crt"], authority=before[AUTHORITY_SECRET]["tls.crt"])


@pytest.mark.parametrize("name", [AUTHORITY_SECRET, LINK_SECRET])
def test_renewal_makes_nothing_that_is_not_there(name: str) -> None:
    kept = MemorySecrets()
    _prepare(kept)
    del kept.kept[name]
    writes = kept.writes
    with pytest.raises(PrepareError, match=f"no Secret {name}: `kappa cluster prepare`"):
        _renew(kept, now=NOW)
    assert kept.writes == writes


def test_an_authority_that_ends_within_a_year_is_spoken_of() -> None:
    kept = MemorySecrets()
    _prepare(kept)
    assert not any("replace it" in line for line in _renew(kept, now=NOW + timedelta(days=AUTHORITY_DAYS - 400)))
    assert any("replace it" in line for line in _renew(kept, now=NOW + timedelta(days=AUTHORITY_DAYS - 300)))


def test_a_certificate_of_another_authority_is_left_alone_however_soon_it_ends() -> None:
    kept = MemorySecrets()
    theirs = make_authority(now=NOW)
    server = make_server(("elsewhere",), authority=theirs, now=NOW)
    data = {"tls.crt": server.certificate, "tls.key": server.key, "ca.crt": theirs.certificate}
    asyncio.run(kept.create(LINK_SECRET, data, labels={}))
    said = _prepare(kept, now=NOW + timedelta(days=SERVER_DAYS - 1))
    assert kept.kept[LINK_SECRET].data == data
    assert any("another authority" in line for line in said)


@pytest.mark.parametrize("name", [AUTHORITY_SECRET, LINK_SECRET, SIGNING_SECRET, ACCESS_KEY_SECRET, POSTGRESQL_SECRET])
def test_a_secret_that_lacks_a_key_is_named_and_not_touched(name: str) -> None:
    kept = MemorySecrets()
    asyncio.run(kept.create(name, {"unrelated": b"1"}, labels={}))
    with pytest.raises(PrepareError, match=f"Secret {name} lacks"):
        _prepare(kept)
    assert kept.kept[name].data == {"unrelated": b"1"}


def test_an_authority_that_is_no_certificate_is_one_error_that_says_what_to_do() -> None:
    kept = MemorySecrets()
    asyncio.run(kept.create(AUTHORITY_SECRET, {"tls.crt": b"garbage", "tls.key": b"garbage"}, labels={}))
    with pytest.raises(PrepareError, match="delete both and run this again"):
        _prepare(kept)


def test_the_first_name_of_the_certificate_is_the_one_that_pods_check() -> None:
    assert ASKED.link_names[0] == "kappa-gateway-links.kappa-system.svc"
