"""The custom resources on a real API server: what it takes, what it refuses and in which words, what kubectl shows, and that
a resource which goes through it comes back as it was."""

from __future__ import annotations

import asyncio
import copy
import json
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

import made
from full_resources import full_resources
from kappa_cluster import SCRIPTS, Cluster, CommandError, run
from kappa_core.resources import Alias, Function, FunctionStatus, FunctionVersion, Meta, Resource
from kappa_core.rules import states
from kappa_crds import names
from kappa_crds.api import Invalid, KubernetesApi, Object, api_path
from kappa_crds.convert import from_object, to_object, to_status
from kappa_crds.definitions import definitions
from resource_strategies import resources
from served_objects import function_manifest
from structural_schema import root_schema, walk

T = TypeVar("T")
REGION = "eu-central-1"
ARCHIVE = {"sha256": "a" * 64, "size": 10, "unzippedSize": 20, "source": "upload"}
SQS, KINESIS, KAFKA = (f"arn:aws:{service}:eu-central-1:123456789012:one" for service in ("sqs", "kinesis", "kafka"))


@pytest.fixture(scope="module", autouse=True)
def _applied(cluster: Cluster) -> None:
    run(str(SCRIPTS / "kappa"), "crds", "apply")


@pytest.fixture(scope="module")
def place(cluster: Cluster) -> Iterator[str]:
    """A namespace of no account: neither gateways nor operators look into it."""
    with cluster.namespace(f"kappa-resources-{secrets.token_hex(3)}") as name:
        yield name


def _with_api(work: Callable[[KubernetesApi], Awaitable[T]]) -> T:
    async def scenario() -> T:
        api = await KubernetesApi.connect()
        try:
            return await work(api)
        finally:
            await api.close()

    return asyncio.run(scenario())


def _path(obj: Object, *, named: bool = True, subresource: str = "") -> str:
    name = obj["metadata"]["name"] if named else ""
    return api_path(
        names.API_VERSION, names.KINDS[obj["kind"]], namespace=obj["metadata"]["namespace"], name=name, subresource=subresource
    )


def _manifest(kind: str, name: str, /, **spec: Any) -> Object:
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _created(manifest: Object, *, namespace: str, dry: bool = True) -> Object:
    obj = copy.deepcopy(manifest)
    obj["metadata"]["namespace"] = namespace
    path = _path(obj, named=False) + ("?dryRun=All" if dry else "")
    return _with_api(lambda api: api.create(path, obj, field_manager="kubectl-create"))


def _refusal(manifest: Object, *, namespace: str) -> str:
    with pytest.raises(Invalid) as refused:
        _created(manifest, namespace=namespace)
    return refused.value.message


# -- what is taken -----------------------------------------------------------------------------------------------------------
def test_the_definitions_are_accepted_whole_and_may_be_applied_again(cluster: Cluster) -> None:
    assert run(str(SCRIPTS / "kappa"), "crds", "apply").count("applied") == len(definitions())
    for definition in definitions():
        found = cluster.get("crd", definition["metadata"]["name"])
        assert found is not None
        conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}  # a third one would say NonStructuralSchema


def test_kubectl_takes_the_files_themselves_and_what_kappa_prints(cluster: Cluster) -> None:
    printed = run(str(SCRIPTS / "kappa"), "crds", "print")
    for manifest, what in ((printed, "-"), (None, "crds")):
        said = cluster.kubectl(
            "apply", "--server-side", "--dry-run=server", "--field-manager=kappa-crds", "--filename", what, stdin=manifest
        )
        assert said.count("serverside-applied") == len(definitions())


GOOD = {
    "inline": function_manifest(),
    "configMap": function_manifest(code={"configMap": {"name": "files"}}),
    "configMap entry": function_manifest(code={"configMap": {"name": "files", "key": "code.zip"}}),
    "s3": function_manifest(code={"s3Bucket": "bucket", "s3Key": "a/b.zip", "s3ObjectVersion": "1"}),
    "https": function_manifest(code={"https": {"url": "https://example.com/a.zip", "sha256": "b" * 64}}),
    "secret": function_manifest(
        environment={"variables": {"AB": "1"}, "valueFrom": {"PW": {"secretKeyRef": {"name": "a", "key": "b"}}}}
    ),
    "config map value": function_manifest(
        environment={"valueFrom": {"PW": {"configMapKeyRef": {"name": "a", "key": "b", "optional": True}}}}
    ),
    "other name": function_manifest("hello-fn", functionName="Hello_Function"),
    "compiled": function_manifest(runtime="java21", code={"configMap": {"name": "jar", "key": "a.jar"}}),
    "layer": _manifest("Layer", "tools", content={"configMap": {"name": "files"}}, compatibleRuntimes=["python3.12"]),
    "alias": _manifest("Alias", "hello-live", functionName="hello", name="live", functionVersion="1"),
    "weights": _manifest(
        "Alias",
        "hello-live",
        functionName="hello",
        name="live",
        functionVersion="1",
        routingConfig={"additionalVersionWeights": {"2": 0.1}},
        provisionedConcurrentExecutions=2,
    ),
    "queue": _manifest("EventSourceMapping", "jobs", functionName="hello:live", eventSourceARN=SQS, batchSize=10),
    "stream": _manifest("EventSourceMapping", "jobs", functionName="hello", eventSourceARN=KINESIS, startingPosition="LATEST"),
    "retries": _manifest("EventInvokeConfig", "hello", functionName="hello", maximumRetryAttempts=0),
}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_good_manifests_are_taken(name: str, place: str) -> None:
    assert _created(GOOD[name], namespace=place)["spec"].items() >= GOOD[name]["spec"].items()


def test_defaults_are_filled_in(place: str) -> None:
    spec = _created(function_manifest(), namespace=place)["spec"]
    assert (spec["timeout"], spec["memorySize"], spec["ephemeralStorage"], spec["architectures"]) == (
        3,
        128,
        {"size": 512},
        ["x86_64"],
    )


# -- what is refused ---------------------------------------------------------------------------------------------------------
def _alias(**changes: Any) -> Object:
    return _manifest("Alias", "live", **{"functionName": "hello", "name": "live", "functionVersion": "1", **changes})


def _mapping(**spec: Any) -> Object:
    return _manifest("EventSourceMapping", "jobs", **{"functionName": "hello", **spec})


def _named(manifest: Object, name: str) -> Object:
    return {**manifest, "metadata": {"name": name}}


LAYER = _manifest("Layer", "tools", content={"configMap": {"name": "files"}})
INLINE = {"inline": "x"}
REFUSED: list[tuple[Object, str]] = [
    # Rules.
    (_named(function_manifest(), "a" * 41), "metadata.name must be at most 40"),
    (_named(function_manifest(), "a.b"), "metadata.name must be at most 40"),
    (function_manifest(runtime="java21"), "code.inline is source text"),
    (function_manifest(code={}), "code needs exactly one of"),
    (function_manifest(code={**INLINE, "configMap": {"name": "a"}}), "code needs exactly one of"),
    (function_manifest(code={"s3Bucket": "bucket"}), "code.s3Bucket and code.s3Key go together"),
    (function_manifest(code={**INLINE, "s3ObjectVersion": "1"}), "code.s3ObjectVersion needs code.s3Bucket"),
    (function_manifest(environment={"variables": {"1A": ""}}), "names of environment variables are"),
    (function_manifest(environment={"variables": {"A": ""}}), "names of environment variables are at least two characters"),
    (
        function_manifest(environment={"valueFrom": {"A-B": {"secretKeyRef": {"name": "a", "key": "b"}}}}),
        "names of environment variables are",
    ),
    (
        function_manifest(
            environment={"variables": {"AB": ""}, "valueFrom": {"AB": {"secretKeyRef": {"name": "a", "key": "b"}}}}
        ),
        "a variable cannot be both in variables and in valueFrom",
    ),
    (
        function_manifest(environment={"valueFrom": {"AB": {}}}),
        "exactly one of secretKeyRef and configMapKeyRef",
    ),
    (function_manifest(loggingConfig={"applicationLogLevel": "INFO"}), "need logFormat JSON"),
    (_alias(routingConfig={"additionalVersionWeights": {"1": 0.5}}), "the additional version must be another one"),
    (
        _alias(functionVersion="$LATEST", routingConfig={"additionalVersionWeights": {"1": 0.5}}),
        "$LATEST is not supported for an alias",
    ),
    (_alias(functionVersion="$LATEST", provisionedConcurrentExecutions=1), "provisioned concurrency needs a published version"),
    (_alias(routingConfig={"additionalVersionWeights": {"live": 0.5}}), "additionalVersionWeights are by version number"),
    (_named(LAYER, "a" * 41), "metadata.name must be at most 40"),
    (_manifest("Layer", "tools", content={}), "content needs exactly one of"),
    (_manifest("Layer", "tools", content={"s3Bucket": "bucket"}), "content.s3Bucket and content.s3Key go together"),
    (
        _manifest("Layer", "tools", content={"configMap": {"name": "a"}, "s3ObjectVersion": "1"}),
        "content.s3ObjectVersion needs content.s3Bucket",
    ),
    (_mapping(), "exactly one of eventSourceARN and selfManagedEventSource"),
    (_mapping(eventSourceARN=KINESIS), "startingPosition is needed for"),
    (_mapping(eventSourceARN=KINESIS, startingPosition="AT_TIMESTAMP"), "AT_TIMESTAMP needs startingPositionTimestamp"),
    (_mapping(eventSourceARN=KAFKA, startingPosition="LATEST"), "topics is needed for Kafka"),
    (_mapping(selfManagedEventSource={"endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["a:1"]}}), "topics is needed for Kafka"),
    (_mapping(eventSourceARN="arn:aws:mq:eu-central-1:123456789012:broker:b"), "queues is needed for Amazon MQ"),
    (
        _mapping(eventSourceARN="arn:aws:rds:eu-central-1:123456789012:cluster:c", startingPosition="LATEST"),
        "documentDBEventSourceConfig is needed for DocumentDB",
    ),
    (
        _mapping(eventSourceARN=KINESIS, startingPosition="LATEST", scalingConfig={"maximumConcurrency": 2}),
        "scalingConfig is for SQS only",
    ),
    (
        _mapping(eventSourceARN=f"{SQS}.fifo", batchSize=11, maximumBatchingWindowInSeconds=1),
        "batchSize is at most 10 for FIFO queues",
    ),
    (_mapping(eventSourceARN=SQS, batchSize=11), "batchSize over 10 needs maximumBatchingWindowInSeconds"),
    (_manifest("EventInvokeConfig", "hello", functionName="hello"), "at least one of maximumRetryAttempts"),
    # Ranges, patterns and lists of values, in the API server's own words.
    (function_manifest(memorySize=127), "spec.memorySize in body should be greater than or equal to 128"),
    (function_manifest(memorySize=10241), "spec.memorySize in body should be less than or equal to 10240"),
    (function_manifest(timeout=0), "spec.timeout in body should be greater than or equal to 1"),
    (function_manifest(timeout=901), "spec.timeout in body should be less than or equal to 900"),
    (
        function_manifest(ephemeralStorage={"size": 511}),
        "spec.ephemeralStorage.size in body should be greater than or equal to 512",
    ),
    (
        function_manifest(ephemeralStorage={"size": 10241}),
        "spec.ephemeralStorage.size in body should be less than or equal to 10240",
    ),
    (function_manifest(runtime="python2.7"), 'spec.runtime: Unsupported value: "python2.7"'),
    (function_manifest(packageType="Image"), 'spec.packageType: Unsupported value: "Image"'),
    (function_manifest(layers=["tools"]), "spec.layers[0]"),
    (function_manifest(layers=["tools:1"] * 6), "spec.layers: Too many: 6: must have at most 5 items"),
    (function_manifest(code={"inline": "x" * 262_145}), "spec.code.inline: Too long: may not be more than 262144"),
    (function_manifest(code={"https": {"url": "https://example.com/a.zip"}}), "spec.code.https.sha256: Required value"),
    (function_manifest(functionName="a b"), "spec.functionName"),
    (_manifest("Function", "hello", code=INLINE), "spec.runtime: Required value"),
    (_alias(routingConfig={"additionalVersionWeights": {"2": 1.5}}), "should be less than or equal to 1"),
    (_alias(routingConfig={"additionalVersionWeights": {"2": -0.1}}), "should be greater than or equal to 0"),
    (
        _alias(routingConfig={"additionalVersionWeights": {"2": 0.1, "3": 0.1}}),
        "spec.routingConfig.additionalVersionWeights: Too many: 2: must have at most 1 item",
    ),
    (_alias(name="12"), "spec.name"),
]


@pytest.mark.parametrize(("manifest", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_bad_manifests_are_refused_in_words_that_help(manifest: Object, words: str, place: str) -> None:
    assert words in _refusal(manifest, namespace=place)


FIXED: list[tuple[Object, Object, str]] = [
    (function_manifest("fixed"), {"functionName": "other"}, "spec.functionName cannot be changed"),
    (_named(LAYER, "fixed"), {"layerName": "other"}, "spec.layerName cannot be changed"),
    (_named(_alias(), "fixed"), {"functionName": "other"}, "functionName and name cannot be changed"),
    (_named(_alias(), "fixed"), {"name": "other"}, "functionName and name cannot be changed"),
    (
        _manifest(
            "FunctionVersion",
            "fixed",
            functionName="hello",
            version=1,
            runtime="python3.12",
            handler="a.b",
            code={"blob": ARCHIVE},
        ),
        {"timeout": 60},
        "a published version cannot be changed",
    ),
    *(
        (
            _manifest("LayerVersion", "fixed", layerName="tools", version=1, content={"blob": ARCHIVE}),
            change,
            "a published layer version cannot be changed",
        )
        for change in (
            {"content": {"blob": {**ARCHIVE, "sha256": "b" * 64}}},
            {"description": "other"},
            {"licenseInfo": "MIT"},
            {"compatibleRuntimes": ["python3.12"]},
            {"compatibleArchitectures": ["arm64"]},
        )
    ),
    (
        _manifest("EventInvokeConfig", "fixed", functionName="hello", maximumRetryAttempts=1),
        {"qualifier": "live"},
        "functionName and qualifier cannot be changed",
    ),
    (
        _named(_mapping(eventSourceARN=SQS), "fixed"),
        {"eventSourceARN": f"{SQS}-other"},
        "eventSourceARN cannot be changed",
    ),
]


@pytest.mark.parametrize(
    ("manifest", "change", "words"), FIXED, ids=[f"{one['kind']} {next(iter(change))}" for one, change, _ in FIXED]
)
def test_what_is_fixed_cannot_be_changed(manifest: Object, change: Object, words: str, place: str) -> None:
    obj = copy.deepcopy(manifest)
    obj["metadata"] = {"name": f"fixed-{secrets.token_hex(3)}", "namespace": place}

    async def scenario(api: KubernetesApi) -> str:
        await api.create(_path(obj, named=False), obj, field_manager="kubectl-create")
        with pytest.raises(Invalid) as refused:
            await api.merge_patch(_path(obj), {"spec": change}, field_manager="kubectl-edit")
        return refused.value.message

    assert words in _with_api(scenario)


def test_a_functions_own_name_may_be_spelled_out_later(place: str) -> None:
    obj = function_manifest("spelled")
    obj["metadata"]["namespace"] = place

    async def scenario(api: KubernetesApi) -> Object:
        await api.create(_path(obj, named=False), obj, field_manager="kubectl-create")
        return await api.merge_patch(_path(obj), {"spec": {"functionName": "spelled"}}, field_manager="kubectl-edit")

    assert _with_api(scenario)["spec"]["functionName"] == "spelled"


def test_the_policy_of_a_layer_version_may_change(place: str) -> None:
    obj = _manifest("LayerVersion", "shared", layerName="tools", version=1, content={"blob": ARCHIVE})
    obj["metadata"]["namespace"] = place
    statement = {"sid": "all", "principal": "*", "action": "lambda:GetLayerVersion", "resource": "arn"}

    async def scenario(api: KubernetesApi) -> Object:
        await api.create(_path(obj, named=False), obj, field_manager="kubectl-create")
        return await api.merge_patch(_path(obj), {"spec": {"policy": [statement]}}, field_manager="kubectl-edit")

    assert _with_api(scenario)["spec"]["policy"] == [statement]


def test_every_rule_has_been_broken_here() -> None:
    broken = [words for _, words in REFUSED] + [words for _, _, words in FIXED]
    unbroken = [
        rule["message"]
        for definition in definitions()
        for _, field in walk(root_schema(definition))
        for rule in field.get("x-kubernetes-validations", ())
        if not any(words in rule["message"] for words in broken)
    ]
    assert unbroken == []


def test_a_misspelled_field_is_refused_by_kubectl(cluster: Cluster, place: str) -> None:
    with pytest.raises(CommandError, match=r'unknown field "spec\.memory"'):
        cluster.apply(function_manifest(memory=256), namespace=place)


# -- through the API server and back -----------------------------------------------------------------------------------------
async def _through(api: KubernetesApi, resource: Resource, *, namespace: str) -> Resource:
    """What is read of a resource that was applied and whose status was written, as the store does both."""
    applied = to_object(resource, namespace=namespace, default_region=REGION)
    written = await api.apply(_path(applied), applied, field_manager=names.API_MANAGER)
    status = to_status(resource, written=written, now_ms=0)
    if status:
        metadata = {name: written["metadata"][name] for name in ("name", "namespace", "resourceVersion")}
        body = {"apiVersion": applied["apiVersion"], "kind": applied["kind"], "metadata": metadata, "status": status}
        await api.apply(_path(applied, subresource="status"), body, field_manager=names.GATEWAY_MANAGER, force=True)
    found = await api.get(_path(applied))
    assert found["spec"] == json.loads(json.dumps(applied["spec"]))  # nothing dropped, nothing filled in
    assert found.get("status", {}) == json.loads(json.dumps(status))
    read = from_object(found, account=resource.account, default_region=REGION)
    assert read.meta.uid == found["metadata"]["uid"]
    assert read.meta.generation == int(found["metadata"]["resourceVersion"])
    await api.delete(_path(applied))
    if isinstance(read, Alias | FunctionVersion) and read.provisioned is not None:
        # When a number was asked for is when its field was written: now, unlike anything that was written out.
        assert (read.provisioned.modified_ms > 0) == (read.provisioned.requested > 0)
        read = msgspec.structs.replace(read, provisioned=msgspec.structs.replace(read.provisioned, modified_ms=0))
    return msgspec.structs.replace(read, meta=Meta())


@pytest.mark.parametrize("resource", full_resources(), ids=lambda one: f"{type(one).__name__} {one.key.name} {one.key.sub}")
def test_a_resource_with_everything_comes_back_as_it_was(resource: Resource, place: str) -> None:
    plain = msgspec.structs.replace(resource, meta=Meta())
    assert _with_api(lambda api: _through(api, plain, namespace=place)) == plain


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(resource=resources)
def test_any_resource_comes_back_as_it_was(place: str, resource: Resource) -> None:
    assert _with_api(lambda api: _through(api, resource, namespace=place)) == resource


def test_an_edit_by_kubectl_is_an_update_in_progress_until_its_status_is_written(cluster: Cluster, place: str) -> None:
    cluster.apply(function_manifest("edited"), namespace=place)

    def read() -> tuple[Object, Function]:
        obj = cluster.get("function", "edited", namespace=place)
        assert obj is not None
        function = from_object(obj, account="000000000000", default_region=REGION)
        assert isinstance(function, Function)
        return obj, function

    obj, function = read()
    assert function.status == FunctionStatus()
    code = msgspec.structs.replace(made.code(), source="inline")
    configuration = msgspec.structs.replace(function.configuration, code=code)
    settled = msgspec.structs.replace(function, configuration=configuration, status=states.settled(configuration))
    status = to_status(settled, written=obj, now_ms=0)
    body = {
        **{name: obj[name] for name in ("apiVersion", "kind")},
        "metadata": {"name": "edited", "namespace": place},
        "status": status,
    }
    _with_api(lambda api: api.apply(_path(obj, subresource="status"), body, field_manager=names.GATEWAY_MANAGER, force=True))
    assert read()[1].status == settled.status

    cluster.kubectl("patch", "function", "edited", "--type=merge", '--patch={"spec":{"tags":{"a":"b"}}}', namespace=place)
    assert read()[1].status == settled.status
    cluster.kubectl("patch", "function", "edited", "--type=merge", '--patch={"spec":{"timeout":60}}', namespace=place)
    edited = read()[1]
    assert edited.status.last_update_status == "InProgress"
    assert edited.status.serving == configuration
    assert edited.configuration.code == code  # the source is the same: nothing to take in again


# -- what kubectl shows ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def shown(cluster: Cluster) -> Iterator[str]:
    """A namespace with one object of every kind, at least."""
    with cluster.namespace(f"kappa-shown-{secrets.token_hex(3)}") as name:

        async def scenario(api: KubernetesApi) -> None:
            for resource in full_resources():
                obj = to_object(resource, namespace=name, default_region=REGION)
                written = await api.apply(_path(obj), obj, field_manager=names.API_MANAGER)
                status = to_status(resource, written=written, now_ms=0)
                if status:
                    await api.merge_patch(_path(obj, subresource="status"), {"status": status}, field_manager="kappa-gateway")

        _with_api(scenario)
        cluster.apply(LAYER, namespace=name)
        yield name


COLUMNS = {
    "fn": "NAME RUNTIME STATE READY MEMORY AGE",
    "fnver": "NAME FUNCTION VERSION RUNTIME STATE READY AGE",
    "fnalias": "NAME FUNCTION ALIAS VERSION WEIGHTS READY AGE",
    "layer": "NAME LAYER VERSION READY AGE",
    "layerver": "NAME LAYER VERSION SIZE DELETED AGE",
    "esm": "NAME FUNCTION SOURCE BATCH STATE READY AGE",
    "fnevent": "NAME FUNCTION QUALIFIER RETRIES MAX AGE AGE",
}


@pytest.mark.parametrize("short", sorted(COLUMNS))
def test_kubectl_get_answers_the_usual_questions(short: str, cluster: Cluster, shown: str) -> None:
    head, *rows = cluster.kubectl("get", short, namespace=shown).splitlines()
    assert " ".join(head.split()) == COLUMNS[short]
    assert rows


def test_kubectl_get_wide_says_why(cluster: Cluster, shown: str) -> None:
    text = cluster.kubectl("get", "fn", "hello", "--output=wide", namespace=shown)
    head, row = text.splitlines()
    assert head.split()[-5:] == ["FUNCTION", "HANDLER", "TIMEOUT", "UPDATE", "REASON"]
    assert row.split()[:3] == ["hello", "python3.12", "Active"]
    assert row.endswith("The runtime is not installed.")
    assert '{"2":0.25}' in cluster.kubectl("get", "fnalias", "hello.live", namespace=shown)


def test_all_of_kappa_is_one_category(cluster: Cluster, shown: str) -> None:
    listed = cluster.kubectl("get", "kappa", "--output=name", namespace=shown)
    assert {line.partition(".")[0] for line in listed.split()} == {kind.lower() for kind in names.KINDS}


def test_functions_are_found_by_their_functions_name(cluster: Cluster, shown: str) -> None:
    for plural in ("functions", "functionversions", "aliases", "eventinvokeconfigs"):
        found = cluster.kubectl("get", plural, "--field-selector=spec.functionName=hello", "--output=name", namespace=shown)
        assert found.strip(), plural
    assert not cluster.kubectl("get", "functions", "--field-selector=spec.functionName=no", "--output=name", namespace=shown)


def test_an_alias_is_scaled_by_its_provisioned_concurrency(cluster: Cluster, shown: str) -> None:
    cluster.kubectl("scale", "alias", "hello.live", "--replicas=3", namespace=shown)
    alias = cluster.get("alias", "hello.live", namespace=shown)
    assert alias is not None
    assert alias["spec"]["provisionedConcurrentExecutions"] == 3
    with pytest.raises(CommandError, match="provisioned concurrency needs a published version"):
        cluster.kubectl("scale", "alias", "hello.latest", "--replicas=3", namespace=shown)
