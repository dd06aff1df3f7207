"""Where Lambda's answers depart from its own service model, as one visible table.

Applied by :mod:`.app` around :mod:`.validate`. A departure here concerns one member alone and needs no state; rules between members or
about what exists belong to the operations. Sources: [R] recorded answers, [Q] the quotas page of the developer guide.

    member                          model says                          Lambda says
    MemorySize, all operations      at most 32768 (managed instances)   at most 10240, or what the administrator set [Q]
    Timeout, all operations         at most 5400 (managed instances)    at most 900, or what the administrator set [Q]
    EphemeralStorage.Size           at most 32768 (accelerators)        at most 10240 [Q]
    CreateFunction.FunctionName     at most 140 in every form           a bare name at most 64: InvalidParameterValueException [R]
    Runtime of Create and           an enum                             InvalidParameterValueException with "or be a valid ARN" [R];
      UpdateFunctionConfiguration                                       those that AWS has closed are named as such [R];
                                                                        which ones: kappa_core.rules.runtimes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from kappa_core.errors import InvalidParameterValueException, LambdaError
from kappa_core.limits import EPHEMERAL_MAX_MB, FUNCTION_NAME_LENGTH, Limits
from kappa_core.rules.runtimes import check_runtime
from kappa_gateway.api.model import OperationModel, Shape
from kappa_gateway.api.validate import violation


def maxima(limits: Limits) -> dict[str, float]:
    """Upper bounds by shape name that replace the model's."""
    return {
        "MemorySize": limits.memory_max_mb,
        "Timeout": limits.timeout_max,
        "EphemeralStorageSize": EPHEMERAL_MAX_MB,
    }


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """A rule on one member that the model words differently or not at all."""

    operations: frozenset[str]
    member: str
    replaces_model: bool
    """Whether the model's own constraints on this member are not to be checked."""
    rule: Callable[[Shape, Any], LambdaError | None]
    """Shape and value in, the answer out, or None if the value is acceptable."""


def _bare_name_length(shape: Shape, value: Any) -> LambdaError | None:
    if ":" in value or len(value) <= FUNCTION_NAME_LENGTH:
        return None
    constraint = f"Member must have length less than or equal to {FUNCTION_NAME_LENGTH}"
    sentence = violation(shape, value, path="functionName", constraint=constraint)
    return InvalidParameterValueException(f"1 validation error detected: {sentence}")


def _creatable_runtime(_: Shape, value: Any) -> LambdaError | None:
    try:
        check_runtime(value)
    except InvalidParameterValueException as error:
        return error
    return None


DEPARTURES: Final = (
    Departure(
        operations=frozenset({"CreateFunction"}),
        member="FunctionName",
        replaces_model=False,
        rule=_bare_name_length,
    ),
    Departure(
        operations=frozenset({"CreateFunction", "UpdateFunctionConfiguration"}),
        member="Runtime",
        replaces_model=True,
        rule=_creatable_runtime,
    ),
)


def left_to_departures(operation: OperationModel) -> frozenset[str]:
    """Members of an operation's input that the model must not judge."""
    return frozenset(d.member for d in DEPARTURES if d.replaces_model and operation.name in d.operations)


def check(operation: OperationModel, params: Mapping[str, Any]) -> None:
    """Refuse what breaks a departure. Called after the model's constraints: those are checked at AWS's front end, earlier.

    Raises
    ------
    LambdaError
        The first broken departure's answer.
    """
    for departure in DEPARTURES:
        if operation.input is None or operation.name not in departure.operations:
            continue
        value = params.get(departure.member)
        if value is not None and (error := departure.rule(operation.input.members[departure.member].shape, value)) is not None:
            raise error
