"""The CustomResourceDefinitions: read from ``crds/*.yaml``, which the wheel carries as ``kappa_crds/yaml``.

The files are what people read and ``kubectl apply -f crds/`` takes. They share fragments by YAML anchors; read here, those are
written out, as the API server sees them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

Definition = dict[str, Any]

EDITION: Final = "lambda.kappa.dev/edition"
"""Annotation of every definition: a number that rises whenever one of them changes. A release leaves those of a later edition
alone: inside a version fields are only ever added, so it can work with them, and taking them back would take data with them."""

_HERE: Final = Path(__file__).parent


def folder() -> Path:
    """Where the files are: in the installed package, else in the repository."""
    packaged = _HERE / "yaml"
    return packaged if packaged.is_dir() else _HERE.parents[1]


def definitions() -> tuple[Definition, ...]:
    """All CustomResourceDefinitions by name. The caller may change what it gets."""
    return tuple(yaml.safe_load(text) for text in _texts())


def edition(definition: Definition) -> int:
    """0 where somebody else made it."""
    given = (definition["metadata"].get("annotations") or {}).get(EDITION, "")
    return int(given) if given.isdecimal() else 0


def manifest() -> str:
    """All of them as one YAML document stream without anchors."""

    class WithoutAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump_all(definitions(), Dumper=WithoutAliases, sort_keys=False, explicit_start=True, width=130)


@cache
def _texts() -> tuple[str, ...]:
    found = sorted(folder().glob("*.yaml"))
    assert found, f"no CustomResourceDefinitions in {folder()}"
    return tuple(file.read_text(encoding="utf-8") for file in found)
