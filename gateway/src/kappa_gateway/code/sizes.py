"""What a function and its layers may weigh together, unzipped: the limit holds for the sum, and AWS says which part is at fault."""

from __future__ import annotations

from collections.abc import Sequence

from kappa_core.errors import InvalidParameterValueException
from kappa_core.limits import Limits
from kappa_core.resources import Code


def check_total_size(code: Code, /, *, layers: Sequence[Code], limits: Limits) -> None:
    """Refuse layers that are too large by themselves, then a function that is too large together with them."""
    of_layers = sum(layer.unzipped_size for layer in layers)
    if of_layers > limits.unzipped_bytes:
        raise InvalidParameterValueException(f"Layers consume more than the available size of {limits.unzipped_bytes} bytes")
    total = of_layers + code.unzipped_size
    if total > limits.unzipped_bytes:
        raise InvalidParameterValueException(
            f"Function code combined with layers exceeds the maximum allowed size of {limits.unzipped_bytes} bytes. "
            f"The actual size is {total} bytes."
        )
