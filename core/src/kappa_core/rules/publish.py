"""Publishing $LATEST as a version: when it makes a new one, under which preconditions, and what the version is made of.

The intent is recorded on the function first (:class:`kappa_core.resources.Publication`), then the version is stored, then the
intent is marked complete. A crash between these leaves something that the next publish, or the settler, finishes with
:func:`version_of`.
"""

from __future__ import annotations

import base64

import msgspec

from kappa_core.errors import InvalidParameterValueException
from kappa_core.resources import Function, FunctionVersion, Publication, Sha256


def code_sha256(digest: Sha256) -> str:
    """A digest as AWS shows it."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def check_code(function: Function, given: str | None) -> None:
    """Raises InvalidParameterValueException where $LATEST is not the code that the caller means."""
    current = code_sha256(function.configuration.code.sha256)
    if given is not None and given != current:
        raise InvalidParameterValueException(
            f"CodeSHA256 ({given}) is different from current CodeSHA256 in $LATEST ({current}). "
            "Please try again with the CodeSHA256 in $LATEST."
        )


def unchanged(function: Function) -> int | None:
    """The version that already is what $LATEST is; the caller checks that it still exists."""
    publication = function.publication
    if publication is None or publication.digest != function.configuration.digest():
        return None
    return publication.version


def begin(function: Function, *, version: int, description: str | None) -> Function:
    """The function with the intent to publish its current configuration under a freshly allocated number."""
    publication = Publication(version=version, digest=function.configuration.digest(), description=description)
    return msgspec.structs.replace(function, publication=publication)


def complete(function: Function) -> Function:
    """The function once the version is stored."""
    assert function.publication is not None
    publication = msgspec.structs.replace(function.publication, complete=True)
    return msgspec.structs.replace(function, publication=publication)


def pending(function: Function) -> Publication | None:
    """The publication that nobody has finished yet. Until it is, the function's configuration must not change."""
    publication = function.publication
    return publication if publication is not None and not publication.complete else None


def version_of(function: Function, publication: Publication) -> FunctionVersion:
    """The version as it is stored: the configuration of $LATEST, its description replaced where the request gave one."""
    configuration = function.configuration
    if publication.description is not None:
        configuration = msgspec.structs.replace(configuration, description=publication.description)
    return FunctionVersion(
        account=function.account,
        region=function.region,
        name=function.name,
        version=publication.version,
        configuration=configuration,
        function_uid=function.meta.uid,
        modified_ms=function.modified_ms,
    )


def counter(function: Function) -> str:
    """The high-water mark of the function's version numbers: of its name, so that a function created anew continues it."""
    return f"versions/{function.account}/{function.region}/{function.name}"
