"""Revision ids: derived from what identifies a state of a resource, never stored, so that they cannot be forgotten or forged.

Two reads of an unchanged resource give the same id; every accepted write gives another one. A version's id never changes, not even
when it becomes Active (recorded).
"""

from __future__ import annotations

import hashlib
import uuid

from kappa_core.errors import PreconditionFailedException
from kappa_core.resources import Alias, Function, FunctionVersion, LayerVersion, Meta, Resource
from kappa_core.rules.provisioned import noted_only


def revision_id(resource: Function | FunctionVersion | Alias | LayerVersion) -> str:
    """The RevisionId of a stored resource; of a layer version, that of its policy."""
    match resource:
        case Function(meta=meta, status=status, publication=publication):
            published = "" if publication is None else str(publication.version)
            state = (status.state, status.last_update_status or "")
            return _uuid_of("function", meta.uid, _edition(meta), str(resource.modified_ms), published, *state)
        case FunctionVersion(meta=meta):
            return _uuid_of("version", meta.uid)
        case Alias(meta=meta):
            return _uuid_of("alias", meta.uid, _edition(meta))
        case LayerVersion(meta=meta):
            return _uuid_of("layer", meta.uid, _edition(meta))


def check_revision(resource: Function | FunctionVersion | Alias | LayerVersion, given: str | None) -> None:
    """Raises PreconditionFailedException where the caller's RevisionId is not the current one; None asks for no check."""
    if given is None or given == revision_id(resource):
        return
    reader = "GetLayerPolicy" if isinstance(resource, LayerVersion) else "GetFunction/GetAlias"
    raise PreconditionFailedException(
        f"The Revision Id provided does not match the latest Revision Id. Call the {reader} API to retrieve the latest Revision Id"
    )


def edition_after(before: Resource, after: Resource) -> str:
    """``Meta.edition`` of a resource that a store has been asked to write in place of another: where only its state was noted, the
    one that it had, so that nobody's RevisionId is outdated by it."""
    noted = isinstance(before, Alias) and isinstance(after, Alias) and noted_only(before, after)
    return _edition(before.meta) if noted else ""


def _edition(meta: Meta) -> str:
    return meta.edition or str(meta.generation)


def _uuid_of(*parts: str) -> str:
    return str(uuid.UUID(bytes=hashlib.sha256("\0".join(parts).encode()).digest()[:16], version=4))
