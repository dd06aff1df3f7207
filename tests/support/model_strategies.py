"""Hypothesis strategies for values of botocore's shapes, within all constraints that the service model states.

Built from botocore's own reading of the model, not from Kappa's, so that the two can disagree in a test.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from botocore.model import Shape, StructureShape
from hypothesis import strategies as st

_PRINTABLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
_ANY = st.characters(codec="utf-8", exclude_characters="\x00")
_CATEGORIES = {r"\p{L}": "a-zA-Z", r"\p{N}": "0-9", r"\p{Z}": " "}
_MOMENTS = st.integers(min_value=0, max_value=4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


_built: dict[tuple[str, int], st.SearchStrategy[Any]] = {}


def values(shape: Shape, *, alphabet: st.SearchStrategy[str] = _ANY) -> st.SearchStrategy[Any]:
    """Values of one shape. Each strategy is built once: most of the time went into the same patterns again and again."""
    key = (shape.name, id(alphabet))
    if key not in _built:
        _built[key] = _values(shape, alphabet=alphabet)
    return _built[key]


def _values(shape: Shape, *, alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    lower, upper = shape.metadata.get("min"), shape.metadata.get("max")
    match shape.type_name:
        case "structure":
            return structures(shape)
        case "list":
            return st.lists(values(shape.member, alphabet=alphabet), min_size=int(lower or 0), max_size=min(int(upper or 3), 3))
        case "map":
            return st.dictionaries(
                values(shape.key), values(shape.value), min_size=int(lower or 0), max_size=min(int(upper or 3), 3)
            )
        case "string":
            return strings(shape, alphabet=alphabet)
        case "boolean":
            return st.booleans()
        case "integer" | "long":
            return st.integers(
                min_value=int(lower if lower is not None else 0), max_value=int(upper if upper is not None else 2**31 - 1)
            )
        case "double" | "float":
            return st.floats(min_value=lower, max_value=upper, allow_nan=False, allow_infinity=False)
        case "blob":
            return st.binary(max_size=64)
        case "timestamp":
            return _MOMENTS
        case other:
            raise AssertionError(f"the model has a new type {other}")


def strings(shape: Shape, *, alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Strings of a shape; a dot segment as a path label would be resolved away by the client itself."""
    if shape.enum:
        return st.sampled_from(list(shape.enum))
    lower = int(shape.metadata.get("min", 0))
    upper = int(shape.metadata.get("max", 10_000))
    pattern = shape.metadata.get("pattern")
    if pattern is None:
        return st.text(alphabet, min_size=lower, max_size=min(upper, lower + 40))
    for category, characters in _CATEGORIES.items():
        pattern = pattern.replace(category, characters)
    found = st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True, alphabet=alphabet)  # Java's \d is ASCII
    return found.filter(lambda text: lower <= len(text) <= upper and text not in {".", ".."} and "\n" not in text)


def structures(shape: StructureShape, *, skip: frozenset[str] = frozenset()) -> st.SearchStrategy[dict[str, Any]]:
    """All required members of a structure and some of the others."""
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, member in shape.members.items():
        if name in skip:
            continue
        location = member.serialization.get("location")
        strategy = values(member, alphabet=_PRINTABLE if location in {"header", "uri"} else _ANY)
        if location in {"header", "uri", "querystring"} and member.type_name in {"string", "list"}:
            strategy = strategy.filter(bool)
        (required if name in shape.required_members or location == "uri" else optional)[name] = strategy
    return st.fixed_dictionaries(required, optional=optional)
