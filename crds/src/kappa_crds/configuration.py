"""A function's configuration as fields of an object, named as ACK's lambda-controller names them, and back.

The same fields stand in the spec of a Function and of a FunctionVersion and, of what invocations run on, in ``status.serving``.
Written out in full, defaults included, so that a value which another field owner holds is never left standing by being left out;
read with AWS's defaults, so that a manifest can leave out what AWS lets callers leave out. Container images are no source of code
here, so their ``imageConfig`` has no field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from kappa_core import limits
from kappa_core.names import layer_arn, partition
from kappa_core.resources import Code, Configuration, DeadLetter, FileSystem, Logging, ValueSource, VpcConfig
from kappa_crds.code import code_fields

DEFAULT_ROLE: Final = "kappa-default"
"""Name of the role of functions whose manifest names none."""
_REFERENCES: Final = {"Secret": "secretKeyRef", "ConfigMap": "configMapKeyRef"}

Fields = dict[str, Any]


def configuration_fields(configuration: Configuration) -> Fields:
    """The fields of a spec. What has no value is left out."""
    logging, vpc = configuration.logging, configuration.vpc_config
    fields: Fields = {
        "runtime": configuration.runtime,
        "handler": configuration.handler,
        "role": configuration.role,
        "description": configuration.description,
        "timeout": configuration.timeout,
        "memorySize": configuration.memory_size,
        "ephemeralStorage": {"size": configuration.ephemeral_storage_mb},
        "environment": _environment_fields(configuration) or None,
        "layers": list(configuration.layers),
        "code": code_fields(configuration.code),
        "packageType": configuration.package_type,
        "architectures": list(configuration.architectures),
        "deadLetterConfig": None if configuration.dead_letter is None else {"targetARN": configuration.dead_letter.target_arn},
        "tracingConfig": {"mode": configuration.tracing_mode},
        "vpcConfig": None
        if vpc is None
        else {
            "subnetIDs": list(vpc.subnet_ids),
            "securityGroupIDs": list(vpc.security_group_ids),
            "ipv6AllowedForDualStack": vpc.ipv6_allowed_for_dual_stack,
        },
        "fileSystemConfigs": [{"arn": one.arn, "localMountPath": one.local_mount_path} for one in configuration.file_systems],
        "kmsKeyARN": configuration.kms_key_arn,
        "loggingConfig": present(
            {
                "logFormat": logging.log_format,
                "applicationLogLevel": logging.application_log_level,
                "systemLogLevel": logging.system_log_level,
                "logGroup": logging.log_group,
            }
        ),
        "snapStart": {"applyOn": configuration.snap_start},
    }
    return present(fields)


def configuration_of(fields: Mapping[str, Any], *, code: Code, name: str, account: str, region: str) -> Configuration:
    """The configuration that a spec stands for. ``name`` is the function's, for the default log group."""
    environment, vpc = fields.get("environment") or {}, fields.get("vpcConfig")
    values = {name: _value_source(one) for name, one in (environment.get("valueFrom") or {}).items()}
    target = (fields.get("deadLetterConfig") or {}).get("targetARN")
    return Configuration(
        runtime=fields.get("runtime"),
        handler=fields.get("handler"),
        role=_role(fields.get("role"), account=account, region=region),
        description=fields.get("description", ""),
        timeout=fields.get("timeout", limits.TIMEOUT_DEFAULT),
        memory_size=fields.get("memorySize", limits.MEMORY_MIN_MB),
        ephemeral_storage_mb=(fields.get("ephemeralStorage") or {}).get("size", limits.EPHEMERAL_MIN_MB),
        environment=_variables(fields.get("environment")),
        environment_from=values or msgspec.UNSET,
        layers=tuple(_layer(one, account=account, region=region) for one in fields.get("layers") or ()),
        code=code,
        package_type=fields.get("packageType", "Zip"),
        architectures=tuple(fields.get("architectures") or ("x86_64",)),
        dead_letter=DeadLetter(target_arn=target) if target else None,
        tracing_mode=(fields.get("tracingConfig") or {}).get("mode", "PassThrough"),
        vpc_config=None
        if vpc is None
        else VpcConfig(
            subnet_ids=tuple(vpc.get("subnetIDs") or ()),
            security_group_ids=tuple(vpc.get("securityGroupIDs") or ()),
            ipv6_allowed_for_dual_stack=vpc.get("ipv6AllowedForDualStack", False),
        ),
        file_systems=tuple(
            FileSystem(arn=one["arn"], local_mount_path=one["localMountPath"]) for one in fields.get("fileSystemConfigs") or ()
        ),
        kms_key_arn=fields.get("kmsKeyARN") or None,
        logging=_logging(fields.get("loggingConfig") or {}, name=name),
        snap_start=(fields.get("snapStart") or {}).get("applyOn", "None"),
    )


def value_reference(source: ValueSource) -> Fields:
    """In a function's ``environment.valueFrom`` as in a container's ``env``."""
    return {_REFERENCES[source.kind]: {"name": source.name, "key": source.key, **({"optional": True} if source.optional else {})}}


def _environment_fields(configuration: Configuration) -> Fields:
    fields: Fields = {} if configuration.environment is None else {"variables": dict(configuration.environment)}
    if configuration.value_sources:
        fields["valueFrom"] = {name: value_reference(source) for name, source in configuration.value_sources.items()}
    return fields


def _variables(environment: Mapping[str, Any] | None) -> dict[str, str] | None:
    """A block with nothing but references has never had variables of its own."""
    if environment is None or ("variables" not in environment and environment.get("valueFrom")):
        return None
    return dict(environment.get("variables") or {})


def _value_source(fields: Mapping[str, Any]) -> ValueSource:
    kind: Literal["Secret", "ConfigMap"] = "Secret" if "secretKeyRef" in fields else "ConfigMap"
    given = fields[_REFERENCES[kind]]
    return ValueSource(kind=kind, name=given["name"], key=given["key"], optional=given.get("optional", False))


def _logging(fields: Mapping[str, Any], *, name: str) -> Logging:
    json = fields.get("logFormat") == "JSON"
    level = "INFO" if json else None  # what AWS takes where JSON is asked for and no level
    return Logging(
        log_format="JSON" if json else "Text",
        application_log_level=fields.get("applicationLogLevel", level),
        system_log_level=fields.get("systemLogLevel", level),
        log_group=fields.get("logGroup") or f"/aws/lambda/{name}",
    )


def _role(given: str | None, *, account: str, region: str) -> str:
    """An ARN is kept; a name means a role of the object's own account."""
    if given and given.startswith("arn:"):
        return given
    return f"arn:{partition(region)}:iam::{account}:role/{given or DEFAULT_ROLE}"


def _layer(given: str, *, account: str, region: str) -> str:
    """An ARN is kept; ``<layer>:<version>`` means a layer of the object's own account and region."""
    if given.startswith("arn:"):
        return given
    name, _, version = given.partition(":")
    return layer_arn(account, region, name, int(version)) if version.isdecimal() else given


def present(fields: Fields) -> Fields:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
