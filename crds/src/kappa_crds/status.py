"""The status of objects: what Kappa found, as fields, and back into the core's states.

``status.observedGeneration`` and ``status.configurationDigest`` say which spec the rest is about. An object whose spec has moved on
*is* an update in progress (or Pending, as long as nothing has served), whoever changed it: an edit by kubectl and
UpdateFunctionConfiguration are the same event. The digest is there because a generation also rises with what is no update on AWS:
tags, reserved concurrency, recursive loops.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from kappa_core.names import function_arn, layer_arn
from kappa_core.resources import (
    LATEST,
    Alias,
    Code,
    Configuration,
    EventSourceMapping,
    Function,
    FunctionStatus,
    FunctionVersion,
    LayerVersion,
    Publication,
)
from kappa_core.rules import states
from kappa_core.rules.publish import code_sha256
from kappa_crds.code import archive_fields, code_digest, code_of, code_source
from kappa_crds.configuration import Fields, configuration_fields, configuration_of, present
from kappa_crds.provisioned import provisioned_status
from kappa_crds.times import timestamp

Object = Mapping[str, Any]

CODE_READY: Final = "CodeReady"
"""Condition of Functions and FunctionVersions, the gateway's: code and settings are accepted and can be served."""
REASON_CHARACTERS: Final = 4096
_MESSAGE_CHARACTERS: Final = 1024


# -- read --------------------------------------------------------------------------------------------------------------------
def function_status_of(obj: Object, configuration: Configuration, *, name: str, account: str, region: str) -> FunctionStatus:
    """The state of a Function object whose spec stands for ``configuration``."""
    fields = obj.get("status") or {}
    if "state" not in fields:
        return FunctionStatus()
    serving = fields.get("serving")
    status = _states_of(
        fields,
        serving=None
        if serving is None
        else configuration_of(serving, code=code_of({"spec": serving}), name=name, account=account, region=region),
    )
    return states.updating(status) if _moved_on(obj, configuration) else status


def version_status_of(obj: Object) -> FunctionStatus:
    """The state of a FunctionVersion object, whose spec never changes."""
    fields = obj.get("status") or {}
    return _states_of(fields, serving=None) if "state" in fields else FunctionStatus()


def publication_of(fields: Object | None) -> Publication | None:
    if fields is None:
        return None
    return Publication(
        version=fields["version"],
        digest=fields["digest"],
        description=fields.get("description"),
        complete=fields.get("complete", False),
    )


def observation_lags(obj: Object) -> bool:
    """Whether the status has not yet been written for the current generation although nothing that counts as an update has
    changed: writing it once more, as it is, brings ``observedGeneration`` up."""
    return _observed(obj) < _generation(obj)


def spec_digest(configuration: Configuration, spec: Object) -> str:
    """16 hex digits that change exactly when a spec asks for another configuration or code."""
    if code_source(spec) is None:
        return configuration.digest()
    # The third has always been there: what was recorded before goes on saying the same.
    about = [configuration.digest(), code_digest(spec), None]
    return hashlib.sha256(msgspec.json.encode(about, order="sorted")).hexdigest()[:16]


def _moved_on(obj: Object, configuration: Configuration) -> bool:
    if _observed(obj) >= _generation(obj):
        return False
    digest = (obj.get("status") or {}).get("configurationDigest")
    return digest is None or digest != spec_digest(configuration, obj.get("spec") or {})


def _observed(obj: Object) -> int:
    observed: int = (obj.get("status") or {}).get("observedGeneration", 0)
    return observed


def _generation(obj: Object) -> int:
    generation: int = (obj.get("metadata") or {}).get("generation", 1)
    return generation


def _states_of(fields: Object, *, serving: Configuration | None) -> FunctionStatus:
    return FunctionStatus(
        state=fields["state"],
        state_reason=fields.get("stateReason"),
        state_reason_code=fields.get("stateReasonCode"),
        last_update_status=fields.get("lastUpdateStatus"),
        last_update_status_reason=fields.get("lastUpdateStatusReason"),
        last_update_status_reason_code=fields.get("lastUpdateStatusReasonCode"),
        serving=serving,
    )


# -- write -------------------------------------------------------------------------------------------------------------------
def function_status(function: Function, *, written: Object | None, now_ms: int | None) -> Fields:
    """``written`` is the object whose spec this status is about; None means the one that the API makes for ``function``."""
    spec = configuration_fields(function.configuration) if written is None else written.get("spec") or {}
    publication, serving, code = function.publication, function.status.serving, function.configuration.code
    return present(
        {
            **_states(function.status, written=written, now_ms=now_ms),
            "configurationDigest": spec_digest(function.configuration, spec),
            "serving": None if serving is None else configuration_fields(serving),
            "publication": None
            if publication is None
            else present(
                {
                    "version": publication.version,
                    "digest": publication.digest,
                    "description": publication.description,
                    "complete": publication.complete,
                }
            ),
            "code": _taken(code, spec),
            "lastModified": timestamp(function.modified_ms),
            "functionARN": function_arn(function.account, function.region, function.name),
            "version": LATEST,
            "codeSHA256": code_sha256(code.sha256) or None,
            "codeSize": code.size if code.sha256 else None,
        }
    )


def version_status(version: FunctionVersion, *, written: Object | None, now_ms: int | None) -> Fields:
    code = version.configuration.code
    return present(
        {
            **_states(version.status, written=written, now_ms=now_ms),
            "functionARN": function_arn(version.account, version.region, version.name, str(version.version)),
            "codeSHA256": code_sha256(code.sha256),
            "codeSize": code.size,
            "provisionedConcurrency": provisioned_status(version),
        }
    )


def alias_status(alias: Alias) -> Fields:
    return present({"provisionedConcurrency": provisioned_status(alias)})


def layer_version_status(layer: LayerVersion) -> Fields:
    return {
        "layerVersionARN": layer_arn(layer.account, layer.region, layer.name, layer.version),
        "codeSHA256": code_sha256(layer.code.sha256),
        "codeSize": layer.code.size,
        "deleted": layer.deleted,
    }


def event_source_mapping_status(mapping: EventSourceMapping) -> Fields:
    return {"state": mapping.state, "uuid": mapping.name, "functionARN": mapping.function_arn}


def _taken(code: Code, spec: Object) -> Fields | None:
    """``status.code``: the archive that was made of a source, and of which."""
    if code_source(spec) is None or not code.sha256:
        return None
    return {**archive_fields(code), "of": code_digest(spec)}


def _cut(reason: str | None) -> str | None:
    """A reason as long as the schema takes it: a status that is refused would never be written."""
    return None if reason is None else reason[:REASON_CHARACTERS]


def _states(status: FunctionStatus, *, written: Object | None, now_ms: int | None) -> Fields:
    fields: Fields = {
        "observedGeneration": _generation(written or {}),
        "state": status.state,
        "stateReason": _cut(status.state_reason),
        "stateReasonCode": status.state_reason_code,
        "lastUpdateStatus": status.last_update_status,
        "lastUpdateStatusReason": _cut(status.last_update_status_reason),
        "lastUpdateStatusReasonCode": status.last_update_status_reason_code,
    }
    if now_ms is not None:
        fields["conditions"] = [_code_ready(status, written=written or {}, now_ms=now_ms)]
    return fields


# -- conditions --------------------------------------------------------------------------------------------------------------
def condition(
    previous: Sequence[Object],
    *,
    type: str,
    status: Literal["True", "False", "Unknown"],
    reason: str,
    message: str,
    generation: int,
    now_ms: int,
) -> Fields:
    """One condition as it is to be written, given those that an object has: its transition time moves only with its status.

    ``reason`` is CamelCase; ``message`` is cut to what the schema takes.
    """
    since = timestamp(now_ms)[:19] + "Z"
    for one in previous:
        if one.get("type") == type and one.get("status") == status:
            since = one.get("lastTransitionTime", since)
    return {
        "type": type,
        "status": status,
        "reason": reason,
        "message": message[:_MESSAGE_CHARACTERS],
        "observedGeneration": generation,
        "lastTransitionTime": since,
    }


def _code_ready(status: FunctionStatus, *, written: Object, now_ms: int) -> Fields:
    ready: Literal["True", "False", "Unknown"] = "True"
    reason, message = "Settled", ""
    if status.last_update_status == "Failed" or status.state == "Failed":
        ready = "False"
        reason = status.last_update_status_reason_code or status.state_reason_code or "Failed"
        message = status.last_update_status_reason or status.state_reason or ""
    elif not states.is_settled(status):
        ready, reason = "Unknown", "InProgress"
        message = status.last_update_status_reason or status.state_reason or ""
    return condition(
        (written.get("status") or {}).get("conditions") or (),
        type=CODE_READY,
        status=ready,
        reason=reason,
        message=message,
        generation=_generation(written),
        now_ms=now_ms,
    )
