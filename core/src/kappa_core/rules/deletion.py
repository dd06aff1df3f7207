"""What may be deleted, and what is already gone although its record still stands.

A function's record goes first; its versions and aliases carry its uid, so they are invisible from that moment, also to a new
function of the same name, and are collected later.
"""

from __future__ import annotations

from collections.abc import Iterable

from kappa_core.errors import InvalidParameterValueException, ResourceConflictException
from kappa_core.names import is_version
from kappa_core.resources import LATEST, Alias, EventInvokeConfig, Function, FunctionVersion


def belongs(child: FunctionVersion | Alias | EventInvokeConfig, function: Function | None) -> bool:
    """Whether a version, alias or configuration is one of this function, and not what an earlier one of its name left behind."""
    return function is not None and child.function_uid == function.meta.uid


def check_version_deletion(qualifier: str, aliases: Iterable[Alias]) -> None:
    """Whether this version may go, given the function's aliases.

    Raises InvalidParameterValueException for what is no number, ResourceConflictException for a version in use.
    """
    if qualifier == LATEST:
        raise InvalidParameterValueException("$LATEST version cannot be deleted without deleting the function.")
    if not is_version(qualifier):
        raise InvalidParameterValueException("Deletion of aliases is not currently supported.")
    users = [
        alias.alias for alias in aliases if alias.function_version == qualifier or qualifier in alias.additional_version_weights
    ]
    if users:
        raise ResourceConflictException(
            f"Unable to delete version because the following aliases reference it: [{', '.join(users)}]"
        )
