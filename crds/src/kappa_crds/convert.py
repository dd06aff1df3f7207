"""Between the core's resources and the API's objects: one resource is one object, whichever of the two was written first.

    to_object      a resource as the object that the API applies: metadata, labels, spec
    to_status      the part of a resource that Kappa found, for the object's status
    from_object    any object that the schemas let through as a resource

What the API made comes back exactly. A manifest of three lines comes back with AWS's defaults. Identity and versions come from the
API server alone: ``uid`` is ``metadata.uid``, ``resource_version`` and ``generation`` are ``metadata.resourceVersion``, which is
comparable by order (KEP-5504). Nothing here talks to anybody.

    ConversionError     an object of a kind that stands for no resource
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kappa_core.names import function_arn, split_function
from kappa_core.resources import (
    AccountId,
    Alias,
    Code,
    EventInvokeConfig,
    EventSourceMapping,
    Function,
    FunctionVersion,
    LayerVersion,
    Meta,
    Region,
    Resource,
)
from kappa_crds import labels, names, status
from kappa_crds.code import code_fields, code_of, is_made_of
from kappa_crds.configuration import Fields, configuration_fields, configuration_of, present
from kappa_crds.members import camel, pascal
from kappa_crds.policy import policy_of, statements
from kappa_crds.provisioned import FIELD, provisioned_of
from kappa_crds.times import milliseconds, timestamp

Object = dict[str, Any]


class ConversionError(ValueError):
    """See the module."""


# -- a resource as an object -------------------------------------------------------------------------------------------------
def to_object(
    resource: Resource,
    *,
    namespace: str,
    default_region: str,
    owner: names.Owner | None = None,
    current: Mapping[str, Any] | None = None,
) -> Object:
    """The object to apply for a resource.

    ``owner`` is the Function's object, for its children: it becomes their ownerReference, and without it they have none. With
    ``current``, the object as it is, its name and owner stay, and so does every part of its spec that already says what the
    resource says, in its own form: code that is written inline stays inline, a default that is left out stays left out.
    """
    kind = type(resource).__name__
    spec = _spec(resource)
    metadata = _metadata(resource, namespace=namespace, default_region=default_region, owner=owner, current=current)
    if current is not None:
        now = from_object(current, account=resource.account, default_region=default_region)
        spec = _keep(current.get("spec") or {}, wanted=spec, said=_spec(now), code=_code(resource))
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _spec(resource: Resource) -> Fields:
    match resource:
        case Function():
            return present(
                {
                    "functionName": resource.name,
                    **configuration_fields(resource.configuration),
                    "tags": dict(resource.tags),
                    "reservedConcurrentExecutions": resource.reserved_concurrency,
                    "recursiveLoop": resource.recursive_loop,
                }
            )
        case FunctionVersion():
            return {
                "functionName": resource.name,
                "version": resource.version,
                **configuration_fields(resource.configuration),
                **_provisioned(resource),
            }
        case Alias():
            return {
                "functionName": resource.name,
                "name": resource.alias,
                "functionVersion": resource.function_version,
                "description": resource.description,
                "routingConfig": {"additionalVersionWeights": dict(resource.additional_version_weights)},
                **_provisioned(resource),
            }
        case LayerVersion():
            return present(
                {
                    "layerName": resource.name,
                    "version": resource.version,
                    "content": code_fields(resource.code),
                    "description": resource.description,
                    "licenseInfo": resource.license_info,
                    "compatibleRuntimes": list(resource.compatible_runtimes),
                    "compatibleArchitectures": list(resource.compatible_architectures),
                    "policy": statements(resource.policy),
                }
            )
        case EventSourceMapping():
            return {**camel(resource.settings), "functionName": resource.function_arn}
        case EventInvokeConfig():
            return present(
                {
                    "functionName": resource.name,
                    "qualifier": resource.qualifier,
                    "maximumRetryAttempts": resource.maximum_retry_attempts,
                    "maximumEventAgeInSeconds": resource.maximum_event_age_seconds,
                    "destinationConfig": {
                        "onSuccess": {"destination": resource.on_success},
                        "onFailure": {"destination": resource.on_failure},
                    },
                }
            )


def _provisioned(resource: Alias | FunctionVersion) -> Fields:
    return {FIELD: resource.provisioned.requested} if resource.provisioned is not None and resource.provisioned.requested else {}


def _keep(current: Mapping[str, Any], *, wanted: Fields, said: Fields, code: Code | None) -> Fields:
    """``wanted``, with what ``current`` already says (read out in full: ``said``) left in the form that it has there."""
    kept: Fields = {}
    for field in {**current, **wanted}:
        if wanted.get(field) == said.get(field) or (field == "code" and code is not None and is_made_of(code, current)):
            if field in current:
                kept[field] = current[field]
        elif field in wanted:
            kept[field] = wanted[field]
    return kept


def _code(resource: Resource) -> Code | None:
    return resource.configuration.code if isinstance(resource, Function) else None


def _metadata(
    resource: Resource, *, namespace: str, default_region: str, owner: names.Owner | None, current: Mapping[str, Any] | None
) -> Fields:
    before: Mapping[str, Any] = {} if current is None else current["metadata"]
    parent = names.object_name(resource.name, region=resource.region, default_region=default_region)
    name = before.get("name") or names.key_name(resource.key, default_region=default_region, parent=owner.name if owner else None)
    found: dict[str, str | None] = {labels.REGION: resource.region if resource.region != default_region else None}
    notes: dict[str, str | None] = {}
    if resource.meta.created_ms and (current is None or labels.CREATED in (before.get("annotations") or {})):
        notes[labels.CREATED] = timestamp(resource.meta.created_ms)
    match resource:
        case FunctionVersion() | Alias() | EventInvokeConfig():
            found[labels.FUNCTION] = (before.get("labels") or {}).get(labels.FUNCTION) or (owner.name if owner else parent)
            notes[labels.FUNCTION_UID] = resource.function_uid or None
        case LayerVersion():
            found[labels.LAYER] = parent
        case _:
            pass
    if isinstance(resource, FunctionVersion | LayerVersion):
        found[labels.VERSION] = str(resource.version)
    if isinstance(resource, FunctionVersion | EventInvokeConfig):
        notes[labels.LAST_MODIFIED] = timestamp(resource.modified_ms)
    references = [_reference(owner)] if owner is not None else before.get("ownerReferences")
    return present(
        {
            "name": name,
            "namespace": namespace,
            "labels": present(found) or None,
            "annotations": present(notes) or None,
            "ownerReferences": references or None,
        }
    )


def _reference(owner: names.Owner) -> Fields:
    return {"apiVersion": names.API_VERSION, "kind": "Function", "name": owner.name, "uid": owner.uid, "controller": True}


def to_status(resource: Resource, *, written: Mapping[str, Any] | None = None, now_ms: int | None = None) -> Fields:
    """The status to write for a resource; empty for kinds of which Kappa's API finds out nothing.

    ``written`` is the object as the API server returned it with the spec that this status is about, None for one that the API has
    just made. With ``now_ms`` the condition ``CodeReady`` is part of it.
    """
    match resource:
        case Function():
            return status.function_status(resource, written=written, now_ms=now_ms)
        case FunctionVersion():
            return status.version_status(resource, written=written, now_ms=now_ms)
        case LayerVersion():
            return status.layer_version_status(resource)
        case EventSourceMapping():
            return status.event_source_mapping_status(resource)
        case Alias():
            return status.alias_status(resource)
        case EventInvokeConfig():
            return {}


# -- an object as a resource -------------------------------------------------------------------------------------------------
def from_object(obj: Mapping[str, Any], *, account: str, default_region: str) -> Resource:
    """The resource that an object stands for, in the account of its namespace. Raises ConversionError for any other kind."""
    read = _READERS.get(obj.get("kind", ""))
    if read is None or obj.get("apiVersion") != names.API_VERSION:
        raise ConversionError(f"{obj.get('apiVersion')} {obj.get('kind')} stands for no resource of {names.GROUP}")
    region = (obj["metadata"].get("labels") or {}).get(labels.REGION) or default_region
    return read(obj, AccountId(account), Region(region))


def function_name(obj: Mapping[str, Any]) -> str:
    """The name of a Function object's function."""
    name: str = (obj.get("spec") or {}).get("functionName") or obj["metadata"]["name"]
    return name


def _function(obj: Mapping[str, Any], account: AccountId, region: Region) -> Function:
    spec, found, name = obj.get("spec") or {}, obj.get("status") or {}, function_name(obj)
    configuration = configuration_of(spec, code=code_of(obj), name=name, account=account, region=region)
    state = status.function_status_of(obj, configuration, name=name, account=account, region=region)
    return Function(
        account=account,
        region=region,
        name=name,
        configuration=configuration,
        modified_ms=_function_modified_ms(obj, found, in_progress=state.last_update_status == "InProgress"),
        tags=dict(spec.get("tags") or {}),
        reserved_concurrency=spec.get("reservedConcurrentExecutions"),
        recursive_loop=spec.get("recursiveLoop", "Terminate"),
        publication=status.publication_of(found.get("publication")),
        status=state,
        meta=_meta(obj),
    )


def _function_modified_ms(obj: Mapping[str, Any], found: Mapping[str, Any], *, in_progress: bool) -> int:
    recorded = milliseconds(found.get("lastModified"))
    if recorded and not (in_progress and status.observation_lags(obj)):
        return recorded
    return max(recorded, _written_ms(obj["metadata"], status=False))


def _function_version(obj: Mapping[str, Any], account: AccountId, region: Region) -> FunctionVersion:
    spec = obj["spec"]
    name = spec["functionName"]
    return FunctionVersion(
        account=account,
        region=region,
        name=name,
        version=spec["version"],
        configuration=configuration_of(spec, code=code_of(obj), name=name, account=account, region=region),
        function_uid=_function_uid(obj["metadata"]),
        modified_ms=_modified_ms(obj["metadata"]),
        provisioned=provisioned_of(obj),
        status=status.version_status_of(obj),
        meta=_meta(obj),
    )


def _alias(obj: Mapping[str, Any], account: AccountId, region: Region) -> Alias:
    spec = obj["spec"]
    weights = (spec.get("routingConfig") or {}).get("additionalVersionWeights") or {}
    return Alias(
        account=account,
        region=region,
        name=spec["functionName"],
        alias=spec["name"],
        function_version=spec["functionVersion"],
        description=spec.get("description", ""),
        additional_version_weights={version: float(weight) for version, weight in weights.items()},
        provisioned=provisioned_of(obj),
        function_uid=_function_uid(obj["metadata"]),
        meta=_meta(obj),
    )


def _layer_version(obj: Mapping[str, Any], account: AccountId, region: Region) -> LayerVersion:
    spec = obj["spec"]
    return LayerVersion(
        account=account,
        region=region,
        name=spec["layerName"],
        version=spec["version"],
        code=code_of(obj),
        description=spec.get("description", ""),
        license_info=spec.get("licenseInfo"),
        compatible_runtimes=tuple(spec.get("compatibleRuntimes") or ()),
        compatible_architectures=tuple(spec.get("compatibleArchitectures") or ()),
        policy=policy_of(spec.get("policy") or ()),
        deleted=(obj.get("status") or {}).get("deleted", False),
        meta=_meta(obj),
    )


def _event_source_mapping(obj: Mapping[str, Any], account: AccountId, region: Region) -> EventSourceMapping:
    spec, metadata = obj["spec"], obj["metadata"]
    settings = {field: value for field, value in spec.items() if field != "functionName"}
    name: str = metadata["name"]
    return EventSourceMapping(
        account=account,
        region=region,
        name=name if names.is_uuid(name) else metadata.get("uid", ""),
        function_arn=_function_arn(spec["functionName"], account=account, region=region),
        settings=pascal(settings),
        state=(obj.get("status") or {}).get("state", "Creating"),
        meta=_meta(obj),
    )


def _function_arn(given: str, *, account: str, region: str) -> str:
    """Of the function that a mapping names in any of AWS's forms."""
    found = split_function(given)
    if found is None or given.startswith("arn:"):
        return given
    their_region, their_account, name, qualifier = found
    return function_arn(their_account or account, their_region or region, name, qualifier)


def _event_invoke_config(obj: Mapping[str, Any], account: AccountId, region: Region) -> EventInvokeConfig:
    spec = obj["spec"]
    destinations = spec.get("destinationConfig") or {}
    return EventInvokeConfig(
        account=account,
        region=region,
        name=spec["functionName"],
        qualifier=spec.get("qualifier", "$LATEST"),
        function_uid=_function_uid(obj["metadata"]),
        maximum_retry_attempts=spec.get("maximumRetryAttempts"),
        maximum_event_age_seconds=spec.get("maximumEventAgeInSeconds"),
        on_success=(destinations.get("onSuccess") or {}).get("destination", ""),
        on_failure=(destinations.get("onFailure") or {}).get("destination", ""),
        modified_ms=_modified_ms(obj["metadata"]),
        meta=_meta(obj),
    )


_READERS: dict[str, Callable[[Mapping[str, Any], AccountId, Region], Resource]] = {
    "Function": _function,
    "FunctionVersion": _function_version,
    "Alias": _alias,
    "LayerVersion": _layer_version,
    "EventSourceMapping": _event_source_mapping,
    "EventInvokeConfig": _event_invoke_config,
}


# -- metadata ----------------------------------------------------------------------------------------------------------------
def _meta(obj: Mapping[str, Any]) -> Meta:
    metadata = obj["metadata"]
    version = metadata.get("resourceVersion", "")
    created_ms = _created_ms(metadata)
    return Meta(
        uid=metadata.get("uid", ""),
        resource_version=version,
        generation=int(version) if version.isdecimal() else 0,
        edition=str(metadata.get("generation", "")),
        created_ms=created_ms,
        updated_ms=max(created_ms, _written_ms(metadata, status=True)),
    )


def _created_ms(metadata: Mapping[str, Any]) -> int:
    exact = milliseconds((metadata.get("annotations") or {}).get(labels.CREATED))
    return exact or milliseconds(metadata.get("creationTimestamp"))


def _modified_ms(metadata: Mapping[str, Any]) -> int:
    exact = milliseconds((metadata.get("annotations") or {}).get(labels.LAST_MODIFIED))
    return exact or _written_ms(metadata, status=False)


def _written_ms(metadata: Mapping[str, Any], *, status: bool) -> int:
    """When somebody last wrote the object, or with ``status`` false anything but its status: to the second."""
    times = [
        milliseconds(entry.get("time"))
        for entry in metadata.get("managedFields") or ()
        if status or entry.get("subresource") != "status"
    ]
    return max(times, default=_created_ms(metadata))


def _function_uid(metadata: Mapping[str, Any]) -> str:
    """Of the Function that a child belongs to; empty for one that nobody has adopted yet."""
    for reference in metadata.get("ownerReferences") or ():
        if reference["kind"] == "Function" and reference["apiVersion"].partition("/")[0] == names.GROUP:
            uid: str = reference["uid"]
            return uid
    adopted: str = (metadata.get("annotations") or {}).get(labels.FUNCTION_UID, "")
    return adopted
