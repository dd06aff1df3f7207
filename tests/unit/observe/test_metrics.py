"""The metrics under their final names: what each of them counts, and that their number is bounded."""

from __future__ import annotations

from kappa_gateway.observe.metrics import SERIES_CAP, Metrics

WHO = {"account": "000000000000", "function": "f", "qualifier": "$LATEST", "mode": "RequestResponse"}
LABELS = {**WHO, "code_class": "ok"}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_an_invocation_is_counted_by_outcome_and_its_duration_observed() -> None:
    metrics = Metrics()
    record = metrics.invocation(**WHO)
    record("ok", 0.002)
    record("ok", 3.0)
    record("throttled", 0.001)
    assert value(metrics, "kappa_gateway_invocations_total", **LABELS) == 2
    assert value(metrics, "kappa_gateway_invocations_total", **{**LABELS, "code_class": "throttled"}) == 1
    assert value(metrics, "kappa_gateway_invocation_duration_seconds_count", account=WHO["account"], function="f") == 3


def test_only_an_invocation_that_waited_for_an_init_is_a_cold_start() -> None:
    metrics = Metrics()
    record = metrics.invocation(**WHO)
    record("ok", 0.1, cold=True)
    record("ok", 0.1)
    assert value(metrics, "kappa_gateway_cold_starts_total", account=WHO["account"], function="f") == 1


def test_what_was_stopped_as_a_recursive_loop_has_a_metric_of_its_own() -> None:
    metrics = Metrics()
    metrics.invocation(**WHO)("recursive", 0.0)
    labels = {name: value for name, value in LABELS.items() if name != "code_class"}
    assert value(metrics, "kappa_gateway_recursive_invocations_dropped_total", **labels) == 1


def test_control_plane_answers_are_counted_by_operation_and_status() -> None:
    metrics = Metrics()
    metrics.api_request("GetFunction", 200)
    metrics.api_request("GetFunction", 404)
    assert value(metrics, "kappa_gateway_api_requests_total", operation="GetFunction", status="404") == 1


def test_dropped_log_lines_are_read_at_scrape_time() -> None:
    metrics, dropped = Metrics(), [0]
    metrics.count_dropped_log_lines(lambda: dropped[0])
    dropped[0] = 7
    assert b"kappa_gateway_log_lines_dropped_total 7.0" in metrics.render()


def test_past_the_cap_new_functions_share_one_label() -> None:
    metrics = Metrics()
    for number in range(SERIES_CAP + 2):
        metrics.invocation(**{**WHO, "function": f"f{number}"})("ok", 0.0)
    shared = {**LABELS, "function": "(other)", "qualifier": ""}
    assert value(metrics, "kappa_gateway_invocations_total", **shared) == 2
