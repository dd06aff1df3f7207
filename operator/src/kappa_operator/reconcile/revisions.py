"""Which revisions of a function are live: the only ones that there is a Deployment for.

Live are what $LATEST serves, every version that an alias names or that has provisioned concurrency, and every version that was asked for
within the last hour without one. Everything else can be invoked as well; its first invocation marks it as wanted and so makes it live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kappa_core.resources import LATEST, Alias, Configuration, Function, FunctionVersion
from kappa_core.rules.deletion import belongs
from kappa_core.rules.provisioned import requested


class Revision(msgspec.Struct, frozen=True):
    """One configuration of one function that environments run on."""

    revision: str
    """``<function uid>.<version>.<configuration digest>``."""
    version: str
    configuration: Configuration


class Live(msgspec.Struct, frozen=True):
    revisions: tuple[Revision, ...]
    until: float | None
    """Epoch seconds at which the first of them stops being live by itself; None: none does."""


def live_revisions(
    function: Function,
    *,
    versions: Iterable[FunctionVersion],
    aliases: Iterable[Alias],
    wanted: Mapping[str, float],
    now: float,
    wanted_seconds: float,
) -> Live:
    """``wanted`` is when each version was last missed, in epoch seconds, like ``now``."""
    named = {
        version
        for alias in aliases
        if belongs(alias, function)
        for version in (alias.function_version, *alias.additional_version_weights)
    }
    found: list[Revision] = []
    ends: list[float] = []
    if function.status.serving is not None:
        found.append(_revision(function, LATEST, function.status.serving))
    for each in sorted(versions, key=lambda each: each.version):
        number = str(each.version)
        if not belongs(each, function) or not each.configuration.code.sha256:
            continue
        end = wanted.get(number, float("-inf")) + wanted_seconds
        stays = number in named or requested(each) > 0
        if not stays and end <= now:
            continue
        if not stays:
            ends.append(end)
        found.append(_revision(function, number, each.configuration))
    return Live(tuple(found), min(ends, default=None))


def _revision(function: Function, version: str, configuration: Configuration) -> Revision:
    return Revision(f"{function.meta.uid}.{version}.{configuration.digest()}", version, configuration)
