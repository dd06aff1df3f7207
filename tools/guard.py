#!/usr/bin/env python3
"""Refuses what no other tool here notices: part of `make lint`.

It looks at the files that git tracks (and those about to be added) and names every breach with file and line. It reads only; what to
do about a breach is the author's business.

- `operator/__init__.py` would shadow the standard library's `operator` for every process started in the repository's root.
- An `__init__.py` under `tests/` makes test packages of the folders, with names that clash.
- A source file over 600 lines has to be split.
- A note that something is still to be done belongs into an issue, not into the code.
- A lock file that names where packages come from would tie every contributor to that place.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MAX_LINES = 600
"""Lines of a source file; beyond that it is split."""

SOURCE_SUFFIXES = frozenset({".py", ".mjs", ".cjs", ".js", ".sh", ".go", ".c", ".rs", ".yaml", ".toml", ".md"})
GENERATED_NAMES = frozenset({"package-lock.json", "Cargo.lock", "go.sum"})

# Written in two halves so that this file does not refuse itself.
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
INDEX_ADDRESS = re.compile(r'^\s*"resolved":\s*"https?:|^\s*--(?:extra-)?(?:index-url|find-links)\b')


def breaches(path: PurePosixPath, text: str) -> Iterator[str]:
    """Yield one sentence per rule that the file breaks.

    Parameters
    ----------
    path
        Relative to the repository's root.
    text
        The whole file.
    """
    if path == PurePosixPath("operator/__init__.py"):
        yield f"{path}: shadows the standard library's operator module; the package is operator/src/kappa_operator"
    if path.name == "__init__.py" and path.parts[0] == "tests":
        yield f"{path}: tests are imported by path (--import-mode=importlib) and are no packages"
    lines = text.splitlines()
    if path.name in GENERATED_NAMES or path.parts[0] == "requirements":
        yield from (
            f"{path}:{number}: names a package index" for number, line in enumerate(lines, 1) if INDEX_ADDRESS.search(line)
        )
        return
    if path.suffix in SOURCE_SUFFIXES and len(lines) > MAX_LINES:
        yield f"{path}: {len(lines)} lines, more than {MAX_LINES}"
    yield from (f"{path}:{number}: unfinished: {line.strip()}" for number, line in enumerate(lines, 1) if UNFINISHED.search(line))


def tracked_files(root: Path) -> list[PurePosixPath]:
    """Every file git knows or would add, ignored ones left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, check=True, capture_output=True
    )
    return [PurePosixPath(name) for name in listed.stdout.decode().split("\0") if name and (root / name).is_file()]


def main() -> int:
    """Print each breach; exit status 1 when there is one."""
    root = Path(__file__).resolve().parent.parent
    found: list[str] = []
    for path in tracked_files(root):
        try:
            text = (root / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            found.append(f"{path}: not text; binary files are made by the tests or examples that need them")
            continue
        found.extend(breaches(path, text))
    for sentence in found:
        print(sentence, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
