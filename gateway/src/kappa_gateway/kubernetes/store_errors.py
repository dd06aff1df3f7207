"""Errors of the Kubernetes API as those of the ResourceStore port.

What a caller can do something about (a name that is taken, a field that GitOps owns, a value that the schema refuses) keeps the API
server's sentence; what only an administrator can is StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kappa_core.ports.store import AlreadyExists, Conflict, NotFound, OwnedElsewhere, Rejected, StoreError, StoreUnavailable
from kappa_crds import api
from kappa_crds.api import ApiError, FieldOwner


@contextmanager
def translated() -> Iterator[None]:
    """Raises the StoreError that an ApiError of the block stands for."""
    try:
        yield
    except ApiError as error:
        raise store_error(error) from error


def store_error(error: ApiError) -> StoreError:
    match error:
        case api.NotFound():
            return NotFound(error.message)
        case api.AlreadyExists():
            return AlreadyExists(error.message)
        case api.Conflict() if error.owners:
            return owned_elsewhere(error.owners)
        case api.Conflict():
            return Conflict(error.message)
        case api.Invalid():
            return Rejected(error.message)
        case api.Forbidden() if not _is_missing_right(error):
            return Rejected(error.message)
        case _:
            return StoreUnavailable(error.message)


def owned_elsewhere(owners: tuple[FieldOwner, ...]) -> OwnedElsewhere:
    """One sentence with who owns what."""
    by_manager: dict[str, list[str]] = {}
    for owner in owners:
        by_manager.setdefault(owner.manager, []).append(owner.field)
    said = "; ".join(f"{', '.join(sorted(fields))} by {manager!r}" for manager, fields in sorted(by_manager.items()))
    return OwnedElsewhere(f"The resource is managed by others as well: {said}. Change it there, or let that manager give it up.")


def _is_missing_right(error: ApiError) -> bool:
    """RBAC's words, as against those of quotas, admission policies and namespaces that are being deleted, which are 403 as well."""
    return error.status == 401 or ('User "' in error.message and " cannot " in error.message)
