"""The CustomResourceDefinitions against the Python model: every field is written and read by somebody, every limit is the core's,
and nothing that the API may make would be refused or dropped by the API server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import botocore.session
import pytest
import yaml
from botocore.model import Shape, StructureShape
from hypothesis import given, settings

from full_resources import full_resources
from kappa_core import limits
from kappa_core.resources import RESOURCE_TYPES, Code, Resource, State, UpdateStatus
from kappa_core.rules.runtimes import CREATABLE
from kappa_crds import names
from kappa_crds.code import INLINE_CHARACTERS
from kappa_crds.convert import from_object, to_object, to_status
from kappa_crds.definitions import definitions, edition, folder
from kappa_crds.members import field_name
from kappa_crds.status import REASON_CHARACTERS
from resource_strategies import resources
from structural_schema import paths, refusals, root_schema, walk

SCHEMAS = {one["spec"]["names"]["kind"]: root_schema(one) for one in definitions()}
DEFINITIONS = {one["spec"]["names"]["kind"]: one for one in definitions()}
STATUS_OF_OTHERS = {".status.conditions", ".status.observedGeneration"}
"""Written by the operator, or where there is a condition to write."""
NOT_IN_THE_CORE = {
    "Function": {
        # Sources that the settler takes in: kappa_crds.code.
        ".spec.code.inline",
        ".spec.code.configMap",
        ".spec.code.s3Bucket",
        ".spec.code.s3Key",
        ".spec.code.s3ObjectVersion",
        ".spec.code.https",
        ".status.code",
        ".status.environments",
    },
    "FunctionVersion": set[str](),
    "Alias": set[str](),
    "LayerVersion": set[str](),
    "EventSourceMapping": {".status.stateTransitionReason"},
    "EventInvokeConfig": set[str](),
}


def _written(resource: Resource) -> dict[str, Any]:
    obj = to_object(resource, namespace="default", default_region="eu-central-1")
    status = to_status(resource)
    return {"spec": obj["spec"], **({"status": status} if status else {})}


@settings(max_examples=60, deadline=None)
@given(resource=resources)
def test_whatever_the_api_makes_passes_the_schemas_unchanged(resource: Resource) -> None:
    kind = type(resource).__name__
    found = list(refusals(_written(resource), SCHEMAS[kind]))
    assert found == []


@pytest.mark.parametrize("kind", sorted(RESOURCE_TYPES))
def test_every_field_is_written_by_the_conversion_or_belongs_to_somebody_named(kind: str) -> None:
    schema, others = SCHEMAS[kind], tuple(NOT_IN_THE_CORE[kind] | STATUS_OF_OTHERS)
    declared = {path for path, _ in walk(schema) if path.startswith((".spec.", ".status.")) and not path.startswith(others)}
    written = {
        path for one in full_resources() if type(one).__name__ == kind for path in paths({"spec": {}, **_written(one)}, schema)
    }
    assert declared - written == set()


@settings(max_examples=30, deadline=None)
@given(resource=resources)
def test_what_is_written_is_what_is_read(resource: Resource) -> None:
    """Leaving out any one field that has a value changes what is read, unless it is the default: no field is write-only."""
    obj = to_object(resource, namespace="default", default_region="eu-central-1")
    obj["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    obj["status"] = to_status(resource)
    for field in [name for name in obj["spec"] if name not in SCHEMAS[obj["kind"]]["properties"]["spec"].get("required", ())]:
        without = {**obj, "spec": {name: value for name, value in obj["spec"].items() if name != field}}
        read = from_object(without, account=resource.account, default_region="eu-central-1")
        again = to_object(read, namespace="default", default_region="eu-central-1")
        assert again["spec"].get(field) != obj["spec"][field] or _is_default(field, obj["spec"][field]), field


def _is_default(field: str, value: Any) -> bool:
    empty = {"destinationConfig": {"onSuccess": {"destination": ""}, "onFailure": {"destination": ""}}}
    defaults = {
        "timeout": 3,
        "memorySize": 128,
        "ephemeralStorage": {"size": 512},
        "packageType": "Zip",
        "architectures": ["x86_64"],
        "tracingConfig": {"mode": "PassThrough"},
        "snapStart": {"applyOn": "None"},
        "recursiveLoop": "Terminate",
        "qualifier": "$LATEST",
        "routingConfig": {"additionalVersionWeights": {}},
        **empty,
    }
    return value in ("", [], {}, defaults.get(field)) or field in {"functionName", "loggingConfig"}


# -- limits, enumerations and defaults ---------------------------------------------------------------------------------------
def _field(kind: str, path: str) -> dict[str, Any]:
    found = dict(walk(SCHEMAS[kind]))
    return found[path]


@pytest.mark.parametrize("kind", ["Function", "FunctionVersion"])
def test_ranges_are_those_of_the_core(kind: str) -> None:
    def bounds(path: str) -> tuple[int, int]:
        field = _field(kind, path)
        return field["minimum"], field["maximum"]

    assert bounds(".spec.timeout") == (1, limits.TIMEOUT_MAX)
    assert bounds(".spec.memorySize") == (limits.MEMORY_MIN_MB, limits.MEMORY_MAX_MB)
    assert bounds(".spec.ephemeralStorage.size") == (limits.EPHEMERAL_MIN_MB, limits.EPHEMERAL_MAX_MB)
    assert _field(kind, ".spec.layers")["maxItems"] == limits.LAYERS_PER_FUNCTION
    assert _field(kind, ".spec.description")["maxLength"] == limits.DESCRIPTION_LENGTH
    assert _field(kind, ".spec.handler")["maxLength"] == limits.HANDLER_LENGTH
    assert _field(kind, ".spec.functionName")["maxLength"] == limits.FUNCTION_NAME_LENGTH
    assert _field(kind, ".spec.environment.variables{}")["maxLength"] == limits.ENVIRONMENT_BYTES
    assert _field(kind, ".status.stateReason")["maxLength"] == REASON_CHARACTERS
    assert _field(kind, ".status.lastUpdateStatusReason")["maxLength"] == REASON_CHARACTERS


def test_limits_of_a_function_alone_are_those_of_the_core() -> None:
    assert _field("Function", ".spec.tags")["maxProperties"] == limits.TAGS_PER_RESOURCE
    assert _field("Function", ".spec.code.inline")["maxLength"] == INLINE_CHARACTERS
    assert _field("Function", ".spec.runtime")["enum"] == list(CREATABLE)


def test_defaults_are_those_of_aws() -> None:
    found = {path: field["default"] for path, field in walk(SCHEMAS["Function"]["properties"]["spec"]) if "default" in field}
    assert found == {
        ".timeout": limits.TIMEOUT_DEFAULT,
        ".memorySize": limits.MEMORY_MIN_MB,
        ".ephemeralStorage": {"size": limits.EPHEMERAL_MIN_MB},
        ".packageType": "Zip",
        ".architectures": ["x86_64"],
        ".recursiveLoop": "Terminate",
    }


@pytest.mark.parametrize("kind", ["Function", "FunctionVersion"])
def test_states_are_those_of_the_core(kind: str) -> None:
    assert _field(kind, ".status.state")["enum"] == list(get_args(State))
    assert _field(kind, ".status.lastUpdateStatus")["enum"] == list(get_args(UpdateStatus))


def test_an_archive_has_the_fields_of_the_core() -> None:
    blob = _field("Function", ".spec.code.blob")["properties"]
    assert {*blob, "sourceKMSKeyARN"} == {
        *(_camel(name) for name in Code.__struct_fields__ if "kms" not in name),
        "sourceKMSKeyARN",
    }


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def _model(shape: str) -> StructureShape:
    found = botocore.session.get_session().get_service_model("lambda").shape_for(shape)
    assert isinstance(found, StructureShape)
    return found


MODEL = [
    ("EventSourceMapping", "CreateEventSourceMappingRequest", set[str]()),
    ("EventInvokeConfig", "PutFunctionEventInvokeConfigRequest", set[str]()),
    ("Alias", "CreateAliasRequest", set[str]()),
]


@pytest.mark.parametrize(("kind", "request_shape", "absent"), MODEL)
def test_every_member_of_the_service_model_has_its_field(kind: str, request_shape: str, absent: set[str]) -> None:
    found = list(_differences(_model(request_shape), SCHEMAS[kind]["properties"]["spec"], ""))
    assert [one for one in found if one not in absent] == []


def _differences(shape: Shape, schema: dict[str, Any], path: str) -> list[str]:
    """Where a field is missing, or takes less than the service model does."""
    if shape.type_name == "structure":
        assert isinstance(shape, StructureShape)
        found: list[str] = []
        for member, one in shape.members.items():
            field = schema.get("properties", {}).get(field_name(member))
            where = f"{path}.{member}"
            found += [f"{where}: no field"] if field is None else _differences(one, field, where)
        return found
    if shape.type_name == "list":
        small = [f"{path}: maxItems"] if schema["maxItems"] < shape.metadata.get("max", 0) else []
        return small + _differences(shape.member, schema["items"], f"{path}[]")  # type: ignore[attr-defined]
    if shape.type_name in {"integer", "long", "double"} and "max" in shape.metadata:
        same = (schema.get("minimum"), schema.get("maximum")) == (shape.metadata.get("min"), shape.metadata["max"])
        return [] if same else [f"{path}: range"]
    if shape.type_name == "string" and getattr(shape, "enum", None):
        return [] if list(schema["enum"]) == list(shape.enum) else [f"{path}: enum"]  # type: ignore[attr-defined]
    if shape.type_name == "string" and schema["maxLength"] < min(shape.metadata.get("max", 0), 10_000):
        return [] if path in NAMES_ALONE else [f"{path}: maxLength {schema['maxLength']} < {shape.metadata['max']}"]
    return []


NAMES_ALONE = {".FunctionName", ".FunctionVersion"}
"""The API takes ARNs here, and long numbers that no function has; objects hold the name and the number."""


# -- structure ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_every_value_is_bounded(kind: str) -> None:
    for path, field in walk(SCHEMAS[kind]):
        if not path.startswith((".spec", ".status")):
            continue
        match field["type"]:
            case "string":
                assert "maxLength" in field or "enum" in field, path
            case "array":
                assert "maxItems" in field, path
            case "object" if "additionalProperties" in field:
                assert "maxProperties" in field, path
            case "object":
                assert "properties" in field, path
            case _:
                assert field["type"] in {"integer", "number", "boolean"}, path
        assert not any(name.startswith("x-kubernetes-preserve") for name in field), path


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_every_list_of_objects_says_how_it_is_merged(kind: str) -> None:
    for path, field in walk(SCHEMAS[kind]):
        if field.get("type") == "array" and field["items"]["type"] == "object":
            assert field["x-kubernetes-list-type"] in {"map", "atomic"}, path


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_every_rule_says_what_it_wants(kind: str) -> None:
    for path, field in walk(SCHEMAS[kind]):
        for rule in field.get("x-kubernetes-validations", ()):
            assert rule.get("message"), f"{path}: {rule['rule']}"


def test_a_version_freezes_what_a_function_serves() -> None:
    serving = _field("Function", ".status.serving")["properties"]
    frozen = _field("FunctionVersion", ".spec")["properties"]
    assert {name: frozen[name] for name in serving} == serving
    assert set(frozen) - set(serving) == {"functionName", "version", "provisionedConcurrentExecutions"}


def test_all_of_a_version_but_its_provisioned_concurrency_is_immutable() -> None:
    spec = _field("FunctionVersion", ".spec")
    (rule,) = [one["rule"] for one in spec["x-kubernetes-validations"] if "cannot be changed" in one["message"]]
    held = set(re.findall(r"self\.(\w+) == oldSelf\.\1\b", rule))
    assert set(spec["properties"]) - held == {"provisionedConcurrentExecutions"}


def test_a_function_takes_what_it_serves() -> None:
    serving, spec = _field("Function", ".status.serving")["properties"], _field("Function", ".spec")["properties"]
    own = {"runtime", "code", "environment"}
    assert {name: spec[name] for name in serving if name not in own} == {
        name: one for name, one in serving.items() if name not in own
    }
    for name in own - {"runtime"}:
        assert spec[name]["properties"].items() >= serving[name]["properties"].items()


@pytest.mark.parametrize("kind", sorted(SCHEMAS))
def test_conditions_and_generations_are_alike(kind: str) -> None:
    assert _field(kind, ".status.conditions") == _field("Function", ".status.conditions")
    assert _field(kind, ".status.observedGeneration") == _field("Function", ".status.observedGeneration")


# -- names -------------------------------------------------------------------------------------------------------------------
def test_there_is_a_definition_for_every_kind() -> None:
    assert {kind: one["spec"]["names"]["plural"] for kind, one in DEFINITIONS.items()} == names.KINDS
    assert set(names.PLURALS) == set(RESOURCE_TYPES)
    for definition in DEFINITIONS.values():
        spec = definition["spec"]
        assert spec["group"] == names.GROUP
        assert [version["name"] for version in spec["versions"]] == [names.VERSION]
        assert definition["metadata"]["name"] == f"{spec['names']['plural']}.{names.GROUP}"
        assert spec["names"]["categories"] == ["kappa"]
        assert spec["versions"][0]["subresources"]["status"] == {}
        assert edition(definition) > 0


def test_all_definitions_are_of_one_edition() -> None:
    assert len({edition(one) for one in DEFINITIONS.values()}) == 1


def test_printer_columns_and_selectors_show_fields_that_exist() -> None:
    for kind, definition in DEFINITIONS.items():
        fields = {path for path, _ in walk(SCHEMAS[kind])}
        (version,) = definition["spec"]["versions"]
        for column in version["additionalPrinterColumns"]:
            path = column["jsonPath"].partition("[?")[0]
            assert path in fields or path == ".metadata.creationTimestamp", f"{kind} {column['name']}"
        for one in version["selectableFields"]:
            assert one["jsonPath"] in fields, kind


def test_the_wheel_carries_every_file() -> None:
    root = Path(__file__).parents[3]
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    files = sorted((root / "crds").glob("*.yaml"))
    assert files
    assert [file.name for file in files if f'"crds/{file.name}" = "kappa_crds/yaml/{file.name}"' not in text] == []
    assert sorted(file.name for file in folder().glob("*.yaml")) == [file.name for file in files]
    assert all(yaml.safe_load(file.read_text(encoding="utf-8"))["kind"] == "CustomResourceDefinition" for file in files)
