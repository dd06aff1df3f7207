"""Provisioned concurrency of aliases and versions: ``spec.provisionedConcurrentExecutions`` and ``status.provisionedConcurrency``.

Written by the API, by ``kubectl scale`` and by autoscalers alike, so nothing is kept beside the number. When it was asked for is noted in
the status: the API server keeps no account of who has written a custom resource's scale. A number of 0 is no configuration; it is read
as one for as long as a status speaks of more, so that whoever notes states puts that right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kappa_core.resources import Alias, FunctionVersion, ProvisionedConcurrency, ProvisionedState
from kappa_crds import labels, names
from kappa_crds.times import milliseconds, timestamp

Fields = dict[str, Any]

FIELD: Final = "provisionedConcurrentExecutions"
"""Of the spec; the scale subresource of an Alias is about it."""
_STATUS: Final = "provisionedConcurrency"
_REASON_CHARACTERS: Final = 4096


def provisioned_of(obj: Mapping[str, Any]) -> ProvisionedConcurrency | None:
    number = (obj.get("spec") or {}).get(FIELD, 0)
    state = _state((obj.get("status") or {}).get(_STATUS))
    if not number and state is None:
        return None
    modified_ms = state.since_ms if state is not None and state.requested == number else _modified_ms(obj["metadata"])
    return ProvisionedConcurrency(requested=number, modified_ms=modified_ms if number else 0, state=state)


def provisioned_status(resource: Alias | FunctionVersion) -> Fields | None:
    """For the status; None where nobody has noted anything."""
    state = None if resource.provisioned is None else resource.provisioned.state
    if state is None:
        return None
    fields: Fields = {
        "requested": state.requested,
        "functionVersion": state.function_version,
        "ready": state.ready,
        "allocated": state.allocated,
        "status": state.status,
    }
    if state.reason is not None:
        fields["statusReason"] = state.reason[:_REASON_CHARACTERS]
    if state.since_ms:
        fields["lastModified"] = timestamp(state.since_ms)
    if state.revision:
        fields["revision"] = state.revision
        fields["selector"] = f"{labels.REVISION_HASH}={names.revision_hash(state.revision)}"
    return fields


def _state(fields: Mapping[str, Any] | None) -> ProvisionedState | None:
    if not fields or "functionVersion" not in fields:
        return None
    return ProvisionedState(
        requested=fields.get("requested", 0),
        function_version=fields["functionVersion"],
        ready=fields.get("ready", 0),
        allocated=fields.get("allocated", 0),
        status=fields.get("status", "IN_PROGRESS"),
        reason=fields.get("statusReason"),
        revision=fields.get("revision", ""),
        since_ms=milliseconds(fields.get("lastModified")),
    )


def _modified_ms(metadata: Mapping[str, Any]) -> int:
    """When somebody last applied or edited the number, to the second; 0 where that is not to be seen."""
    times = [
        milliseconds(entry.get("time"))
        for entry in metadata.get("managedFields") or ()
        if f"f:{FIELD}" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    return max(times, default=0)
