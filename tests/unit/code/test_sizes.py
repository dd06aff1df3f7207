"""The limit on a function and its layers holds for the sum, and the text says which part is at fault."""

from __future__ import annotations

import pytest

from kappa_core.errors import InvalidParameterValueException
from kappa_core.limits import Limits
from kappa_core.resources import Code, Sha256
from kappa_gateway.code.sizes import check_total_size

LIMITS = Limits()


def code(unzipped: int) -> Code:
    return Code(sha256=Sha256("0" * 64), size=1, unzipped_size=unzipped)


def test_exactly_the_limit_fits() -> None:
    check_total_size(code(62_144_000), layers=[code(100_000_000), code(100_000_000)], limits=LIMITS)
    check_total_size(code(262_144_000), layers=[], limits=LIMITS)


def test_layers_that_are_too_large_alone_are_named() -> None:
    with pytest.raises(InvalidParameterValueException) as caught:
        check_total_size(code(1), layers=[code(262_144_000), code(1)], limits=LIMITS)
    assert caught.value.message == "Layers consume more than the available size of 262144000 bytes"


def test_a_function_too_large_with_its_layers_is_told_the_sum() -> None:
    with pytest.raises(InvalidParameterValueException) as caught:
        check_total_size(code(2), layers=[code(262_143_999)], limits=LIMITS)
    assert caught.value.message == (
        "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. "
        "The actual size is 262144001 bytes."
    )
