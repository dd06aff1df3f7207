"""The files that a function's own interpreter runs: Python 3.9 syntax, standard library only."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from kappa_runtime.supervisor.launching import PYTHON_SCRIPTS

FILES = sorted(PYTHON_SCRIPTS.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_a_bootstrap_file_is_python_3_9_and_imports_only_the_standard_library(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= set(sys.stdlib_module_names) | {"bootstrap", "enter_sandbox"}
