"""The SDK folders of functions: what is in them and what is not, and installing the one for JavaScript whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kappa_gateway.embedded import sdks
from kappa_gateway.embedded.sdks import SdkError, install_node_sdk, node_sdk, python_sdk, python_sdk_entries

ALONE = """
import sys
sys.path[:] = [path for path in sys.path if 'site-packages' not in path] + [{folder!r}]
import importlib.metadata, importlib.util
import boto3, botocore, s3transfer, jmespath, dateutil, six, urllib3
assert boto3.__file__.startswith({folder!r})
boto3.client('s3', region_name='us-east-1', aws_access_key_id='a', aws_secret_access_key='b')
assert importlib.metadata.version('boto3') == boto3.__version__
for name in ('kappa_core', 'kappa_gateway', 'fastapi', 'pydantic', 'msgspec', 'click', 'awslambdaric', 'pip'):
    assert importlib.util.find_spec(name) is None, name
"""


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def run_alone(folder: Path) -> None:
    """Import everything from the folder in an interpreter without site-packages."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE.format(folder=str(folder))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_python_folder_has_the_sdk_and_nothing_else(tmp_path: Path) -> None:
    folder = python_sdk(tmp_path)
    modules = {name.removesuffix(".py") for name in names(folder) if not name.endswith(".dist-info")}
    assert modules == {"boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3"}
    run_alone(folder)


def test_the_python_folder_is_made_once(tmp_path: Path) -> None:
    folder = python_sdk(tmp_path)
    assert python_sdk(tmp_path) == folder
    assert names(tmp_path) == [folder.name]


def test_entries_tell_where_everything_is_installed() -> None:
    entries = python_sdk_entries()
    assert {"boto3", "botocore", "six.py"} <= {entry.name for entry in entries}
    assert any(entry.name.startswith("boto3-") and entry.name.endswith(".dist-info") for entry in entries)
    assert all(entry.source.exists() and entry.source.name == entry.name for entry in entries)


def test_where_links_would_lead_nowhere_inside_a_sandbox_the_folder_is_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdks, "_is_replaced", lambda _source: True)
    folder = python_sdk(tmp_path)
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    run_alone(folder)


def test_a_copy_works_across_filesystems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_source: str, _target: str) -> None:
        raise OSError(18, "Invalid cross-device link")

    source = tmp_path / "package"
    source.mkdir()
    (source / "module.py").write_text("x = 1")
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(sdks, "_is_replaced", lambda _source: True)
    made = sdks._folder(tmp_path, "sdk", [sdks.Entry("package", source), sdks.Entry("one.py", source / "module.py")])
    assert (made / "package" / "module.py").read_text() == (made / "one.py").read_text() == "x = 1"


def test_many_at_once_make_one_folder(tmp_path: Path) -> None:
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(python_sdk(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert {path.name for path in made} == set(names(tmp_path))


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        sdks._folder(tmp_path / "absent", "sdk", [])
    cache, source = tmp_path / "cache", tmp_path / "source"
    cache.mkdir()
    source.mkdir()
    with pytest.raises(FileExistsError):
        sdks._folder(cache, "sdk", [sdks.Entry("a", source), sdks.Entry("a", source)])
    assert names(cache) == []


class Npm:
    """An npm that makes node_modules, or fails; a shell script."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.manifests = root / "manifests"
        self.manifests.mkdir()
        (self.manifests / "package.json").write_text("{}")
        self.lock("one")

    def lock(self, content: str) -> None:
        (self.manifests / "package-lock.json").write_text(content)

    def does(self, script: str) -> str:
        file = self.root / "npm"
        file.write_text(f'#!/bin/sh\necho "$@" >> {self.root}/runs\n{script}\n')
        file.chmod(0o755)
        return str(file)

    def install(self, script: str = "test -f package-lock.json && mkdir -p node_modules/@aws-sdk/client-s3") -> Path:
        return install_node_sdk(home=self.home, manifests=self.manifests, npm=self.does(script))

    def found(self) -> Path | None:
        return node_sdk(home=self.home, manifests=self.manifests)

    @property
    def runs(self) -> list[str]:
        file = self.root / "runs"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def npm(tmp_path: Path) -> Npm:
    return Npm(tmp_path)


def test_the_javascript_sdk_is_installed_once_for_a_lock(npm: Npm) -> None:
    assert npm.found() is None
    folder = npm.install()
    assert npm.install() == folder == npm.found()
    assert (folder / "node_modules" / "@aws-sdk" / "client-s3").is_dir()
    assert npm.runs == ["ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error"]


def test_another_lock_is_another_folder(npm: Npm) -> None:
    folder = npm.install()
    npm.lock("two")
    assert npm.found() is None
    assert npm.install() != folder
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'npm error code ENOSPC' >&2; echo 'npm error A complete log' >&2; exit 1",
            "npm ci failed: npm error code ENOSPC",
        ),
        ("exit 7", "npm ci failed: exit status 7"),
        ("exit 0", "npm ci failed: exit status 0"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(npm: Npm, script: str, message: str) -> None:
    with pytest.raises(SdkError, match=message):
        npm.install(script)
    assert npm.found() is None
    assert names(npm.home) == ["install.lock"]
    assert npm.install() == npm.found()


def test_without_npm_it_says_so(npm: Npm) -> None:
    with pytest.raises(SdkError, match="npm is not on PATH"):
        install_node_sdk(home=npm.home, manifests=npm.manifests, npm="no-such-npm")


def test_npm_that_hangs_is_given_up(npm: Npm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdks, "NPM_SECONDS", 0.05)
    with pytest.raises(SdkError, match="did not finish"):
        npm.install("exec sleep 60")
    assert npm.found() is None


def test_what_a_killed_installation_left_is_cleared(npm: Npm) -> None:
    (npm.home / ".node-sdk-abandoned" / "node_modules").mkdir(parents=True)
    npm.install()
    assert not (npm.home / ".node-sdk-abandoned").exists()


def test_several_at_once_install_once(npm: Npm) -> None:
    made: list[Path] = []
    path = npm.does("sleep 0.1; mkdir node_modules")

    def install() -> None:
        made.append(install_node_sdk(home=npm.home, manifests=npm.manifests, npm=path))

    threads = [threading.Thread(target=install) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert len(made) == 4
    assert len(npm.runs) == 1


def test_a_place_that_cannot_be_written_is_one_line(npm: Npm) -> None:
    npm.home.write_text("a file")
    with pytest.raises(SdkError, match="cannot be installed in"):
        npm.install()


def test_all_data_directories_share_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sdks.shared_home() == tmp_path / "kappa"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert sdks.shared_home() == tmp_path / "home" / ".cache" / "kappa"


def test_supervisors_are_told_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sdks, "node_sdk", lambda: None)
    monkeypatch.setattr(sdks, "python_client_entries", tuple)
    told = sdks.sdk_variables(tmp_path)
    assert set(told) == {"KAPPA_SDK_PYTHON"}
    monkeypatch.setattr(sdks, "node_sdk", lambda: tmp_path / "node")
    assert sdks.sdk_variables(tmp_path)["KAPPA_SDK_NODE"] == str(tmp_path / "node")


def test_the_real_lock_names_the_clients_people_use_and_no_registry() -> None:
    manifests = sdks._node_manifests()
    text = (manifests / "package-lock.json").read_text()
    assert '"resolved"' not in text
    for client in ("s3", "dynamodb", "sqs", "sns", "lambda", "eventbridge", "ssm", "secrets-manager", "sfn", "bedrock-runtime"):
        assert f'"node_modules/@aws-sdk/client-{client}"' in text
