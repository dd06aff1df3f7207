"""From a function and qualifier to what runs now: the one way from a name to a configuration, for invokes and for reads.

Works over anything that answers ``get(key)`` in memory, because the invoke path asks it per request. An alias is followed by weight,
a version or alias left behind by an earlier function of the name is not there.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from kappa_core.errors import InvalidParameterValueException, ResourceNotFoundException
from kappa_core.names import FunctionName, is_version, parse_layer_version_arn
from kappa_core.resources import (
    LATEST,
    Alias,
    Configuration,
    Function,
    FunctionStatus,
    FunctionVersion,
    Key,
    LayerVersion,
    Resource,
    Sha256,
)
from kappa_core.rules.deletion import belongs
from kappa_core.rules.routing import choose
from kappa_core.rules.states import not_invocable


class Index(Protocol):
    """Resources in memory; a dictionary is one."""

    def get(self, key: Key, /) -> Resource | None: ...


class Target(msgspec.Struct, frozen=True):
    """What an invocation runs."""

    function: Function
    version: str
    """Number or ``$LATEST``: X-Amz-Executed-Version."""
    qualifier: str | None
    """As the caller gave it, in either place."""
    status: FunctionStatus
    """Of the function or the version."""
    key: Key
    """Of the function or the version: what to wait for while it is Pending."""
    configuration: Configuration | None
    """None until it is settled for the first time, or where that failed."""

    def runnable(self) -> Configuration:
        """The configuration. Raises the error of an invocation while there is none."""
        if self.configuration is None:
            raise not_invocable(self.status)
        return self.configuration


def resolve(index: Index, name: FunctionName, *, draw: float = 1.0) -> Target:
    """What an invocation of ``name`` runs; ``draw`` is uniform in [0, 1), one that is not follows an alias to its main version.

    Raises ResourceNotFoundException: ``Function not found: <arn>:<qualifier>``, with ``$LATEST`` where none was given.
    """
    function = index.get(name.key)
    if not isinstance(function, Function):
        raise _not_found(name, name.qualifier or LATEST)
    qualifier = version = name.qualifier or LATEST
    if qualifier != LATEST and not is_version(qualifier):
        alias = index.get(Key("Alias", name.account, name.region, name.name, qualifier))
        if not isinstance(alias, Alias) or not belongs(alias, function):
            raise _not_found(name, qualifier)
        version = choose(alias, draw)
    if version == LATEST:
        return Target(function, LATEST, name.qualifier, function.status, function.key, function.status.serving)
    published = index.get(Key("FunctionVersion", name.account, name.region, name.name, version))
    if not isinstance(published, FunctionVersion) or not belongs(published, function):
        raise _not_found(name, version)
    configuration = published.configuration if published.status.state == "Active" else None
    return Target(function, version, name.qualifier, published.status, published.key, configuration)


def layer_digests(index: Index, configuration: Configuration) -> tuple[Sha256, ...]:
    """The archives of a configuration's layers in merge order. Deleted layer versions go on working for who uses them.

    Raises InvalidParameterValueException for one that is not there at all.
    """
    digests: list[Sha256] = []
    for arn in configuration.layers:
        name = parse_layer_version_arn(arn)
        layer = None if name is None else index.get(name.key)
        if not isinstance(layer, LayerVersion):
            raise InvalidParameterValueException(f"Layer version {arn} does not exist.")
        digests.append(layer.code.sha256)
    return tuple(digests)


def _not_found(name: FunctionName, qualifier: str) -> ResourceNotFoundException:
    return ResourceNotFoundException(f"Function not found: {name.qualified_arn(qualifier)}")
