"""What a pod's manifest and image say."""

from __future__ import annotations

from pathlib import Path

import pytest

from kappa_runtime.pod.settings import SettingsError, from_environment

MANIFEST = {
    "KAPPA_POD_NAME": "f-1",
    "KAPPA_POD_NAMESPACE": "shop",
    "KAPPA_POD_UID": "0b7e",
    "KAPPA_GATEWAYS": "dns:links.kappa-system.svc:9443",
    "KAPPA_LINK_NAME": "links.kappa-system.svc",
}


def test_the_variables_of_the_contract_are_enough() -> None:
    settings = from_environment(MANIFEST)
    assert settings.gateways == ("dns:links.kappa-system.svc:9443",)
    assert (settings.token, settings.authority) == (Path("/var/run/kappa/token"), Path("/var/run/kappa/ca.crt"))
    assert (settings.task, settings.opt, settings.work) == (Path("/var/task"), Path("/opt"), Path("/var/kappa"))
    assert settings.own_machine
    assert settings.command == ()
    assert not settings.forks


def test_values_that_the_kubelet_looked_up_are_the_functions_by_their_own_names() -> None:
    settings = from_environment({**MANIFEST, "KAPPA_VALUE_PYTHONPATH": "/opt/lib", "PYTHONPATH": "/not/theirs"})
    assert settings.values == {"PYTHONPATH": "/opt/lib"}


def test_code_is_written_where_the_manifest_says_and_seen_where_aws_has_it() -> None:
    settings = from_environment({**MANIFEST, "KAPPA_CODE_DIR": "/var/kappa/code"})
    assert (settings.task_written, settings.opt_written) == (Path("/var/kappa/code/task"), Path("/var/kappa/code/opt"))
    assert (settings.task, settings.opt) == (Path("/var/task"), Path("/opt"))
    assert settings.own_machine
    older = from_environment(MANIFEST)
    assert (older.task_written, older.opt_written) == (older.task, older.opt)


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_each_of_them_is_needed_and_named_when_it_is_missing(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        from_environment({key: value for key, value in MANIFEST.items() if key != name})


@pytest.mark.parametrize(
    ("command", "forks"),
    [("/usr/local/bin/python3", True), ("/usr/local/bin/python3.13", True), ("/usr/local/bin/node", False), ("", False)],
)
def test_a_python_image_forks_its_environments(command: str, forks: bool) -> None:
    assert from_environment({**MANIFEST, "KAPPA_RUNTIME_COMMAND": command}).forks is forks


def test_each_life_of_a_container_has_an_id_of_its_own_that_begins_with_the_pods_uid() -> None:
    settings = from_environment(MANIFEST)
    ids = {settings.supervisor_id() for _ in range(3)}
    assert len(ids) == 3
    assert all(each.startswith("0b7e.") for each in ids)


def test_a_filesystem_that_is_not_the_containers_is_not_taken_for_it(tmp_path: Path) -> None:
    assert not from_environment({**MANIFEST, "KAPPA_TASK_DIR": str(tmp_path)}).own_machine
