"""Settings of a gateway in a cluster: what the chart may leave empty, and what is refused in one line at start."""

from __future__ import annotations

import os

import pytest

from kappa_gateway.kubernetes.settings import load
from kappa_gateway.settings import SettingsError


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("KAPPA_")]:
        monkeypatch.delenv(name)


def test_authentication_is_required_unless_told_otherwise() -> None:
    assert load().auth_mode == "required"


def test_what_a_chart_renders_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES_DSN", "BLOBS_S3_BUCKET", "ENDPOINT_URL", "GATEWAY_URL", "WATCH_NAMESPACES"):
        monkeypatch.setenv(f"KAPPA_{name}", "")
    settings = load()
    assert (settings.postgres_dsn, settings.blobs_s3_bucket, settings.endpoint_url) == (None, None, None)
    assert settings.watch_namespaces == ()
    assert settings.function_url == "http://kappa-gateway.kappa-system.svc:9000"


def test_names_of_the_service_are_served_from_the_short_to_the_whole_one() -> None:
    hosts = load(namespace="k", service="lambda", allowed_hosts="lambda.example").served_hosts
    assert hosts == ("lambda.example", "lambda", "lambda.k", "lambda.k.svc", "lambda.k.svc.cluster.local")


def test_an_ipv6_pod_is_dialled_in_brackets() -> None:
    assert load(pod_ip="fd00::1").link_address == "tls:[fd00::1]:9443"


def test_runtimes_with_an_image_of_their_own_are_known() -> None:
    assert {"ruby3.4", "python3.12"} <= load(runtime_images={"ruby3.4": "ruby:1"}).known_runtimes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"auth_mode": "none"}, "KAPPA_AUTH_MODE", id="no such mode"),
        pytest.param({"namespace": "Kappa"}, "KAPPA_NAMESPACE: not a name that Kubernetes accepts", id="namespace"),
        pytest.param({"gateway_url": "gateway:9000"}, "KAPPA_GATEWAY_URL: a URL begins with", id="no scheme"),
        pytest.param({"async_throttle_delays": "5,1"}, "shortest and the longest", id="delays"),
        pytest.param({"blobs_s3_access_key_id": "A"}, "belong together", id="half a key"),
        pytest.param({"link_port": 70000}, "KAPPA_LINK_PORT", id="no port"),
    ],
)
def test_a_wrong_setting_names_itself_in_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
