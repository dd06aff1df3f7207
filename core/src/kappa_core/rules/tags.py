"""Tags: at most fifty of them; adding replaces by key, removing what is not there is fine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kappa_core import limits
from kappa_core.errors import InvalidParameterValueException


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a new resource. Raises InvalidParameterValueException over the limit."""
    if len(tags) > limits.TAGS_PER_RESOURCE:
        raise InvalidParameterValueException("Number of tags exceeds resource tag limit.")
    return dict(tags)


def add_tags(current: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Raises InvalidParameterValueException if nothing is added or too many tags result."""
    if not added:
        raise InvalidParameterValueException("An error occurred and the request cannot be processed.")
    return check_tags({**current, **added})


def remove_tags(current: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    gone = set(keys)
    return {key: value for key, value in current.items() if key not in gone}
