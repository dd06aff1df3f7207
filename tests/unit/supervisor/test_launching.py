"""From runtime and client to a command; when an environment may be a fork."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from kappa_core.spec import VersionSpec
from kappa_runtime.supervisor import launching
from kappa_runtime.supervisor.environment_variables import Places
from kappa_runtime.supervisor.launching import InvalidEntrypoint
from kappa_runtime.supervisor.process import exit_text
from supervised import version_spec


def spec(folder: Path, **changes: Any) -> VersionSpec:
    return version_spec(folder, command=("/usr/bin/interpreter",), **changes)


def test_our_python_bootstrap_runs_without_site_packages(tmp_path: Path) -> None:
    made = launching.command(spec(tmp_path), Places())
    assert made.argv == ("/usr/bin/interpreter", "-S", "-s", str(launching.PYTHON_SCRIPTS / "bootstrap.py"))
    assert Path(made.argv[-1]).is_file()


def test_the_official_python_client_gets_the_handler_and_its_folder(tmp_path: Path) -> None:
    made = launching.command(
        spec(tmp_path, client="official", handler="a.b", platform_variables={"KAPPA_CLIENT_PYTHON": "/clients/py"}), Places()
    )
    assert made.argv[-2:] == ("--official", "a.b")
    assert made.extra == {"_KAPPA_CLIENT": "/clients/py"}


def test_a_wrapper_goes_before_the_interpreter_but_not_before_a_custom_runtime(tmp_path: Path) -> None:
    (tmp_path / "bootstrap").touch()
    wrapped = {"variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}}
    assert launching.command(spec(tmp_path, **wrapped), Places()).argv[:2] == ("/opt/wrap", "/usr/bin/interpreter")
    assert launching.command(spec(tmp_path, runtime="provided", **wrapped), Places()).argv == ("/var/task/bootstrap",)


def test_node_is_started_with_lambdas_flags(tmp_path: Path) -> None:
    own = launching.command(spec(tmp_path, runtime="nodejs20.x"), Places())
    assert own.argv[1:3] == ("--expose-gc", "--max-http-header-size=81920")
    assert Path(own.argv[3]).is_file()


def test_the_official_node_client_is_the_tasks_own_if_it_brings_one(tmp_path: Path) -> None:
    official = spec(tmp_path, runtime="nodejs20.x", client="official")
    with pytest.raises(InvalidEntrypoint, match="aws-lambda-ric"):
        launching.command(official, Places())
    program = tmp_path / "node_modules" / "aws-lambda-ric" / "bin" / "index.mjs"
    program.parent.mkdir(parents=True)
    program.touch()
    assert launching.command(official, Places()).argv[3:] == (
        "/var/task/node_modules/aws-lambda-ric/bin/index.mjs",
        "index.handler",
    )


def test_the_bootstrap_is_looked_for_in_the_task_and_then_in_the_layers(tmp_path: Path) -> None:
    task, opt = tmp_path / "task", tmp_path / "opt"
    task.mkdir()
    opt.mkdir()
    provided = spec(task, runtime="provided.al2023", opt_root=str(opt))
    with pytest.raises(InvalidEntrypoint, match="valid bootstrap"):
        launching.command(provided, Places())
    (opt / "bootstrap").touch()
    assert launching.command(provided, Places()).argv == ("/opt/bootstrap",)
    (task / "bootstrap").touch()
    assert launching.command(provided, Places()).argv == ("/var/task/bootstrap",)


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime": "nodejs20.x"},
        {"runtime": "provided"},
        {"client": "official"},
        {"variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}},
        {"variables": {"PYTHONOPTIMIZE": "1"}},
        {"variables": {"LD_PRELOAD": "/opt/lib/x.so"}},
    ],
)
def test_what_must_be_there_when_a_process_starts_forbids_a_fork(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert not launching.forks_from_zygote(spec(tmp_path, **changes))


def test_ordinary_functions_are_forked(tmp_path: Path) -> None:
    (tmp_path / "fast.cpython-312-x86_64-linux-gnu.so").touch()
    assert launching.forks_from_zygote(spec(tmp_path, variables={"STAGE": "x", "PYTHONPATH": "/opt/mine"}))


@pytest.mark.parametrize("where", ["task/libtiff.so.5", "task/lib/libx.so", "opt/lib/liby.so.1"])
def test_libraries_in_the_loaders_path_forbid_a_fork(tmp_path: Path, where: str) -> None:
    (tmp_path / where).parent.mkdir(parents=True)
    (tmp_path / where).touch()
    assert not launching.forks_from_zygote(spec(tmp_path / "task", opt_root=str(tmp_path / "opt")))


def test_paths_outside_the_system_stay_visible(tmp_path: Path) -> None:
    home = tmp_path / "pyenv" / "bin"
    home.mkdir(parents=True)
    (home / "python3").symlink_to("/usr/bin/env")
    paths = launching.visible_paths(version_spec(tmp_path, command=(str(home / "python3"),)))
    assert paths == (str(tmp_path / "pyenv"), str(launching.PYTHON_SCRIPTS))


def test_a_runtime_without_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="java21"):
        launching.language_of("java21")


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "Runtime exited without providing a reason"),
        (3 << 8, "Runtime exited with error: exit status 3"),
        (signal.SIGKILL, "Runtime exited with error: signal: killed"),
        (signal.SIGSEGV, "Runtime exited with error: signal: segmentation fault"),
        (34, "Runtime exited with error: signal: signal 34"),
    ],
)
def test_an_exit_is_described_in_lambdas_words(status: int, text: str) -> None:
    assert exit_text(status) == text
