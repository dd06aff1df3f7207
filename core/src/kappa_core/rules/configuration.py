"""From the members of CreateFunction and UpdateFunctionConfiguration to a configuration: defaults, merging, and what is refused.

Create starts from AWS's defaults, update from the current configuration: a member that is absent stays, a structure that is given
replaces the whole old one. What needs other resources (layers, code) is checked elsewhere; types and lengths were checked against
the service model before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kappa_core import limits
from kappa_core.constraints import at_most, refuse
from kappa_core.errors import CodeSigningConfigNotFoundException, InvalidParameterValueException
from kappa_core.limits import Limits
from kappa_core.resources import Code, Configuration, DeadLetter, FileSystem, Logging, Sha256, VpcConfig
from kappa_core.rules.environment import check_variables
from kappa_core.rules.runtimes import check_runtime, check_snap_start
from kappa_core.rules.source import NO_IMAGES

Members = Mapping[str, Any]

_UNSUPPORTED: Final = (
    "AcceleratorConfig",
    "CapacityProviderConfig",
    "DurableConfig",
    "PublishTo",
    "RuntimeConfig",
    "TenancyConfig",
)


NO_CODE: Final = Code(sha256=Sha256(""), size=0, unzipped_size=0)
"""In place of code that has not been taken in yet."""


def created(members: Members, *, name: str, bounds: Limits) -> Configuration:
    """The configuration of a new function, still without its code: what is wrong with a request is said before its archive is
    read, and so leaves nothing behind.

    Raises
    ------
    InvalidParameterValueException
        For what cannot be combined, is reserved, or cannot run here.
    ValidationException
        For numbers over the limits.
    CodeSigningConfigNotFoundException
        For any code signing configuration: none can exist here.
    """
    _check_creatable(members)
    default = Configuration(
        runtime=members["Runtime"],
        handler=members["Handler"],
        role=members["Role"],
        timeout=limits.TIMEOUT_DEFAULT,
        memory_size=limits.MEMORY_MIN_MB,
        ephemeral_storage_mb=limits.EPHEMERAL_MIN_MB,
        code=NO_CODE,
        architectures=tuple(members.get("Architectures") or ("x86_64",)),
        logging=Logging(log_group=f"/aws/lambda/{name}"),
    )
    return updated(default, members, bounds=bounds)


def _check_creatable(members: Members) -> None:
    if members.get("PackageType", "Zip") != "Zip":
        raise InvalidParameterValueException(NO_IMAGES)
    if not members.get("Runtime") or not members.get("Handler"):
        raise InvalidParameterValueException(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages."
        )
    signing = members.get("CodeSigningConfigArn")
    if signing is not None:
        raise CodeSigningConfigNotFoundException(
            f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {signing}."
        )


def updated(current: Configuration, members: Members, *, bounds: Limits) -> Configuration:
    """The configuration with the given members in place of the current ones. Raises as :func:`created` does."""
    for name in _UNSUPPORTED:
        if members.get(name) is not None:
            raise InvalidParameterValueException(f"{name} is not supported here: leave it out.")
    if members.get("ImageConfig"):
        raise InvalidParameterValueException(NO_IMAGES)
    refuse(
        [
            at_most(members.get("MemorySize", 0), bounds.memory_max_mb, "memorySize"),
            at_most(members.get("Timeout", 0), bounds.timeout_max, "timeout"),
            at_most(members.get("EphemeralStorage", {}).get("Size", 0), limits.EPHEMERAL_MAX_MB, "ephemeralStorage.size"),
        ]
    )
    changes: dict[str, Any] = {
        field: members[member]
        for member, field in (
            ("Role", "role"),
            ("Handler", "handler"),
            ("Description", "description"),
            ("Timeout", "timeout"),
            ("MemorySize", "memory_size"),
        )
        if member in members
    }
    if "Runtime" in members:
        check_runtime(members["Runtime"])
        changes["runtime"] = members["Runtime"]
    if "EphemeralStorage" in members:
        changes["ephemeral_storage_mb"] = members["EphemeralStorage"]["Size"]
    if "Environment" in members:
        variables = dict(members["Environment"].get("Variables") or {})
        check_variables(variables)
        changes["environment"] = variables
    if "Layers" in members:
        changes["layers"] = tuple(members["Layers"])
    if "DeadLetterConfig" in members:
        target = members["DeadLetterConfig"].get("TargetArn")
        changes["dead_letter"] = DeadLetter(target_arn=target) if target else None
    if "TracingConfig" in members:
        changes["tracing_mode"] = members["TracingConfig"].get("Mode", "PassThrough")
    if "VpcConfig" in members:
        changes["vpc_config"] = _vpc(members["VpcConfig"])
    if "FileSystemConfigs" in members:
        changes["file_systems"] = tuple(
            FileSystem(arn=one["Arn"], local_mount_path=one["LocalMountPath"]) for one in members["FileSystemConfigs"]
        )
    if "KMSKeyArn" in members:
        changes["kms_key_arn"] = members["KMSKeyArn"] or None
    if "LoggingConfig" in members:
        changes["logging"] = _logging(current.logging, members["LoggingConfig"])
    if "SnapStart" in members:
        changes["snap_start"] = members["SnapStart"].get("ApplyOn", "None")
    changed = msgspec.structs.replace(current, **changes)
    if changed.snap_start != "None" and ("SnapStart" in members or "Runtime" in members):
        check_snap_start(changed.runtime or "")
    return changed


def with_code(current: Configuration, code: Code, *, architectures: list[str] | None) -> Configuration:
    """The configuration with other code, as UpdateFunctionCode changes it."""
    if architectures:
        return msgspec.structs.replace(current, code=code, architectures=tuple(architectures))
    return msgspec.structs.replace(current, code=code)


def _vpc(given: Members) -> VpcConfig:
    return VpcConfig(
        subnet_ids=tuple(given.get("SubnetIds") or ()),
        security_group_ids=tuple(given.get("SecurityGroupIds") or ()),
        ipv6_allowed_for_dual_stack=bool(given.get("Ipv6AllowedForDualStack", False)),
    )


def _logging(current: Logging, given: Members) -> Logging:
    log_format = given.get("LogFormat", current.log_format)
    log_group = given.get("LogGroup", current.log_group)
    levels = (given.get("ApplicationLogLevel"), given.get("SystemLogLevel"))
    if log_format == "Text":
        if any(levels):
            raise InvalidParameterValueException(
                'LogLevel is not supported when LogFormat is set to "Text". '
                'Remove LogLevel from your request or change the LogFormat to "JSON" and try again.'
            )
        return Logging(log_format="Text", log_group=log_group)
    return Logging(
        log_format="JSON",
        application_log_level=levels[0] or current.application_log_level or "INFO",
        system_log_level=levels[1] or current.system_log_level or "INFO",
        log_group=log_group,
    )
