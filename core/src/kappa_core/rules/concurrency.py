"""Reserved concurrency: every function's reservation comes out of the account's pool, of which a part must stay free.

So does what is provisioned (:mod:`kappa_core.rules.provisioned`) for a function without a reservation; with one it is inside of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from kappa_core.errors import UntypedInvalidParameterValueException
from kappa_core.limits import Limits


def claim(reserved: int | None, provisioned: int) -> int:
    """What a function takes out of the account's pool for itself."""
    return provisioned if reserved is None else reserved


def unreserved(limits: Limits, reservations: Iterable[int | None]) -> int:
    """What is left for all to share. ``reservations`` are the claims of all functions of the account and region."""
    return limits.account_concurrency - sum(reserved or 0 for reserved in reservations)


def check_reservation(limits: Limits, *, wanted: int, others: Iterable[int | None]) -> None:
    """Raises InvalidParameterValueException where ``wanted`` leaves too little for the rest.

    ``others`` excludes the function itself: its own old reservation is credited back. Lowering or setting zero is always allowed,
    even where an administrator has shrunk the account below what is reserved.
    """
    if wanted == 0:
        return
    if unreserved(limits, others) - wanted < limits.unreserved_minimum:
        raise UntypedInvalidParameterValueException(
            "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its "
            f"minimum value of [{limits.unreserved_minimum}]."
        )
