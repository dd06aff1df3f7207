"""Structural schemas of CustomResourceDefinitions: their fields, and what they say about a value. CEL rules are not run here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def root_schema(definition: Schema) -> Schema:
    """Of the one version of a definition."""
    (version,) = definition["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema below one, with its path: ``.spec.layers``, ``.spec.layers[]``, ``.spec.tags{}``."""
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from walk(one, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


def paths(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """The paths of all fields that a value has, named as :func:`walk` names them."""
    yield path
    if isinstance(value, dict) and "properties" in schema:
        for name, one in value.items():
            yield from paths(one, schema["properties"].get(name, {}), f"{path}.{name}")
    elif isinstance(value, dict) and "additionalProperties" in schema:
        for one in value.values():
            yield from paths(one, schema["additionalProperties"], f"{path}{{}}")
    elif isinstance(value, list):
        for one in value:
            yield from paths(one, schema.get("items", {}), f"{path}[]")


def refusals(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """What is wrong with a value, unknown fields included: the API server would drop those."""
    expected = schema.get("type")
    if expected is None:
        yield f"{path}: unknown field"
        return
    if not isinstance(value, _TYPES[expected]) or (isinstance(value, bool) and expected != "boolean"):
        yield f"{path}: {value!r} is no {expected}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)) or len(value) < schema.get("minLength", 0):
            yield f"{path}: {len(value)} characters"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: {value!r} does not match {schema['pattern']}"
    elif isinstance(value, int | float):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield f"{path}: {value} is out of range"
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)) or len(value) < schema.get("minItems", 0):
            yield f"{path}: {len(value)} items"
        for one in value:
            yield from refusals(one, schema.get("items", {}), f"{path}[]")
    elif isinstance(value, dict):
        yield from _object_refusals(value, schema, path)


def _object_refusals(value: dict[str, Any], schema: Schema, path: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name}: missing"
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{path}: {len(value)} properties"
    for name, one in value.items():
        if "properties" in schema:
            yield from refusals(one, schema["properties"].get(name, {}), f"{path}.{name}")
        elif "additionalProperties" in schema:
            yield from refusals(one, schema["additionalProperties"], f"{path}{{}}")
