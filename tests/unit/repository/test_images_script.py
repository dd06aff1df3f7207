"""tools/images.sh with stand-ins for docker, podman, kind and kubectl: what it asks of each, and what becomes of it when one fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "images.sh"
ENGINE = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case $1 in
save) echo image > "$3"; [ -z "${SAVE_FAILS:-}" ] ;;
esac
"""
BROKEN = "#!/bin/sh\nexit 1\n"
KIND = """#!/bin/sh
echo "kind $1 $2 $(basename "$3") $4 $5" >> "$LOG"
test -s "$3"
"""
KUBECTL = """#!/bin/sh
case $1 in
config) echo "$CONTEXT" ;;
get) echo uid-of-the-cluster ;;
esac
"""

Run = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the script for one image; its status, what it says, and what it asked of whom."""
    commands = tmp_path / "commands"
    commands.mkdir()
    log = tmp_path / "log"

    def run(
        *, engine: str = "docker", kind: bool = True, context: str = "kind-dev", **variables: str
    ) -> tuple[int, str, list[str]]:
        stand_ins = {"docker": BROKEN, engine: ENGINE, "kubectl": KUBECTL} | ({"kind": KIND} if kind else {})
        for name, text in stand_ins.items():
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        log.write_text("")
        environment = {
            "PATH": f"{commands}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "LOG": str(log),
            "CONTEXT": context,
            "IMAGES": "postgresql",
            "TAG": "t1",
            "KAPPA_CLUSTER": "/nowhere",
            "KAPPA_STAMPS": str(tmp_path / "stamps"),
        }
        ran = subprocess.run([SCRIPT], env=environment | variables, capture_output=True, text=True, timeout=60, check=False)
        asked = [line for line in log.read_text().splitlines() if not line.endswith((" version", " inspect"))]
        return ran.returncode, ran.stdout + ran.stderr, asked

    return run


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_into_a_kind_cluster_images_go_under_the_name_that_pods_ask_for(run: Run, engine: str) -> None:
    status, said, asked = run(engine=engine)
    assert (status, said) == (0, "kappa images, kind, tag t1: built postgresql\n")
    name = "docker.io/kappa/postgresql:t1"
    assert asked[0] == f"{engine} build -t {name} -f charts/kappa/postgresql/Dockerfile charts/kappa/postgresql"
    assert asked[1].startswith(f"{engine} save --output ")
    assert asked[1].endswith(name)
    assert asked[2:] == ["kind load image-archive image.tar --name dev"]


def test_what_has_not_changed_is_left_alone(run: Run) -> None:
    run()
    status, said, asked = run()
    assert (status, said) == (0, "kappa images, kind, tag t1: built nothing; unchanged postgresql\n")
    assert asked == ["docker image inspect docker.io/kappa/postgresql:t1"]


def test_to_a_registry_images_are_pushed_whatever_the_context(run: Run) -> None:
    status, said, asked = run(KAPPA_REGISTRY="registry.example/team")
    assert (status, said) == (0, "kappa images, registry, tag t1: built postgresql\n")
    assert [line.split()[1] for line in asked] == ["build", "push"]
    assert asked[1] == "docker push registry.example/team/kappa/postgresql:t1"


def test_an_image_that_could_not_be_handed_over_counts_as_not_built(run: Run) -> None:
    status, said, asked = run(SAVE_FAILS="1")
    assert (status, "image docker.io/kappa/postgresql:t1 was not built" in said) == (1, True)
    assert not [line for line in asked if line.startswith("kind")]
    assert "built postgresql" in run()[1]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        pytest.param({"context": "production"}, "is no kind cluster: set KAPPA_REGISTRY", id="another cluster"),
        pytest.param({"kind": False}, "there is no command kind", id="no kind"),
        pytest.param({"IMAGES": "windows"}, "there is no image windows", id="no such image"),
    ],
)
def test_what_it_cannot_do_is_one_line(run: Run, options: dict[str, str], complaint: str) -> None:
    status, said, _ = run(**options)
    assert status == 1
    assert complaint in said
    assert len(said.splitlines()) == 1
