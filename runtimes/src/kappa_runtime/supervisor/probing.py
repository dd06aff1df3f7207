"""``python -m kappa_runtime.supervisor.probing MODE``: one sentence about what functions see of this machine, for banners.

A process of its own, because whoever prints a banner may not import the runtimes, and because probing forks.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import cast

from kappa_runtime.supervisor.errors import SandboxUnavailable
from kappa_runtime.supervisor.sandbox import Mode, Support, probe


def sentence(support: Support) -> str:
    """What a user has to know of it."""
    if support.kind == "namespaces":
        return "Functions see /var/task, /opt and a /tmp of their own, of the size that is configured."
    return f"Functions run on stand-in paths, without a limit on /tmp ({support.reason})."


def main() -> None:
    mode = cast(Mode, sys.argv[1] if len(sys.argv) > 1 else "auto")
    with tempfile.TemporaryDirectory(prefix="kappa-probe-") as scratch:
        try:
            print(sentence(probe(mode, scratch=Path(scratch))))
        except SandboxUnavailable as error:
            print(f"Functions cannot run: {error}.")


if __name__ == "__main__":
    main()
