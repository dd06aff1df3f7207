"""Kappa's reading of the service model against botocore's own, shape by shape."""

from __future__ import annotations

from collections.abc import Iterator

import botocore.session
import pytest
from botocore.model import Shape as BotocoreShape

from kappa_gateway.api.model import Shape, load_model
from kappa_gateway.api.validate import java_pattern

BOTOCORE_MODEL = botocore.session.Session().get_service_model("lambda")


def test_the_operations_are_botocores() -> None:
    model = load_model()
    assert set(model.operations) == set(BOTOCORE_MODEL.operation_names)
    assert model.api_version == BOTOCORE_MODEL.api_version
    assert model.signing_name == BOTOCORE_MODEL.signing_name


@pytest.mark.parametrize("name", BOTOCORE_MODEL.operation_names)
def test_an_operation_and_its_shapes_are_botocores(name: str) -> None:
    ours, theirs = load_model().operations[name], BOTOCORE_MODEL.operation_model(name)  # type: ignore[index]
    path, _, query = theirs.http["requestUri"].partition("?")
    assert ours.method == theirs.http["method"]
    assert ours.uri.path == path
    assert "&".join("=".join(pair) for pair in ours.uri.query) == query
    assert ours.status == theirs.http["responseCode"]
    assert ours.deprecated == theirs.deprecated
    assert list(ours.errors) == [shape.name for shape in theirs.error_shapes]
    for mine, yours in ((ours.input, theirs.input_shape), (ours.output, theirs.output_shape)):
        assert (mine is None) == (yours is None)
        if mine is not None:
            assert_equal(mine, yours, seen=set())


def assert_equal(ours: Shape, theirs: BotocoreShape, *, seen: set[str]) -> None:
    if ours.name in seen:
        return
    seen.add(ours.name)
    assert (ours.name, ours.type) == (theirs.name, theirs.type_name)
    assert list(ours.enum) == list(getattr(theirs, "enum", []))
    assert (ours.minimum, ours.maximum) == (theirs.metadata.get("min"), theirs.metadata.get("max"))
    assert ours.pattern == theirs.metadata.get("pattern")
    assert ours.sensitive == theirs.metadata.get("sensitive", False)
    if ours.type == "list":
        assert ours.element is not None
        assert_equal(ours.element, theirs.member, seen=seen)
    elif ours.type == "map":
        assert ours.key is not None
        assert ours.value is not None
        assert_equal(ours.key, theirs.key, seen=seen)
        assert_equal(ours.value, theirs.value, seen=seen)
    elif ours.type == "structure":
        assert list(ours.members) == list(theirs.members)
        assert ours.required == set(theirs.required_members)
        assert ours.payload == theirs.serialization.get("payload")
        assert ours.event_stream == theirs.serialization.get("eventstream", False)
        for name, member in theirs.members.items():
            mine = ours.members[name]
            assert mine.location == member.serialization.get("location")
            assert mine.wire_name == member.serialization.get("name", name)
            assert mine.timestamp_format == member.serialization.get("timestampFormat")
            assert_equal(mine.shape, member, seen=seen)


def test_the_errors_have_botocores_statuses() -> None:
    model = load_model()
    theirs = {shape.name: shape for shape in BOTOCORE_MODEL.error_shapes}
    assert set(model.errors) == set(theirs)
    for name, error in model.errors.items():
        assert error.members == tuple(theirs[name].members)
        assert error.status == theirs[name].metadata["error"]["httpStatusCode"]


def test_every_pattern_of_the_model_is_enforced() -> None:
    patterns = {shape.pattern for shape in all_shapes() if shape.pattern is not None}
    assert len(patterns) > 30
    assert [pattern for pattern in patterns if java_pattern(pattern) is None] == []


def test_no_two_operations_claim_the_same_request() -> None:
    for operation in load_model().operations.values():
        path = operation.uri.path
        for label in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
            path = path.replace(f"{{{label}}}", "x1")
        claimed = [
            other.name
            for other in load_model().operations.values()
            if other.method == operation.method and other.uri.match(path.encode(), query=operation.uri.query) is not None
        ]
        assert claimed[0] == operation.name, f"{path} goes to {claimed}"


def all_shapes() -> Iterator[Shape]:
    seen: set[int] = set()

    def walk(shape: Shape | None) -> Iterator[Shape]:
        if shape is None or id(shape) in seen:
            return
        seen.add(id(shape))
        yield shape
        for inner in (shape.element, shape.key, shape.value, *(member.shape for member in shape.members.values())):
            yield from walk(inner)

    for operation in load_model().operations.values():
        yield from walk(operation.input)
        yield from walk(operation.output)
