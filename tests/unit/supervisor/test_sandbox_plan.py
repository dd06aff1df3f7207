"""The steps that make a function's filesystem, without taking them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kappa_runtime.supervisor import sandbox
from kappa_runtime.supervisor.errors import SandboxConflict
from kappa_runtime.supervisor.sandbox import HostEntry, Layout, Plan, Support

HOST = tuple(
    HostEntry(path, link)
    for path, link in (
        ("/bin", "usr/bin"), ("/dev", None), ("/home", None), ("/opt", None), ("/proc", None), ("/tmp", None), ("/usr", None),
        ("/var/lib", None), ("/var/task", None), ("/var/tmp", "/tmp"),
    )
)  # fmt: skip


def plan(*, user: bool = False, opt_entries: tuple[str, ...] = (), **layout: Any) -> Plan:
    return sandbox.plan(
        Layout(**({"task": "/data/code"} | layout)),
        root="/work/root",
        entries=HOST,
        opt_entries=opt_entries,
        support=Support("namespaces", user_namespace=user),
    )


def seen_at(made: Plan, path: str) -> list[tuple[str, ...]]:
    return [step for step in made.steps if step[1] == path]


def test_the_host_is_there_but_for_what_the_function_has_of_its_own() -> None:
    made = plan()
    assert made.steps[0] == ("tmpfs", "/", "mode=755,size=4m")
    assert ("bind", "/usr", "/usr") in made.steps
    assert ("bind", "/var/lib", "/var/lib") in made.steps
    assert ("link", "/bin", "usr/bin") in made.steps
    for own in ("/opt", "/tmp", "/var/task"):
        assert ("bind", own, own) not in made.steps
    assert ("bind", "/var/task", "/data/code") in made.steps
    assert ("directory", "/var/runtime") in made.steps


def test_everything_but_tmp_and_the_kernels_filesystems_turns_read_only() -> None:
    made = plan(ephemeral_mb=700)
    position = made.steps.index(("read-only", "/"))
    after = made.steps[position + 1 :]
    assert set(after) == {("bind", "/dev", "/dev"), ("bind", "/proc", "/proc"), ("tmpfs", "/tmp", "mode=1777,size=700m")}


def test_layers_and_the_sdk_are_bound_where_lambda_has_them() -> None:
    made = plan(opt="/data/layers", opt_entries=("bin", "python"), runtime="/data/sdk", language_bin="/usr/lib/py/bin")
    assert ("bind", "/opt/python", "/data/layers/python") in made.steps
    assert ("bind", "/opt/bin", "/data/layers/bin") in made.steps
    assert ("bind", "/var/runtime", "/data/sdk") in made.steps
    assert ("link", "/var/lang/bin", "/usr/lib/py/bin") in made.steps


def test_an_interpreter_below_tmp_or_opt_stays_visible_at_its_own_path() -> None:
    made = plan(keep=("/tmp/venv", "/opt/python3.13", "/home/me/.pyenv"))
    tmp = made.steps.index(("tmpfs", "/tmp", "mode=1777,size=512m"))
    assert made.steps.index(("bind", "/tmp/venv", "/tmp/venv")) > tmp
    assert ("read-only", "/tmp/venv") in made.steps
    assert ("bind", "/opt/python3.13", "/opt/python3.13") in made.steps
    assert not seen_at(made, "/home/me/.pyenv"), "it is there with /home"


def test_a_hidden_directory_is_covered_and_what_must_be_seen_in_it_is_put_back() -> None:
    made = plan(hidden=("/home/me/.kappa",), keep=("/home/me/.kappa/python",))
    cover = made.steps.index(("tmpfs", "/home/me/.kappa", "mode=755,size=1m"))
    assert made.steps.index(("bind", "/home", "/home")) < cover
    assert cover < made.steps.index(("bind", "/home/me/.kappa/python", "/home/me/.kappa/python"))
    assert made.steps.index(("bind", "/home/me/.kappa/python", "/home/me/.kappa/python")) < made.steps.index(("read-only", "/"))


def test_a_hidden_directory_below_tmp_needs_no_cover() -> None:
    assert not seen_at(plan(hidden=("/tmp/data",)), "/tmp/data")


@pytest.mark.parametrize("keep", ["/opt/python", "/opt/python/3.12", "/opt", "/var/task/python", "/var/lang"])
def test_a_runtime_that_lives_where_the_function_has_something_is_a_conflict(keep: str) -> None:
    with pytest.raises(SandboxConflict):
        plan(keep=(keep,), opt="/data/layers", opt_entries=("python",))


def test_without_privileges_a_user_namespace_and_no_capabilities_at_all() -> None:
    assert (plan(user=True).user, plan(user=True).capabilities) == (True, ())
    assert (plan().user, set(plan().capabilities)) == (False, {0, 1, 2, 3})


def test_stand_ins_are_real_directories() -> None:
    layout = Layout(task="/data/code", opt=None, runtime="/data/sdk", language_bin="/usr/lib/py/bin")
    places = sandbox.stand_ins(layout, temporary="/work/tmp", empty="/work/empty")
    assert (places.task, places.opt, places.runtime) == ("/data/code", "/work/empty", "/data/sdk")
    assert (places.language, places.temporary, places.stand_in) == ("/usr/lib/py", "/work/tmp", True)


def test_plain_mode_tries_nothing(tmp_path: Path) -> None:
    assert sandbox.probe("plain", scratch=tmp_path / "missing") == Support("plain", reason="asked for by setting")
