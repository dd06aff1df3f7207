"""Provisioned concurrency: who may have how much of it, which environments that means, and what is said of their state.

A configuration belongs to a published version or to an alias; one of an alias is about the version that the alias points to, and
follows it. A version has one at most, its own or an alias's (where manifests say more, they add up). The environments are counted by
:mod:`kappa_core.link.capacity` and kept by the scaler; here nothing is counted and nothing is started.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from kappa_core.errors import InvalidParameterValueException, ResourceConflictException, UntypedInvalidParameterValueException
from kappa_core.limits import Limits
from kappa_core.resources import Alias, FunctionVersion, ProvisionedConcurrency, ProvisionedState
from kappa_core.spec import INIT_FAILURE

Provisionable = Alias | FunctionVersion


class Progress(msgspec.Struct, frozen=True):
    """What the scaler says of the provisioned environments of one revision."""

    ready: int = 0
    allocated: int = 0
    """Ready or being started."""
    cause: str = ""
    """Why the last start failed; empty after one that did not."""
    revision: str = ""


def requested(resource: Provisionable) -> int:
    """How many environments are to be kept ready, 0 without a configuration."""
    return 0 if resource.provisioned is None else resource.provisioned.requested


def version_of(resource: Provisionable) -> str:
    """The version whose environments a configuration is about."""
    return resource.function_version if isinstance(resource, Alias) else str(resource.version)


def qualifier_of(resource: Provisionable) -> str:
    return resource.alias if isinstance(resource, Alias) else str(resource.version)


def total(resources: Iterable[Provisionable]) -> int:
    """All that is provisioned for these."""
    return sum(requested(one) for one in resources)


# -- what may be asked for ---------------------------------------------------------------------------------------------------
def check_target(resource: Provisionable, others: Iterable[Provisionable]) -> None:
    """Whether this version or alias may have a configuration, given all ``others`` of its function.

    Raises ResourceConflictException where its version has one already, InvalidParameterValueException for an alias with weights.
    """
    version = version_of(resource)
    taken = [one for one in others if requested(one) and one.key != resource.key and version_of(one) == version]
    if isinstance(resource, FunctionVersion):
        if any(isinstance(one, Alias) for one in taken):
            raise ResourceConflictException("Version is pointed by a Provisioned Concurrency alias")
        return
    if resource.additional_version_weights:
        raise InvalidParameterValueException("Alias with weights can not be used with Provisioned Concurrency")
    if taken:
        raise ResourceConflictException(
            "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
        )


def check_amount(limits: Limits, *, wanted: int, of_function: int, reserved: int | None, unreserved: int) -> None:
    """Whether there is room for ``wanted`` environments besides the ``of_function`` that the function has provisioned otherwise.

    ``reserved`` is the function's reservation; ``unreserved`` what the account has left without this configuration. A function with a
    reservation provisions from that and takes nothing from the account. Raises InvalidParameterValueException.
    """
    if reserved is not None:
        if of_function + wanted > reserved:
            raise InvalidParameterValueException(
                "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
            )
        return
    if wanted > unreserved:
        raise UntypedInvalidParameterValueException(
            f"Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [{unreserved}]."
        )
    if unreserved - wanted < limits.unreserved_minimum:
        raise UntypedInvalidParameterValueException(
            "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum "
            f"value of [{limits.unreserved_minimum}]."
        )


def check_reservation_covers(*, reserved: int, provisioned: int) -> None:
    """Whether a reservation leaves room for what the function has provisioned. Raises InvalidParameterValueException, with the blanks
    that AWS was recorded to put there."""
    if reserved < provisioned:
        raise UntypedInvalidParameterValueException(
            f" ReservedConcurrentExecutions  {reserved} should not be lower than function's total provisioned concurrency "
            f"[{provisioned}]."
        )


# -- what is said of it ------------------------------------------------------------------------------------------------------
def states(resources: Sequence[Provisionable], progress: Progress) -> list[ProvisionedState]:
    """The state of every configuration of one version, in the order given; the first ones have the first claim on what there is."""
    found: list[ProvisionedState] = []
    ready, allocated = progress.ready, progress.allocated
    for resource in resources:
        number = requested(resource)
        mine, given = min(number, ready), min(number, allocated)
        ready, allocated = ready - mine, allocated - given
        found.append(_state(resource, ready=mine, allocated=given, progress=progress))
    return found


def _state(resource: Provisionable, *, ready: int, allocated: int, progress: Progress) -> ProvisionedState:
    number, cause = requested(resource), progress.cause
    state = ProvisionedState(
        requested=number,
        function_version=version_of(resource),
        ready=ready,
        allocated=allocated,
        status="READY",
        revision=progress.revision,
    )
    if ready >= number:
        return state
    if cause.startswith(INIT_FAILURE):
        return msgspec.structs.replace(state, status="FAILED", reason=INIT_FAILURE)
    return msgspec.structs.replace(state, status="IN_PROGRESS", reason=cause or None)


def shown_state(resource: Provisionable, noted: ProvisionedState | None) -> ProvisionedState:
    """What is true of a configuration as far as ``noted`` says; what was noted before the last change is none of its settling."""
    number, version = requested(resource), version_of(resource)
    if noted is None or noted.function_version != version:
        return ProvisionedState(requested=number, function_version=version)
    if noted.requested == number:
        return noted
    ready, allocated = min(noted.ready, number), min(noted.allocated, number)
    return ProvisionedState(requested=number, function_version=version, ready=ready, allocated=allocated)


def noted_only(before: Provisionable, after: Provisionable) -> bool:
    """Whether nothing but the state was written, which is no change by anybody's wish."""
    if before.provisioned is None or after.provisioned is None or before.provisioned.state == after.provisioned.state:
        return False
    alike: ProvisionedConcurrency = msgspec.structs.replace(before.provisioned, state=after.provisioned.state)
    return msgspec.structs.replace(before, provisioned=alike, meta=after.meta) == after
