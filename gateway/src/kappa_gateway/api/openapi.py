"""The OpenAPI description of the whole API, made from the service model and AWS's own documentation in it, for ``/openapi.json``.

Built when the first reader asks, then kept, so that a gateway nobody asks pays nothing. FastAPI cannot derive it: the routes take
their parameters from the model, not from Python signatures. Describes every operation, Invoke included, whoever serves it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from kappa_gateway.api.model import Member, OperationModel, ServiceModel, Shape, load_documentation

_TAG: Final = re.compile(r"<[^>]+>")
_SPACE: Final = re.compile(r"\s+")
_SCALARS: Final[Mapping[str, Mapping[str, str]]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "double": {"type": "number", "format": "double"},
    "float": {"type": "number", "format": "float"},
    "boolean": {"type": "boolean"},
    "blob": {"type": "string", "format": "byte"},
    "timestamp": {"type": "number", "format": "double"},
}
_PARAMETER_PLACES: Final = {"uri": "path", "querystring": "query", "header": "header"}

Json = dict[str, Any]


def generator(service: ServiceModel, *, version: str) -> Callable[[], Json]:
    """A function that builds the document once and then returns it, in the form of FastAPI's ``app.openapi``."""
    built: list[Json] = []

    def document() -> Json:
        if not built:
            built.append(describe(service, documentation=load_documentation(), version=version))
        return built[0]

    return document


def describe(service: ServiceModel, *, documentation: Mapping[str, Any], version: str) -> Json:
    """The OpenAPI 3.1 document.

    Parameters
    ----------
    documentation
        The raw service model, of which only the ``documentation`` texts are used.
    """
    return _Description(service, documentation).document(version)


def plain_text(markup: str) -> str:
    """AWS's HTML as plain text."""
    return _SPACE.sub(" ", html.unescape(_TAG.sub("", markup))).strip()


def first_sentence(text: str) -> str:
    """The part before the first full stop that ends a sentence."""
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0].rstrip(".")


class _Description:
    def __init__(self, service: ServiceModel, documentation: Mapping[str, Any]) -> None:
        self._service = service
        self._operations = documentation["operations"]
        self._shapes = documentation["shapes"]
        self._schemas: dict[str, Json] = {}

    def document(self, version: str) -> Json:
        paths: dict[str, Json] = {}
        for operation in sorted(self._service.operations.values(), key=lambda operation: operation.name):
            # Two operations may share path and method and differ in a fixed query pair; that pair then stands in the key.
            fixed = "&".join(f"{name}={value}" for name, value in operation.uri.query)
            key = f"{operation.uri.path}?{fixed}" if fixed else operation.uri.path
            paths.setdefault(key, {})[operation.method.lower()] = self._operation(operation)
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Kappa: the AWS Lambda API",
                "version": version,
                "description": "Generated from AWS's service model; descriptions are AWS's and speak of AWS. "
                f"API version {self._service.api_version}.",
            },
            "paths": paths,
            "components": {"schemas": dict(sorted(self._schemas.items()))},
        }

    def _operation(self, operation: OperationModel) -> Json:
        text = plain_text(self._operations[operation.name].get("documentation", ""))
        described: Json = {
            "operationId": operation.name,
            "tags": [_family(operation)],
            "summary": f"{operation.name}: {first_sentence(text)}" if text else operation.name,
            "description": text,
            "responses": self._responses(operation),
        }
        if operation.deprecated:
            described["deprecated"] = True
        if operation.input is not None:
            described["parameters"] = [
                self._parameter(operation.input, member)
                for member in operation.input.members.values()
                if member.location in _PARAMETER_PLACES
            ]
            body = self._body(operation.input)
            if body is not None:
                described["requestBody"] = body
        return described

    def _parameter(self, owner: Shape, member: Member) -> Json:
        return {
            "name": member.wire_name,
            "in": _PARAMETER_PLACES[member.location or "querystring"],
            "required": member.location == "uri" or member.name in owner.required,
            "description": self._member_text(owner, member),
            "schema": self._schema(member.shape),
        }

    def _body(self, shape: Shape) -> Json | None:
        if shape.payload is not None:
            return {"content": self._payload_content(shape), "required": shape.payload in shape.required}
        properties = self._properties(shape)
        if not properties:
            return None
        required = [name for name in properties if name in shape.required]
        schema: Json = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        return {"content": {"application/json": {"schema": schema}}, "required": bool(required)}

    def _payload_content(self, shape: Shape) -> Json:
        assert shape.payload is not None
        payload = shape.members[shape.payload].shape
        if payload.event_stream:
            return {"application/vnd.amazon.eventstream": {"schema": {"type": "string", "format": "binary"}}}
        # A function's event and result are bytes to the API and JSON to nearly everybody.
        return {"application/json": {"schema": {} if payload.type == "blob" else self._schema(payload)}}

    def _responses(self, operation: OperationModel) -> Json:
        success: Json = {"description": "Success"}
        shape = operation.output
        if shape is not None and operation.status != 204:
            headers = {
                member.wire_name: {"description": self._member_text(shape, member), "schema": self._schema(member.shape)}
                for member in shape.members.values()
                if member.location == "header" and member.wire_name.lower() != "content-type"
            }
            if headers:
                success["headers"] = headers
            if shape.payload is not None:
                success["content"] = self._payload_content(shape)
            elif properties := self._properties(shape):
                success["content"] = {"application/json": {"schema": {"type": "object", "properties": properties}}}
        responses: Json = {str(operation.status): success}
        for name in operation.errors:
            status = str(self._service.errors[name].status)
            known = responses.setdefault(status, {"description": ""})
            if known is not success:
                known["description"] = ", ".join(filter(None, (known["description"], name)))
        return responses

    def _properties(self, shape: Shape) -> Json:
        return {
            member.wire_name: self._schema(member.shape, text=self._member_text(shape, member))
            for member in shape.members.values()
            if member.location is None and member.name != shape.payload
        }

    def _schema(self, shape: Shape, *, text: str = "") -> Json:
        match shape.type:
            case "structure":
                if shape.name not in self._schemas:
                    self._schemas[shape.name] = {}  # entered first: a shape may contain itself
                    self._schemas[shape.name].update(
                        type="object", description=self._text(shape.name), properties=self._properties(shape)
                    )
                    if shape.required:
                        self._schemas[shape.name]["required"] = sorted(shape.required)
                schema: Json = {"$ref": f"#/components/schemas/{shape.name}"}
            case "list" if shape.element is not None:
                schema = {"type": "array", "items": self._schema(shape.element), **_bounds(shape, "minItems", "maxItems")}
            case "map" if shape.value is not None:
                values = self._schema(shape.value)
                schema = {"type": "object", "additionalProperties": values, **_bounds(shape, "minProperties", "maxProperties")}
            case "string" | "blob":
                schema = {**_SCALARS[shape.type], **_bounds(shape, "minLength", "maxLength")}
                if shape.enum:
                    schema["enum"] = list(shape.enum)
            case _:
                schema = {**_SCALARS[shape.type], **_bounds(shape, "minimum", "maximum")}
        if text:
            schema["description"] = text
        return schema

    def _text(self, shape: str) -> str:
        return plain_text(self._shapes[shape].get("documentation", ""))

    def _member_text(self, owner: Shape, member: Member) -> str:
        return plain_text(self._shapes[owner.name]["members"][member.name].get("documentation", ""))


def _bounds(shape: Shape, lower: str, upper: str) -> Json:
    """Patterns are left out on purpose: they are Java's, and a browser compiling them would report errors."""
    whole = shape.type not in {"double", "float"}
    bounds = {lower: shape.minimum, upper: shape.maximum}
    return {name: int(value) if whole else value for name, value in bounds.items() if value is not None}


def _family(operation: OperationModel) -> str:
    """What the documentation groups by: the resource that the path speaks of first."""
    parts = operation.uri.path.strip("/").split("/")
    inner = [part for part in parts[2:] if not part.startswith("{")]
    return inner[0] if parts[1] == "functions" and inner else parts[1]
