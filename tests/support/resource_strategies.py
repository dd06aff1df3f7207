"""Hypothesis strategies for resources as the Lambda API makes them: every member, within the limits that the API enforces."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from kappa_core import limits
from kappa_core.names import function_arn, layer_arn
from kappa_core.resources import (
    LATEST,
    AccountId,
    Alias,
    Code,
    Configuration,
    DeadLetter,
    EventInvokeConfig,
    EventSourceMapping,
    FileSystem,
    Function,
    FunctionStatus,
    FunctionVersion,
    LayerVersion,
    Logging,
    ProvisionedConcurrency,
    ProvisionedState,
    Publication,
    Region,
    Resource,
    Sha256,
    ValueSource,
    VpcConfig,
)
from kappa_core.rules import states
from kappa_core.rules.layers import add_statement
from kappa_core.rules.runtimes import CREATABLE

ACCOUNT = AccountId("123456789012")
REGION = Region("eu-central-1")

_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
TEXT = st.characters(codec="utf-8")
"""What JSON and UTF-8 can carry."""
regions = st.sampled_from([REGION, Region("us-east-1")])
names = st.text(_NAME, min_size=1, max_size=limits.FUNCTION_NAME_LENGTH)
versions = st.integers(1, 10**12)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map(Sha256)
times = st.integers(0, 4_000_000_000_000)
arns = st.text("abc123:/-", max_size=30).map(lambda tail: f"arn:aws:sqs:eu-central-1:{ACCOUNT}:q{tail}")
keys = st.none() | st.just(f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1")
descriptions = st.text(TEXT, max_size=limits.DESCRIPTION_LENGTH)
variable_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{1,8}", fullmatch=True)
tags = st.dictionaries(st.text(_NAME + ":/ ", min_size=1, max_size=12), st.text(TEXT, max_size=20), max_size=4)
layers = st.lists(st.builds(lambda name, number: layer_arn(ACCOUNT, REGION, name, number), names, versions), max_size=5)

codes = st.builds(
    Code,
    sha256=digests,
    size=st.integers(0, limits.UNZIPPED_BYTES),
    unzipped_size=st.integers(0, limits.UNZIPPED_BYTES),
    source=st.just("upload") | st.text(TEXT, min_size=1, max_size=50).map(lambda key: f"s3://bucket/{key}"),
    source_kms_key_arn=keys,
)
log_groups = st.text(_NAME + "/#.", min_size=1, max_size=40)
loggings = st.builds(Logging, log_group=log_groups) | st.builds(
    Logging,
    log_format=st.just("JSON"),
    application_log_level=st.sampled_from(["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]),
    system_log_level=st.sampled_from(["DEBUG", "INFO", "WARN"]),
    log_group=log_groups,
)
configurations = st.builds(
    Configuration,
    runtime=st.sampled_from(CREATABLE),
    handler=st.text("abc./_", min_size=1, max_size=20),
    role=st.text(_NAME + "/", min_size=1, max_size=20).map(lambda role: f"arn:aws:iam::{ACCOUNT}:role/{role}"),
    description=descriptions,
    timeout=st.integers(1, limits.TIMEOUT_MAX),
    memory_size=st.integers(limits.MEMORY_MIN_MB, limits.MEMORY_MAX_MB),
    ephemeral_storage_mb=st.integers(limits.EPHEMERAL_MIN_MB, limits.EPHEMERAL_MAX_MB),
    environment=st.none() | st.dictionaries(variable_names, st.text(TEXT, max_size=20), max_size=5),
    environment_from=st.just(msgspec.UNSET)
    | st.dictionaries(
        variable_names.map("FROM_{}".format),
        st.builds(
            ValueSource,
            kind=st.sampled_from(["Secret", "ConfigMap"]),
            name=st.sampled_from(["database", "mail"]),
            key=st.text(_NAME, min_size=1, max_size=10),
            optional=st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
    layers=layers.map(tuple),
    code=codes,
    architectures=st.sampled_from([("x86_64",), ("arm64",)]),
    dead_letter=st.none() | st.builds(DeadLetter, target_arn=arns),
    tracing_mode=st.sampled_from(["Active", "PassThrough"]),
    vpc_config=st.none()
    | st.builds(
        VpcConfig,
        subnet_ids=st.lists(st.sampled_from(["subnet-1", "subnet-2", "subnet-3"]), max_size=3).map(tuple),
        security_group_ids=st.lists(st.sampled_from(["sg-1", "sg-2"]), max_size=2).map(tuple),
        ipv6_allowed_for_dual_stack=st.booleans(),
    ),
    file_systems=st.sampled_from([(), (FileSystem(arn="arn:aws:elasticfilesystem:x", local_mount_path="/mnt/a"),)]),
    kms_key_arn=keys,
    logging=loggings,
    snap_start=st.sampled_from(["None", "PublishedVersions"]),
)
reasons = st.text(TEXT, max_size=60)
codes_of_reasons = st.sampled_from([states.INVALID_RUNTIME, states.INVALID_ZIP, states.INTERNAL_ERROR])


@st.composite
def statuses(draw: st.DrawFn, configuration: Configuration | None) -> FunctionStatus:
    """Every state that the rules lead to; ``configuration`` is what may be served, None for a version's status."""
    status = FunctionStatus()
    for _ in range(draw(st.integers(0, 3))):
        match draw(st.sampled_from(["settled", "failed", "updating"])):
            case "settled":
                status = states.settled(configuration)
            case "failed":
                status = states.failed(status, reason=draw(reasons), code=draw(codes_of_reasons))
            case _:
                status = states.updating(status)
    return status


@st.composite
def functions(draw: st.DrawFn) -> Function:
    return Function(
        account=ACCOUNT,
        region=draw(regions),
        name=draw(names),
        configuration=draw(configurations),
        modified_ms=draw(times.filter(bool)),
        tags=draw(tags),
        reserved_concurrency=draw(st.none() | st.integers(0, 2**31 - 1)),
        recursive_loop=draw(st.sampled_from(["Terminate", "Allow"])),
        publication=draw(
            st.none()
            | st.builds(
                Publication,
                version=versions,
                digest=st.text("0123456789abcdef", min_size=16, max_size=16),
                description=st.none() | descriptions,
                complete=st.booleans(),
            )
        ),
        status=draw(configurations.flatmap(statuses)),
    )


@st.composite
def provisioned(draw: st.DrawFn) -> ProvisionedConcurrency | None:
    """With a time where the status tells it."""
    numbers = st.integers(0, 2**31 - 1)
    noted = st.builds(
        ProvisionedState,
        requested=numbers,
        function_version=versions.map(str),
        ready=numbers,
        allocated=numbers,
        status=st.sampled_from(["IN_PROGRESS", "READY", "FAILED"]),
        reason=st.none() | st.text(TEXT, min_size=1, max_size=40),
        since_ms=times,
        revision=st.just("") | st.just("0b7e.1.0123456789abcdef"),
    )
    state = draw(st.none() | noted)
    number = draw(numbers)
    modified_ms = state.since_ms if state is not None and state.requested == number and number else 0
    given = ProvisionedConcurrency(requested=number, modified_ms=modified_ms, state=state)
    return given if number or state is not None else None


@st.composite
def function_versions(draw: st.DrawFn) -> FunctionVersion:
    return FunctionVersion(
        account=ACCOUNT,
        region=draw(regions),
        name=draw(names),
        version=draw(versions),
        configuration=draw(configurations),
        function_uid=draw(st.uuids().map(str)),
        modified_ms=draw(times.filter(bool)),
        provisioned=draw(provisioned()),
        status=draw(statuses(None)),
    )


@st.composite
def aliases(draw: st.DrawFn) -> Alias:
    version = draw(st.just(LATEST) | versions.map(str))
    weights: st.SearchStrategy[dict[str, float]] = st.just({})
    if version != LATEST:
        others = versions.map(str).filter(lambda other: other != version)
        weights |= st.dictionaries(others, st.floats(0, 1), max_size=1)
    return Alias(
        account=ACCOUNT,
        region=draw(regions),
        name=draw(names),
        alias=draw(st.text(_NAME, min_size=1, max_size=128).filter(lambda alias: not alias.isdigit())),
        function_version=version,
        description=draw(descriptions),
        additional_version_weights=draw(weights),
        provisioned=draw(provisioned()) if version != LATEST else None,
        function_uid=draw(st.uuids().map(str)),
    )


@st.composite
def layer_versions(draw: st.DrawFn) -> LayerVersion:
    layer = LayerVersion(
        account=ACCOUNT,
        region=draw(regions),
        name=draw(st.text(_NAME, min_size=1, max_size=140)),
        version=draw(versions),
        code=draw(codes),
        description=draw(descriptions),
        license_info=draw(st.none() | st.text(TEXT, max_size=40)),
        compatible_runtimes=tuple(draw(st.lists(st.sampled_from(CREATABLE), max_size=15))),
        compatible_architectures=draw(st.sampled_from([(), ("arm64",), ("x86_64", "arm64")])),
        deleted=draw(st.booleans()),
    )
    for sid in draw(st.lists(st.text(_NAME, min_size=1, max_size=20), unique=True, max_size=3)):
        principal = draw(st.sampled_from(["*", "000000000000", "arn:aws:iam::000000000000:root"]))
        members: dict[str, Any] = {"Principal": principal, "Action": "lambda:GetLayerVersion"}
        if principal == "*" and draw(st.booleans()):
            members["OrganizationId"] = "o-0123456789"
        arn = layer_arn(layer.account, layer.region, layer.name, layer.version)
        layer = add_statement(layer, arn=arn, sid=sid, members=members)
    return layer


@st.composite
def event_invoke_configs(draw: st.DrawFn) -> EventInvokeConfig:
    return EventInvokeConfig(
        account=ACCOUNT,
        region=draw(regions),
        name=draw(names),
        qualifier=draw(st.just(LATEST) | versions.map(str) | st.just("live") | st.just("LIVE")),
        function_uid=draw(st.uuids().map(str)),
        maximum_retry_attempts=draw(st.none() | st.integers(0, 2)),
        maximum_event_age_seconds=draw(st.none() | st.integers(60, 21600)),
        on_success=draw(st.just("") | arns),
        on_failure=draw(st.just("") | arns),
        modified_ms=draw(times.filter(bool)),
    )


_KAFKA: dict[str, Any] = {
    "ConsumerGroupId": "group",
    "SchemaRegistryConfig": {
        "SchemaRegistryURI": "https://registry",
        "EventRecordFormat": "JSON",
        "AccessConfigs": [{"Type": "BASIC_AUTH", "URI": "arn:aws:secretsmanager:x"}],
        "SchemaValidationConfigs": [{"Attribute": "KEY"}],
    },
}
_SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "Enabled": st.booleans(),
    "BatchSize": st.integers(1, 10),
    "FilterCriteria": st.just({"Filters": [{"Pattern": '{"a": ["b"]}'}]}),
    "KMSKeyArn": st.just(f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1"),
    "MetricsConfig": st.just({"Metrics": ["EventCount"]}),
    "LoggingConfig": st.just({"SystemLogLevel": "INFO"}),
    "ScalingConfig": st.just({"MaximumConcurrency": 5}),
    "MaximumBatchingWindowInSeconds": st.integers(1, 300),
    "ParallelizationFactor": st.integers(1, 10),
    "StartingPositionTimestamp": st.integers(1, 4_000_000_000) | st.integers(1, 4 * 10**12).map(lambda ms: ms / 1000),
    "StartingPosition": st.sampled_from(["LATEST", "TRIM_HORIZON"]),
    "DestinationConfig": st.just({"OnSuccess": {}, "OnFailure": {"Destination": "arn:aws:sqs:x"}}),
    "MaximumRecordAgeInSeconds": st.integers(-1, 604_800),
    "BisectBatchOnFunctionError": st.booleans(),
    "MaximumRetryAttempts": st.integers(-1, 10_000),
    "Tags": tags,
    "TumblingWindowInSeconds": st.integers(0, 900),
    "Topics": st.just(["topic"]),
    "Queues": st.just(["queue"]),
    "SourceAccessConfigurations": st.just([{"Type": "VPC_SUBNET", "URI": "subnet:subnet-1"}]),
    "FunctionResponseTypes": st.just(["ReportBatchItemFailures"]),
    "AmazonManagedKafkaEventSourceConfig": st.just(_KAFKA),
    "SelfManagedKafkaEventSourceConfig": st.just({**_KAFKA, "ConsumptionMode": "Stream"}),
    "DocumentDBEventSourceConfig": st.just({"DatabaseName": "d", "CollectionName": "c", "FullDocument": "Default"}),
    "ProvisionedPollerConfig": st.just({"MinimumPollers": 1, "MaximumPollers": 5, "PollerGroupName": "g"}),
}


@st.composite
def event_source_mappings(draw: st.DrawFn) -> EventSourceMapping:
    source: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"EventSourceArn": f"arn:aws:sqs:eu-central-1:{ACCOUNT}:jobs"},
                {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a:9092", "b:9092"]}}, "Topics": ["t"]},
            ]
        )
    )
    chosen: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=_SETTINGS))
    if "EventSourceArn" not in source:
        chosen.pop("ScalingConfig", None)
    return EventSourceMapping(
        account=ACCOUNT,
        region=REGION,
        name=str(draw(st.uuids())),
        function_arn=function_arn(ACCOUNT, REGION, draw(names), draw(st.none() | st.just("live"))),
        settings={**chosen, **source},
        state=draw(st.sampled_from(["Creating", "Enabled", "Disabled"])),
    )


resources: st.SearchStrategy[Resource] = st.one_of(
    functions(), function_versions(), aliases(), layer_versions(), event_source_mappings(), event_invoke_configs()
)
