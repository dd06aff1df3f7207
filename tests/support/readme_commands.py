"""Runs the shell commands of a README as a reader would, so that what is written there is what works.

Blocks fenced as `sh` count, in their order, in one shell that stops at the first failure. What a reader adapts (addresses, the version of
their Python or Node.js) is replaced; nothing else is.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_OFFLINE = re.compile(
    r"Temporary failure in name resolution|Failed to establish a new connection|Network is unreachable|ENOTFOUND|EAI_AGAIN|no such host"
)
"""What pip, npm and go say when there is no network."""


def commands(readme: Path) -> str:
    """All `sh` blocks of a Markdown file as one script."""
    blocks = _BLOCK.findall(readme.read_text(encoding="utf-8"))
    assert blocks, f"{readme} has no block fenced as sh"
    return "\n".join(blocks)


def run_readme(readme: Path, *, folder: Path, environment: Mapping[str, str], replace: Mapping[str, str]) -> str:
    """Run the commands of a Markdown file; returns what they print.

    Parameters
    ----------
    readme
        The file.
    folder
        Where they run: they write into it, so it is a copy of an example or empty.
    environment
        The whole environment of the commands.
    replace
        Regular expressions and what stands for them in the commands.
    """
    script = commands(readme)
    for pattern, value in replace.items():
        script = re.sub(pattern, value.replace("\\", r"\\"), script)
    ran = subprocess.run(
        ["sh", "-euc", script],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    if ran.returncode != 0 and _OFFLINE.search(ran.stdout):
        pytest.skip("packages of an example cannot be downloaded: no network")
    assert ran.returncode == 0, f"the commands of {readme.parent.name}/{readme.name} failed:\n{ran.stdout}"
    return ran.stdout
