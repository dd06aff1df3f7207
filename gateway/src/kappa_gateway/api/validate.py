"""Parsed members against the constraints of the service model, in AWS's own words.

Third in the flow, between :mod:`.parse` and the operation. Pure: a shape and a value in, a ValidationException with every
violation out, e.g. ``2 validation errors detected: Value 'x!' at 'functionName' failed to satisfy constraint: …; Value null at
'role' failed to satisfy constraint: Member must not be null``. Values of sensitive shapes are never shown. It checks only what the
model can say; departures of Lambda from its model stand in :mod:`.departures`, rules between members in the operations.
"""

from __future__ import annotations

import logging
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final

import msgspec

from kappa_core.errors import ValidationException
from kappa_gateway.api.model import Shape

NOT_NULL: Final = "Member must not be null"
_SHOWN_CHARACTERS: Final = 4096
"""Values are echoed up to this length: a refused 60 MB request must not become a 60 MB answer."""

_log = logging.getLogger(__name__)


class Constraint(msgspec.Struct, frozen=True):
    """One rule of a shape and the words for it."""

    text: str
    broken_by: Callable[[Any], bool]


def check(
    shape: Shape | None,
    params: Mapping[str, Any],
    *,
    maxima: Mapping[str, float],
    unchecked: frozenset[str] = frozenset(),
) -> None:
    """Refuse parameters that break a constraint of their shapes.

    Parameters
    ----------
    shape
        The operation's input; None accepts everything.
    maxima
        Upper bounds by shape name that replace the model's, see :func:`.departures.maxima`.
    unchecked
        Members at the top level that are judged elsewhere, see :func:`.departures.left_to_departures`.

    Raises
    ------
    ValidationException
        Naming every violation, in the model's order of members.
    """
    if shape is None:
        return
    judged = {name: value for name, value in params.items() if name not in unchecked}
    found = list(_structure_violations(shape, judged, path="", maxima=maxima))
    if found:
        noun = "validation error" if len(found) == 1 else "validation errors"
        raise ValidationException(f"{len(found)} {noun} detected: {'; '.join(found)}")


def violation(shape: Shape, value: Any, *, path: str, constraint: str) -> str:
    """The sentence for one broken constraint."""
    secret = shape.sensitive or any(part is not None and part.sensitive for part in (shape.element, shape.key, shape.value))
    shown = "Value" if secret else "Value null" if value is None else f"Value '{_shortened(java_text(shape, value))}'"
    return f"{shown} at '{path}' failed to satisfy constraint: {constraint}"


def lower_camel(name: str) -> str:
    """Member name as it stands in validation paths: only the first letter changes (``KMSKeyArn`` is ``kMSKeyArn``)."""
    return name[:1].lower() + name[1:]


# -- walking -------------------------------------------------------------------------------------------------------
def _structure_violations(shape: Shape, value: Mapping[str, Any], *, path: str, maxima: Mapping[str, float]) -> Iterator[str]:
    for member in shape.members.values():
        where = f"{path}.{lower_camel(member.name)}" if path else lower_camel(member.name)
        if (inner := value.get(member.name)) is not None:
            yield from _violations(member.shape, inner, path=where, maxima=maxima)
        elif member.name in shape.required:
            yield violation(member.shape, None, path=where, constraint=NOT_NULL)


def _violations(shape: Shape, value: Any, *, path: str, maxima: Mapping[str, float]) -> Iterator[str]:
    for constraint in _constraints(shape, maxima.get(shape.name)):
        if constraint.broken_by(value):
            yield violation(shape, value, path=path, constraint=constraint.text)
    yield from _inner_violations(shape, value, path=path, maxima=maxima)


def _inner_violations(shape: Shape, value: Any, *, path: str, maxima: Mapping[str, float]) -> Iterator[str]:
    """What is wrong inside a value. The constraints of elements, keys and map values are reported at their container."""
    match shape.type:
        case "structure":
            yield from _structure_violations(shape, value, path=path, maxima=maxima)
        case "list" if shape.element is not None:
            if (text := _member_constraint("Member", shape.element, value, maxima=maxima)) is not None:
                yield violation(shape, value, path=path, constraint=text)
            for position, item in enumerate(value, start=1):
                if item is not None:
                    yield from _inner_violations(shape.element, item, path=f"{path}.{position}.member", maxima=maxima)
        case "map" if shape.key is not None and shape.value is not None:
            for subject, part, items in (("Map keys", shape.key, value.keys()), ("Map value", shape.value, value.values())):
                if (text := _member_constraint(subject, part, items, maxima=maxima)) is not None:
                    yield violation(shape, value, path=path, constraint=text)
            for key, item in value.items():
                if item is not None:
                    yield from _inner_violations(shape.value, item, path=f"{path}.{key}.member", maxima=maxima)
        case _:
            pass


def _member_constraint(subject: str, shape: Shape, items: Iterable[Any], *, maxima: Mapping[str, float]) -> str | None:
    """AWS names all constraints of an element together once any element breaks one of them."""
    constraints = _constraints(shape, maxima.get(shape.name))
    if not any(item is None or any(constraint.broken_by(item) for constraint in constraints) for item in items):
        return None
    return f"{subject} must satisfy constraint: [{', '.join([*(c.text for c in constraints), NOT_NULL])}]"


# -- constraints of one shape --------------------------------------------------------------------------------------
@lru_cache(maxsize=4096)
def _constraints(shape: Shape, maximum: float | None) -> tuple[Constraint, ...]:
    """In the order of AWS's bracketed lists: upper bound, lower bound, pattern, enum."""
    upper = shape.maximum if maximum is None else maximum
    lower = shape.minimum
    found = []
    if shape.type in {"integer", "long", "double", "float"}:
        show: Callable[[float], object] = float if shape.type in {"double", "float"} else int
        if upper is not None:
            found.append(Constraint(f"Member must have value less than or equal to {show(upper)}", lambda value: value > upper))
        if lower is not None:
            found.append(
                Constraint(f"Member must have value greater than or equal to {show(lower)}", lambda value: value < lower)
            )
    elif shape.type in {"string", "blob", "list", "map"}:
        if upper is not None:
            text = f"Member must have length less than or equal to {int(upper)}"
            found.append(Constraint(text, lambda value: len(value) > upper))
        if lower is not None:
            text = f"Member must have length greater than or equal to {int(lower)}"
            found.append(Constraint(text, lambda value: len(value) < lower))
    if shape.pattern is not None and (matches := java_pattern(shape.pattern)) is not None:
        found.append(
            Constraint(f"Member must satisfy regular expression pattern: {shape.pattern}", lambda value: not matches(value))
        )
    if shape.enum:
        allowed = frozenset(shape.enum)
        text = f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        found.append(Constraint(text, lambda value: value not in allowed))
    return tuple(found)


@cache
def java_pattern(pattern: str) -> Callable[[str], bool] | None:
    """A full-match test for one of the model's Java patterns, or None if Python cannot express it (then it is not enforced).

    Java's ``\\d``, ``\\w`` and ``\\s`` are ASCII; ``\\p{L}``, ``\\p{N}`` and ``\\p{Z}`` are Unicode categories, which Python's ``re``
    lacks: they become character ranges, built on the first value that is not ASCII.
    """
    try:
        simple = re.compile(_with_categories(pattern, _ASCII_CATEGORIES.__getitem__), re.ASCII)
    except (re.error, KeyError) as error:
        _log.warning("the service model's pattern %s is not enforced: %s", pattern, error)
        return None
    if "\\p{" not in pattern:
        return lambda value: simple.fullmatch(value) is not None

    def matches(value: str) -> bool:
        if value.isascii():
            return simple.fullmatch(value) is not None
        return re.fullmatch(_with_categories(pattern, _unicode_ranges), value, re.ASCII) is not None

    return matches


_ASCII_CATEGORIES: Final = {"L": "a-zA-Z", "N": "0-9", "Z": " "}


def _with_categories(pattern: str, ranges: Callable[[str], str]) -> str:
    return re.sub(r"\\p\{([A-Z])\}", lambda found: ranges(found[1]), pattern)


@cache
def _unicode_ranges(category: str) -> str:
    """The characters of a major category as ranges of a character class."""
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code))[0] == category:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


# -- values as Java prints them ------------------------------------------------------------------------------------
def java_text(shape: Shape, value: Any) -> str:
    """``toString`` of AWS's Java objects: ``[a, b]``, ``{2=2.0}``, ``Cors(maxAge=1)``."""
    match value:
        case None:
            return "null"
        case _ if shape.sensitive:
            return "*** Sensitive Data Redacted ***"
        case bool():
            return "true" if value else "false"
        case bytes():
            return f"java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]"
        case list() if shape.element is not None:
            return f"[{', '.join(java_text(shape.element, item) for item in value)}]"
        case dict() if shape.type == "structure":
            inner = (f"{lower_camel(name)}={java_text(shape.members[name].shape, item)}" for name, item in value.items())
            return f"{shape.name}({', '.join(inner)})"
        case dict() if shape.value is not None:
            return f"{{{', '.join(f'{key}={java_text(shape.value, item)}' for key, item in value.items())}}}"
        case _:
            return str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
