"""The Lambda service model that botocore carries, as frozen structs: operations, their URI templates and their shapes.

First in the flow of a control-plane request: :mod:`.app` makes one route per operation of this model, :mod:`.parse`, :mod:`.validate`
and :mod:`.serialise` walk its shapes. The JSON file is read directly instead of through ``botocore.loaders``: importing that module
pulls in urllib3, ssl and the signer (22 MB and 0.3 s of the embedded gateway's start). A contract test holds this reading equal to
botocore's own. Texts of documentation are not kept; :func:`load_documentation` reads them again for ``/openapi.json``. It refuses
to know anything about Kappa: what is implemented, and where policy differs from the model, stands elsewhere.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, NewType
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

OperationName = NewType("OperationName", str)
ShapeType = Literal["structure", "list", "map", "string", "integer", "long", "double", "float", "boolean", "blob", "timestamp"]
Location = Literal["uri", "querystring", "header", "headers", "statusCode"]


class ModelNotFoundError(Exception):
    """botocore is not installed, or carries no Lambda service model where every release since 2015 has had it."""


class Shape(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A type of the model. Compared by identity; cycles are possible through ``members``."""

    name: str
    type: ShapeType
    members: dict[str, Member]
    """Of a structure, in the model's order."""
    required: frozenset[str]
    element: Shape | None
    """Of a list."""
    key: Shape | None
    """Of a map."""
    value: Shape | None
    """Of a map."""
    enum: tuple[str, ...]
    minimum: float | None
    """Length of strings, blobs, lists and maps; value of numbers."""
    maximum: float | None
    pattern: str | None
    """Java's regular expression, as sent in validation messages."""
    sensitive: bool
    """Values never appear in messages."""
    payload: str | None
    """Name of the member that is the whole HTTP body."""
    event_stream: bool
    timestamp_format: str | None


class Member(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A member of a structure and where it travels."""

    name: str
    shape: Shape
    location: Location | None
    """None: in the body."""
    wire_name: str
    """Key in the body, query or headers, or prefix of header names."""
    timestamp_format: str | None


class UriTemplate:
    """Matches raw paths (still percent-encoded) against one ``requestUri``, with or without a trailing slash.

    A label takes one non-empty segment, a greedy label (``{Name+}``) takes several. Each is percent-decoded exactly once, after
    matching: an ARN sent as ``arn%3Aaws…`` arrives whole, and an encoded slash never splits a label.
    """

    __slots__ = ("_labels", "_regex", "literals", "path", "query")

    def __init__(self, request_uri: str) -> None:
        self.path, _, query = request_uri.partition("?")
        self.query: Final[tuple[tuple[str, str], ...]] = tuple(parse_qsl(query, keep_blank_values=True))
        """Pairs that the query must contain, e.g. ``find=LayerVersion``."""
        self._labels: list[str] = []
        parts = []
        for segment in self.path.strip("/").split("/"):
            label = re.fullmatch(r"\{([^}+]+)(\+?)\}", segment)
            if label is None:
                parts.append(re.escape(segment))
            else:
                self._labels.append(label[1])
                parts.append("(.+?)" if label[2] else "([^/]+)")
        self.literals: Final = len(parts) - len(self._labels)
        """Number of fixed segments: of two templates that match, the one with more is meant."""
        self._regex: Final = re.compile(("/" + "/".join(parts) + "/?").encode())

    def match(self, raw_path: bytes, *, query: Sequence[tuple[str, str]] = ()) -> dict[str, str] | None:
        """The decoded labels, or None if this template is not meant. Broken UTF-8 becomes U+FFFD, which no constraint accepts."""
        found = self._regex.fullmatch(raw_path)
        if found is None or any(pair not in query for pair in self.query):
            return None
        return {
            label: unquote_to_bytes(raw).decode("utf-8", "replace")
            for label, raw in zip(self._labels, found.groups(), strict=True)
        }


class OperationModel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One operation of the API."""

    name: OperationName
    method: str
    uri: UriTemplate
    status: int
    """Status of a success, unless the output binds one."""
    input: Shape | None
    output: Shape | None
    errors: tuple[str, ...]
    """Names of the modelled error shapes."""
    deprecated: bool


class ErrorModel(msgspec.Struct, frozen=True, kw_only=True):
    """A modelled error: its status and the members of its body."""

    name: str
    status: int
    members: tuple[str, ...]


class ServiceModel(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything the API layer needs to know about Lambda."""

    api_version: str
    signing_name: str
    operations: dict[OperationName, OperationModel]
    """In routing order: templates with more fixed parts first."""
    errors: dict[str, ErrorModel]


# -- reading -------------------------------------------------------------------------------------------------------
class _Ref(msgspec.Struct, rename="camel"):
    shape: str
    location: Location | None = None
    location_name: str | None = None
    timestamp_format: str | None = None


class _Error(msgspec.Struct, rename="camel"):
    http_status_code: int = 400


class _RawShape(msgspec.Struct, rename="camel"):
    type: ShapeType
    members: dict[str, _Ref] = {}
    required: list[str] = []
    member: _Ref | None = None
    key: _Ref | None = None
    value: _Ref | None = None
    enum: list[str] = []
    min: float | None = None
    max: float | None = None
    pattern: str | None = None
    sensitive: bool = False
    payload: str | None = None
    eventstream: bool = False
    exception: bool = False
    fault: bool = False
    error: _Error | None = None
    timestamp_format: str | None = None


class _Http(msgspec.Struct, rename="camel"):
    method: str
    request_uri: str
    response_code: int = 200


class _RawOperation(msgspec.Struct, rename="camel"):
    name: str
    http: _Http
    input: _Ref | None = None
    output: _Ref | None = None
    errors: list[_Ref] = []
    deprecated: bool = False


class _Metadata(msgspec.Struct, rename="camel"):
    api_version: str
    signing_name: str = "lambda"


class _RawModel(msgspec.Struct):
    metadata: _Metadata
    operations: dict[str, _RawOperation]
    shapes: dict[str, _RawShape]


def _read_service_file() -> bytes:
    spec = find_spec("botocore")
    if spec is None or spec.origin is None:
        raise ModelNotFoundError("botocore is not installed")
    folder = Path(spec.origin).parent / "data" / "lambda"
    for version in sorted(folder.glob("20*"), reverse=True):
        if (packed := version / "service-2.json.gz").is_file():
            return gzip.decompress(packed.read_bytes())
        if (plain := version / "service-2.json").is_file():
            return plain.read_bytes()
    raise ModelNotFoundError(f"no Lambda service model under {folder}")


class _Linker:
    """Turns shape names into shapes, each once; structures are entered before their members, so cycles close."""

    def __init__(self, raw: Mapping[str, _RawShape]) -> None:
        self._raw = raw
        self._done: dict[str, Shape] = {}

    def shape(self, name: str) -> Shape:
        if name in self._done:
            return self._done[name]
        raw = self._raw[name]
        shape = Shape(
            name=name,
            type=raw.type,
            members={},
            required=frozenset(raw.required),
            element=self.shape(raw.member.shape) if raw.member else None,
            key=self.shape(raw.key.shape) if raw.key else None,
            value=self.shape(raw.value.shape) if raw.value else None,
            enum=tuple(raw.enum),
            minimum=raw.min,
            maximum=raw.max,
            pattern=raw.pattern,
            sensitive=raw.sensitive,
            payload=raw.payload,
            event_stream=raw.eventstream,
            timestamp_format=raw.timestamp_format,
        )
        self._done[name] = shape
        for member, ref in raw.members.items():
            shape.members[member] = Member(
                name=member,
                shape=self.shape(ref.shape),
                location=ref.location,
                wire_name=ref.location_name or member,
                timestamp_format=ref.timestamp_format or self._raw[ref.shape].timestamp_format,
            )
        return shape


def read_model(data: bytes) -> ServiceModel:
    """Parse a ``service-2.json``."""
    raw = msgspec.json.decode(data, type=_RawModel)
    link = _Linker(raw.shapes)
    operations = [
        OperationModel(
            name=OperationName(operation.name),
            method=operation.http.method,
            uri=UriTemplate(operation.http.request_uri),
            status=operation.http.response_code,
            input=link.shape(operation.input.shape) if operation.input else None,
            output=link.shape(operation.output.shape) if operation.output else None,
            errors=tuple(error.shape for error in operation.errors),
            deprecated=operation.deprecated,
        )
        for operation in raw.operations.values()
    ]
    operations.sort(key=lambda operation: (-operation.uri.literals, -len(operation.uri.query), operation.name))
    return ServiceModel(
        api_version=raw.metadata.api_version,
        signing_name=raw.metadata.signing_name,
        operations={operation.name: operation for operation in operations},
        errors={
            name: ErrorModel(
                name=name,
                status=shape.error.http_status_code if shape.error else (500 if shape.fault else 400),
                members=tuple(shape.members),
            )
            for name, shape in raw.shapes.items()
            if shape.exception
        },
    )


@cache
def load_model() -> ServiceModel:
    """The model of the installed botocore; read once per process.

    Raises
    ------
    ModelNotFoundError
        If botocore is missing or has no Lambda model.
    """
    return read_model(_read_service_file())


def load_documentation() -> dict[str, Any]:
    """The raw model including AWS's HTML documentation, about 5 MB of objects: for building ``/openapi.json``, not to be kept."""
    decoded: dict[str, Any] = msgspec.json.decode(_read_service_file())
    return decoded
