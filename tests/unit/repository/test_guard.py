"""The guard of `make lint` refuses what it promises to refuse, with the place, and nothing else."""

import importlib.util
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def guard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guard", Path(__file__).parents[3] / "tools" / "guard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        pytest.param("operator/__init__.py", "", "shadows the standard library", id="package that hides operator"),
        pytest.param("tests/unit/__init__.py", "", "no packages", id="test package"),
        pytest.param("core/src/kappa_core/big.py", "x\n" * 601, "601 lines", id="one line too many"),
        pytest.param("core/src/a.py", "a = 1\n# TO" + "DO later\n", "a.py:2: unfinished", id="left for later"),
        pytest.param("docs/x.md", "FIX" + "ME\n", "x.md:1: unfinished", id="left for later in prose"),
        pytest.param("t/package-lock.json", '  "resolved": "https://x/y.tgz"\n', "names a package index", id="npm lock"),
        pytest.param("requirements/dev.txt", "--index-url https://x\n", "names a package index", id="pip lock"),
    ],
)
def test_a_breach_is_named_with_its_place(guard: ModuleType, path: str, text: str, said: str) -> None:
    found = list(guard.breaches(PurePosixPath(path), text))

    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("operator/src/kappa_operator/__init__.py", "", id="a package below operator"),
        pytest.param("core/src/kappa_core/big.py", "x\n" * 600, id="exactly the most lines"),
        pytest.param("requirements/dev.txt", "a==1\n" * 3000, id="a long lock file"),
        pytest.param("core/src/a.py", "name = mktemp('/tmp/XXXXXX')\n", id="a word that only contains the mark"),
    ],
)
def test_what_is_allowed_passes(guard: ModuleType, path: str, text: str) -> None:
    assert list(guard.breaches(PurePosixPath(path), text)) == []
