"""How resources look in answers: AWS's member names, dates and ARNs. Members without a value are left out, as AWS does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kappa_core.names import LayerName, function_arn, layer_arn
from kappa_core.resources import LATEST, Alias, Configuration, Function, FunctionStatus, FunctionVersion, LayerVersion
from kappa_core.rules.publish import code_sha256
from kappa_core.rules.revision import revision_id

Members = dict[str, Any]
Layers = Mapping[str, LayerVersion]


def timestamp(epoch_ms: int) -> str:
    """Such as ``2026-11-21T10:30:00.000+0000``."""
    moment = datetime.fromtimestamp(epoch_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{epoch_ms % 1000:03d}+0000"


def latest_view(function: Function, layers: Layers, *, qualifier: str | None = None, states: bool = True) -> Members:
    """FunctionConfiguration of $LATEST. Lists leave ``states`` out."""
    return _function_configuration(
        function.configuration,
        name=function.name,
        arn=function_arn(function.account, function.region, function.name, qualifier),
        version=LATEST,
        modified_ms=function.modified_ms,
        revision=revision_id(function),
        status=function.status if states else None,
        layers=layers,
    )


def version_view(version: FunctionVersion, layers: Layers, *, qualifier: str | None = None, states: bool = True) -> Members:
    """FunctionConfiguration of a published version; ``qualifier`` is the alias it was reached by."""
    return _function_configuration(
        version.configuration,
        name=version.name,
        arn=function_arn(version.account, version.region, version.name, qualifier or str(version.version)),
        version=str(version.version),
        modified_ms=version.modified_ms,
        revision=revision_id(version),
        status=version.status if states else None,
        layers=layers,
    )


def _function_configuration(
    configuration: Configuration,
    *,
    name: str,
    arn: str,
    version: str,
    modified_ms: int,
    revision: str,
    status: FunctionStatus | None,
    layers: Layers,
) -> Members:
    members: Members = {
        "FunctionName": name,
        "FunctionArn": arn,
        "Runtime": configuration.runtime,
        "Role": configuration.role,
        "Handler": configuration.handler,
        "CodeSize": configuration.code.size,
        "Description": configuration.description,
        "Timeout": configuration.timeout,
        "MemorySize": configuration.memory_size,
        "LastModified": timestamp(modified_ms),
        "CodeSha256": code_sha256(configuration.code.sha256),
        "Version": version,
        "VpcConfig": _vpc(configuration),
        "DeadLetterConfig": None if configuration.dead_letter is None else {"TargetArn": configuration.dead_letter.target_arn},
        "Environment": None if configuration.environment is None else {"Variables": dict(configuration.environment)},
        "KMSKeyArn": configuration.kms_key_arn,
        "TracingConfig": {"Mode": configuration.tracing_mode},
        "RevisionId": revision,
        "Layers": [
            {"Arn": layer, "CodeSize": layers[layer].code.size if layer in layers else 0} for layer in configuration.layers
        ]
        or None,
        "FileSystemConfigs": [{"Arn": one.arn, "LocalMountPath": one.local_mount_path} for one in configuration.file_systems]
        or None,
        "PackageType": configuration.package_type,
        "Architectures": list(configuration.architectures),
        "EphemeralStorage": {"Size": configuration.ephemeral_storage_mb},
        "SnapStart": {"ApplyOn": configuration.snap_start, "OptimizationStatus": "Off"},
        "LoggingConfig": _logging(configuration),
    }
    if status is not None:
        members |= {
            "State": status.state,
            "StateReason": status.state_reason,
            "StateReasonCode": status.state_reason_code,
            "LastUpdateStatus": status.last_update_status,
            "LastUpdateStatusReason": status.last_update_status_reason,
            "LastUpdateStatusReasonCode": status.last_update_status_reason_code,
        }
    return present(members)


def _vpc(configuration: Configuration) -> Members | None:
    vpc = configuration.vpc_config
    if vpc is None:
        return None
    return {
        "SubnetIds": list(vpc.subnet_ids),
        "SecurityGroupIds": list(vpc.security_group_ids),
        "VpcId": "",
        "Ipv6AllowedForDualStack": vpc.ipv6_allowed_for_dual_stack,
    }


def _logging(configuration: Configuration) -> Members:
    logging = configuration.logging
    return present(
        {
            "LogFormat": logging.log_format,
            "ApplicationLogLevel": logging.application_log_level,
            "SystemLogLevel": logging.system_log_level,
            "LogGroup": logging.log_group,
        }
    )


def alias_view(alias: Alias) -> Members:
    """AliasConfiguration."""
    members: Members = {
        "AliasArn": function_arn(alias.account, alias.region, alias.name, alias.alias),
        "Name": alias.alias,
        "FunctionVersion": alias.function_version,
        "Description": alias.description,
        "RevisionId": revision_id(alias),
    }
    if alias.additional_version_weights:
        members["RoutingConfig"] = {"AdditionalVersionWeights": dict(alias.additional_version_weights)}
    return members


def layer_version_view(layer: LayerVersion) -> Members:
    """LayerVersionsListItem."""
    return present(
        {
            "LayerVersionArn": LayerName(layer.account, layer.region, layer.name, layer.version).arn,
            "Version": layer.version,
            "Description": layer.description,
            "CreatedDate": timestamp(layer.meta.created_ms),
            "CompatibleRuntimes": list(layer.compatible_runtimes) or None,
            "CompatibleArchitectures": list(layer.compatible_architectures) or None,
            "LicenseInfo": layer.license_info,
        }
    )


def layer_view(layer: LayerVersion, *, location: str) -> Members:
    """The answer of PublishLayerVersion and GetLayerVersion; ``location`` downloads the archive."""
    return {
        "Content": {
            "Location": location,
            "CodeSha256": code_sha256(layer.code.sha256),
            "CodeSize": layer.code.size,
        },
        "LayerArn": layer_arn(layer.account, layer.region, layer.name),
        **layer_version_view(layer),
    }


def present(members: Members) -> Members:
    """The members that have a value."""
    return {name: value for name, value in members.items() if value is not None}
