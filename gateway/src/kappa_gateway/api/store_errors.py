"""What a caller of the Lambda API learns when the store does not take a write or cannot be reached.

Operations handle what belongs to their own rules (a name that is taken, a lost race). What is left is here: a field that somebody
else owns is AWS's conflict, what the store will never take is an invalid parameter, and the rest is ServiceException, which SDKs
try again. Reasons that only an administrator understands go to the log alone.
"""

from __future__ import annotations

import logging

from kappa_core.errors import InvalidParameterValueException, LambdaError, ResourceConflictException, ServiceException
from kappa_core.ports.store import OwnedElsewhere, Rejected, StoreError

_log = logging.getLogger(__name__)


def store_error(error: StoreError, request_id: str) -> LambdaError:
    """The error to answer with."""
    match error:
        case OwnedElsewhere():
            return ResourceConflictException(str(error))
        case Rejected():
            return InvalidParameterValueException(str(error))
        case _:
            _log.warning("request %s failed: %s", request_id, error)
            return ServiceException(f"The resources cannot be read or written at the moment. Request id: {request_id}")
