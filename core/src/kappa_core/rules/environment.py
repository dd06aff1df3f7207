"""Environment variables: which names Lambda keeps for itself, and how large all of them may be.

The form of a name is the service model's business, and checked before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from kappa_core import limits
from kappa_core.errors import InvalidParameterValueException
from kappa_core.spec import RESERVED_VARIABLES

_PREFIX: Final = "Lambda was unable to configure your environment variables because the environment variables you have provided"


def check_variables(variables: Mapping[str, str]) -> None:
    """Raises InvalidParameterValueException for reserved names, null characters and beyond 4096 bytes of compact JSON."""
    check_names(variables)
    broken = [name for name, value in variables.items() if "\0" in value]
    if broken:  # no process can be given one: execve(2) ends a variable there
        raise InvalidParameterValueException(f"{_PREFIX} contains a null character. Variables: {', '.join(broken)}")
    measured = json.dumps(dict(variables), separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate is valid JSON and a valid str, but no UTF-8; it counts as what replaces it.
    if len(measured.encode(errors="surrogatepass")) > limits.ENVIRONMENT_BYTES:
        raise InvalidParameterValueException(f"{_PREFIX} exceeded the 4KB limit. String measured: {measured}")


def check_names(names: Iterable[str]) -> None:
    """Raises InvalidParameterValueException for reserved names."""
    reserved = [name for name in names if name in RESERVED_VARIABLES]
    if reserved:
        raise InvalidParameterValueException(
            f"{_PREFIX} contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
