"""One resource of every kind, or two where one cannot have everything, with a value for every member."""

from __future__ import annotations

import msgspec

import made
from kappa_core.names import function_arn, layer_arn
from kappa_core.resources import (
    DeadLetter,
    EventInvokeConfig,
    EventSourceMapping,
    FileSystem,
    FunctionStatus,
    Logging,
    ProvisionedConcurrency,
    ProvisionedState,
    Publication,
    Resource,
    ValueSource,
    VpcConfig,
)
from kappa_core.rules import states
from kappa_core.rules.layers import add_statement

_UUID = "0f1e2d3c-0000-4000-8000-000000000000"
_ARN = "arn:aws:sqs:eu-central-1:123456789012:jobs"
_KEY = "arn:aws:kms:eu-central-1:123456789012:key/1"


def full_resources() -> tuple[Resource, ...]:
    archive = msgspec.structs.replace(made.code(), source="s3://bucket/key", source_kms_key_arn=_KEY)
    configuration = made.configuration(
        description="All of it",
        environment={"STAGE": "tést", "EMPTY": ""},
        environment_from={
            "PASSWORD": ValueSource(kind="Secret", name="database", key="password", optional=True),
            "HOST": ValueSource(kind="ConfigMap", name="database", key="host", optional=True),
        },
        layers=(layer_arn(made.ACCOUNT, made.REGION, "tools", 3),),
        code=archive,
        architectures=("arm64",),
        dead_letter=DeadLetter(target_arn=_ARN),
        tracing_mode="Active",
        vpc_config=VpcConfig(subnet_ids=("subnet-2", "subnet-1"), security_group_ids=("sg-1",), ipv6_allowed_for_dual_stack=True),
        file_systems=(FileSystem(arn="arn:aws:elasticfilesystem:eu-central-1:1:access-point/fsap-1", local_mount_path="/mnt/a"),),
        kms_key_arn=_KEY,
        logging=Logging(log_format="JSON", application_log_level="DEBUG", system_log_level="WARN", log_group="/logs/here"),
        snap_start="PublishedVersions",
    )
    broken = states.failed(states.settled(configuration), reason="The runtime is not installed.", code=states.INVALID_RUNTIME)
    never = states.failed(FunctionStatus(), reason="The archive is broken.", code=states.INVALID_ZIP)
    function = made.function(
        configuration=configuration,
        tags={"team": "a/b", "empty": ""},
        reserved_concurrency=0,
        recursive_loop="Allow",
        publication=Publication(version=3, digest="0123456789abcdef", description="third", complete=True),
        status=broken,
    )
    layer = made.layer(
        description="Tools",
        license_info="MIT",
        compatible_runtimes=("python3.12", "nodejs22.x"),
        compatible_architectures=("x86_64", "arm64"),
        code=archive,
        deleted=True,
    )
    for sid, members in {
        "all": {"Principal": "*", "OrganizationId": "o-0123456789"},
        "one": {"Principal": "000000000000"},
    }.items():
        arn = layer_arn(layer.account, layer.region, layer.name, layer.version)
        layer = add_statement(layer, arn=arn, sid=sid, members={**members, "Action": "lambda:GetLayerVersion"})
    return (
        function,
        msgspec.structs.replace(function, name="never", status=never),
        msgspec.structs.replace(made.version(3, configuration=configuration, status=never), provisioned=_provisioned("3")),
        made.alias(to="3", description="Live", additional_version_weights={"2": 0.25}, provisioned=_provisioned("3")),
        made.alias("latest", to="$LATEST"),
        layer,
        _mapping(_UUID, {"EventSourceArn": _ARN, "ScalingConfig": {"MaximumConcurrency": 5}}),
        _mapping(
            f"1{_UUID[1:]}",
            {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a:9092", "b:9092"]}}},
        ),
        EventInvokeConfig(
            account=made.ACCOUNT,
            region=made.REGION,
            name="hello",
            qualifier="live",
            function_uid="uid-1",
            maximum_retry_attempts=1,
            maximum_event_age_seconds=60,
            on_success=_ARN,
            on_failure=_ARN,
            modified_ms=1,
        ),
    )


def _provisioned(version: str) -> ProvisionedConcurrency:
    state = ProvisionedState(
        requested=3,
        function_version=version,
        ready=1,
        allocated=2,
        status="FAILED",
        reason="no",
        revision="uid-1.3.0123456789abcdef",
        since_ms=1,
    )
    return ProvisionedConcurrency(requested=2, state=state)


def _mapping(uuid: str, source: dict[str, object]) -> EventSourceMapping:
    registry = {
        "SchemaRegistryURI": "https://registry",
        "EventRecordFormat": "JSON",
        "AccessConfigs": [{"Type": "BASIC_AUTH", "URI": "arn:aws:secretsmanager:x"}],
        "SchemaValidationConfigs": [{"Attribute": "KEY"}],
    }
    kafka = {"ConsumerGroupId": "group", "SchemaRegistryConfig": registry}
    return EventSourceMapping(
        account=made.ACCOUNT,
        region=made.REGION,
        name=uuid,
        function_arn=function_arn(made.ACCOUNT, made.REGION, "hello", "live"),
        settings={
            "Enabled": True,
            "BatchSize": 10,
            "FilterCriteria": {"Filters": [{"Pattern": '{"a": ["b"]}'}]},
            "KMSKeyArn": _KEY,
            "MetricsConfig": {"Metrics": ["EventCount"]},
            "LoggingConfig": {"SystemLogLevel": "INFO"},
            "MaximumBatchingWindowInSeconds": 0,
            "ParallelizationFactor": 2,
            "StartingPosition": "AT_TIMESTAMP",
            "StartingPositionTimestamp": 1_795_000_000.25,
            "DestinationConfig": {"OnSuccess": {"Destination": _ARN}, "OnFailure": {"Destination": _ARN}},
            "MaximumRecordAgeInSeconds": -1,
            "BisectBatchOnFunctionError": False,
            "MaximumRetryAttempts": -1,
            "Tags": {"Team": "A"},
            "TumblingWindowInSeconds": 0,
            "Topics": ["topic"],
            "Queues": ["queue"],
            "SourceAccessConfigurations": [{"Type": "VPC_SUBNET", "URI": "subnet:subnet-1"}],
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "AmazonManagedKafkaEventSourceConfig": kafka,
            "SelfManagedKafkaEventSourceConfig": {**kafka, "ConsumptionMode": "Stream"},
            "DocumentDBEventSourceConfig": {"DatabaseName": "d", "CollectionName": "c", "FullDocument": "Default"},
            "ProvisionedPollerConfig": {"MinimumPollers": 1, "MaximumPollers": 5, "PollerGroupName": "g"},
            **source,
        },
        state="Enabled",
    )
