"""The registry: names of the service model, and stores that fail."""

from __future__ import annotations

import botocore.session
import pytest

from control_plane import ControlPlane, asynchronous
from kappa_core.errors import ServiceException
from kappa_gateway.operations.registry import OPERATIONS


def test_every_operation_is_one_of_the_service_model() -> None:
    model = botocore.session.get_session().get_service_model("lambda")
    assert set(OPERATIONS) <= set(model.operation_names)


@asynchronous
async def test_a_store_that_fails_is_a_retryable_error_of_the_service() -> None:
    plane = ControlPlane()
    await plane.memory.close()
    with pytest.raises(ServiceException, match="the store is closed") as caught:
        await plane("ListFunctions")
    assert (caught.value.status, caught.value.retryable) == (500, True)
