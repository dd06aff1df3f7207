"""Settings: from the environment and the command line, wrong ones refused in one line before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from kappa_gateway.settings import SettingsError, is_loopback, load


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415

    for name in [name for name in os.environ if name.startswith("KAPPA_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_a_loopback_gateway_without_keys() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.data_dir) == ("127.0.0.1", 9000, Path(".kappa"))
    assert settings.access_key_id is None


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAPPA_PORT", "1")
    assert load(port=2).port == 2
    assert load(port=None).port == 1


def test_endpoints_of_services_are_collected_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAPPA_ENDPOINT_URL_S3", "http://127.0.0.1:5000")
    monkeypatch.setenv("KAPPA_ENDPOINT_URL_SQS", "http://127.0.0.1:5001")
    assert load().endpoint_urls == {"s3": "http://127.0.0.1:5000", "sqs": "http://127.0.0.1:5001"}


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAPPA_ALLOWED_HOSTS", "lambda.test, other.test,")
    assert load().allowed_hosts == ("lambda.test", "other.test")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"host": "0.0.0.0"}, "--no-auth", id="reachable by others without keys"),
        pytest.param({"host": "lambda.example"}, "--no-auth", id="a name may lead anywhere"),
        pytest.param({"access_key_id": "AKIA"}, "belong together", id="half a key"),
        pytest.param({"account": "12"}, "KAPPA_ACCOUNT: an account id is twelve digits", id="short account"),
        pytest.param({"port": 65536}, "KAPPA_PORT", id="no port"),
        pytest.param({"idle_seconds": 0}, "KAPPA_IDLE_SECONDS", id="never idle"),
        pytest.param({"sandbox": "docker"}, "KAPPA_SANDBOX", id="unknown sandbox"),
    ],
)
def test_a_wrong_setting_names_itself_in_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_or_an_explicit_word_open_other_addresses() -> None:
    assert load(host="0.0.0.0", no_auth=True).host == "0.0.0.0"
    assert load(host="0.0.0.0", access_key_id="AKIA", secret_access_key="s").host == "0.0.0.0"


def test_a_secret_is_not_shown() -> None:
    assert "hunter2" not in repr(load(access_key_id="AKIA", secret_access_key="hunter2"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
