"""Which gateways there are: all of them for who reads logs, those that callers reach for who waits for them."""

from __future__ import annotations

from typing import Any

from kappa_gateway.kubernetes.gateway_addresses import addresses_in

# The Service publishes addresses that are not ready, so `ready` is true of a gateway that starts.
STARTS = {"ready": True, "serving": False}
ENDS = {"ready": False, "serving": True, "terminating": True}


def slice_of(**gateways: dict[str, bool] | None) -> dict[str, Any]:
    return {"endpoints": [{"addresses": [name], "conditions": conditions} for name, conditions in gateways.items()]}


def test_gateways_that_start_or_end_are_reached_by_no_caller() -> None:
    slices = [slice_of(here={"ready": True, "serving": True}, starts=STARTS), slice_of(ends=ENDS), {"endpoints": None}]
    assert addresses_in(slices, all_of_them=False) == {"here"}
    assert addresses_in(slices, all_of_them=True) == {"here", "starts", "ends"}


def test_a_gateway_of_which_nothing_is_said_is_one_that_callers_reach() -> None:
    assert addresses_in([slice_of(quiet=None, new={})], all_of_them=False) == {"quiet", "new"}
