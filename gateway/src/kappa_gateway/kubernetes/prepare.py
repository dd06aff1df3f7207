"""``kappa cluster prepare``: what has to be in a cluster before gateways and operator start. The chart runs it before install and upgrade.

It applies the CustomResourceDefinitions and makes the Secrets that are missing: the links' authority and certificate, the signing key,
the first access key, and, where the chart brings PostgreSQL, its password. What is there stays as it is; only a link certificate of our
own authority that ends soon is signed anew. Every step may be repeated, interrupted or run twice at once: a Secret is made by a
create that one of two loses, and replaced under its resourceVersion. It refuses to mend a Secret that lacks a key: that may be somebody's.

:func:`renew` is the one step of it that a release without upgrades needs now and then (``kappa cluster renew``).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec

from kappa_gateway.kubernetes.certificates import (
    CertificateError,
    Pair,
    expires,
    is_due,
    is_issued_by,
    make_authority,
    make_server,
)

AUTHORITY_SECRET: Final = "kappa-link-authority"  # noqa: S105 - a name
LINK_SECRET: Final = "kappa-link-tls"  # noqa: S105 - a name
SIGNING_SECRET: Final = "kappa-signing"  # noqa: S105 - a name
ACCESS_KEY_SECRET: Final = "kappa-access-key"  # noqa: S105 - a name
POSTGRESQL_SECRET: Final = "kappa-postgresql"  # noqa: S105 - a name
_BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
AUTHORITY_WARNING_DAYS: Final = 365
"""An authority with fewer days left is spoken of at every run: it is replaced by hand."""
_ATTEMPTS: Final = 5
"""Rounds in which another writer may get in between; two at once need two."""


class PrepareError(Exception):
    """The cluster cannot be prepared; the message is one line that says what to do."""


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A Secret as far as it matters here."""

    name: str
    data: dict[str, bytes]
    resource_version: str


class Secrets(Protocol):
    """The Secrets of one namespace."""

    async def read(self, name: str) -> Secret | None: ...

    async def create(self, name: str, data: Mapping[str, bytes], *, labels: Mapping[str, str]) -> bool:
        """False where one of that name is there already."""

    async def replace(self, secret: Secret, data: Mapping[str, bytes]) -> bool:
        """False where it has changed since it was read, or is gone."""


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    link_names: tuple[str, ...]
    """DNS names of the links' certificate; the first is the one that pods check."""
    access_key_labels: Mapping[str, str] = {}
    """By which gateways find access keys."""
    postgresql_host: str | None = None
    """Host of the chart's own PostgreSQL; None makes no password."""


async def prepare(
    asked: Preparation,
    *,
    secrets_of: Secrets,
    apply_crds: Callable[[], Awaitable[None]] | None,
    now: datetime,
    say: Callable[[str], None],
) -> None:
    """Make what is missing, in the order in which it is needed. ``say`` gets one line per step.

    Raises
    ------
    PrepareError
        A Secret is there and cannot be used, or others write the same ones all the time.
    """
    if apply_crds is not None:
        await apply_crds()
    authority = await _authority(secrets_of, now=now, say=say)
    await _link(asked.link_names, authority=authority, secrets_of=secrets_of, now=now, say=say)
    for name, data, labels in _random(asked):
        made = await secrets_of.create(name, data, labels=labels)
        if not made:
            await _have(name, keys=tuple(data), secrets_of=secrets_of)
        say(f"Secret {name}: {'made' if made else 'is there'}")


async def renew(names: tuple[str, ...], *, secrets_of: Secrets, now: datetime, say: Callable[[str], None]) -> None:
    """Sign the links' certificate anew where it ends soon; make nothing that is not there. Raises PrepareError."""
    for name in (AUTHORITY_SECRET, LINK_SECRET):
        if await secrets_of.read(name) is None:
            raise PrepareError(f"there is no Secret {name}: `kappa cluster prepare` makes it")
    found = await _have(AUTHORITY_SECRET, keys=("tls.crt", "tls.key"), secrets_of=secrets_of)
    authority = Pair(found.data["tls.crt"], found.data["tls.key"])
    await _link(names, authority=authority, secrets_of=secrets_of, now=now, say=say)


def link_names(service: str, *, namespace: str, domain: str) -> tuple[str, ...]:
    """Names under which the links' Service may be dialled; the first is the one that pods check."""
    return (f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.{domain}", f"{service}.{namespace}", service)


def _random(asked: Preparation) -> Iterator[tuple[str, dict[str, bytes], Mapping[str, str]]]:
    yield SIGNING_SECRET, {"key": secrets.token_urlsafe(48).encode()}, {}
    # The form of AWS's own long-term keys, which some tools check: AKIA and 16 characters of base 32, a secret of 40.
    key_id = "AKIA" + "".join(secrets.choice(_BASE32) for _ in range(16))
    yield (
        ACCESS_KEY_SECRET,
        {"aws_access_key_id": key_id.encode(), "aws_secret_access_key": secrets.token_urlsafe(30).encode()},
        asked.access_key_labels,
    )
    if asked.postgresql_host is not None:
        password = secrets.token_hex(24)  # stands in the DSN as it is
        dsn = f"postgresql://kappa:{password}@{asked.postgresql_host}:5432/kappa"
        yield POSTGRESQL_SECRET, {"password": password.encode(), "dsn": dsn.encode()}, {}


async def _authority(secrets_of: Secrets, *, now: datetime, say: Callable[[str], None]) -> Pair:
    """The authority that is in the cluster, made where there is none; of two that are made at once the first counts for both."""
    if await secrets_of.read(AUTHORITY_SECRET) is None:
        made = make_authority(now=now)
        if await secrets_of.create(AUTHORITY_SECRET, {"tls.crt": made.certificate, "tls.key": made.key}, labels={}):
            say(f"Secret {AUTHORITY_SECRET}: made")
    found = await _have(AUTHORITY_SECRET, keys=("tls.crt", "tls.key"), secrets_of=secrets_of)
    return Pair(found.data["tls.crt"], found.data["tls.key"])


async def _link(
    names: tuple[str, ...], *, authority: Pair, secrets_of: Secrets, now: datetime, say: Callable[[str], None]
) -> None:
    for _ in range(_ATTEMPTS):
        try:
            if await secrets_of.read(LINK_SECRET) is None:
                if await secrets_of.create(LINK_SECRET, _signed(names, authority=authority, now=now), labels={}):
                    say(f"Secret {LINK_SECRET}: made")
                    return
                continue
            ends = expires(authority.certificate)
            if ends - now < timedelta(days=AUTHORITY_WARNING_DAYS):
                say(
                    f"Secret {AUTHORITY_SECRET}: ends on {ends:%Y-%m-%d}, and with it every certificate that it signs; replace it"
                )
            found = await _have(LINK_SECRET, keys=("tls.crt", "tls.key", "ca.crt"), secrets_of=secrets_of)
            until = f"until {expires(found.data['tls.crt']):%Y-%m-%d}"
            if not is_issued_by(found.data["tls.crt"], authority=authority.certificate):
                say(f"Secret {LINK_SECRET}: is there, of another authority, {until}")
                return
            if not is_due(found.data["tls.crt"], names=names, now=now):
                say(f"Secret {LINK_SECRET}: is there, {until}")
                return
            if await secrets_of.replace(found, _signed(names, authority=authority, now=now)):
                say(f"Secret {LINK_SECRET}: signed anew")
                return
        except CertificateError as error:
            raise PrepareError(f"Secret {LINK_SECRET} or {AUTHORITY_SECRET}: {error}; delete both and run this again") from None
    raise PrepareError(f"Secret {LINK_SECRET} is written by others all the time")


def _signed(names: tuple[str, ...], *, authority: Pair, now: datetime) -> dict[str, bytes]:
    server = make_server(names, authority=authority, now=now)
    return {"tls.crt": server.certificate, "tls.key": server.key, "ca.crt": authority.certificate}


async def _have(name: str, *, keys: tuple[str, ...], secrets_of: Secrets) -> Secret:
    found = await secrets_of.read(name)
    if found is None:
        raise PrepareError(f"Secret {name} was deleted just now; run this again")
    missing = [key for key in keys if not found.data.get(key)]
    if missing:
        raise PrepareError(f"Secret {name} lacks {' and '.join(missing)}: add it, or delete the Secret and run this again")
    return found
