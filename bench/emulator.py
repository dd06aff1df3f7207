"""Where AWS's own emulator (RIE) comes from: given, fetched before, out of a wheel on the package index, or built with Go.

The wheel is that of aws-sam-cli, which carries the executables of AWS's releases; its version and hash stand in requirements/bench.txt,
so that everybody compares with the same one. Nothing of it is installed: the executable alone is unpacked, into a folder beside this file.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_CACHE = _HERE / ".cache"
_WHEEL = _HERE.parent / "requirements" / "bench.txt"
_MODULE = "github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie@latest"
_ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}


class Unavailable(Exception):
    """Something to compare with cannot run here; the message is one line."""


def rie_binary(given: Path | None) -> Path:
    """The emulator's executable. Raises Unavailable with what each way to it said."""
    if given is not None:
        if not os.access(given, os.X_OK):
            raise Unavailable(f"{given} is no executable")
        return given.resolve()
    cached = _CACHE / "aws-lambda-rie"
    if cached.exists():
        return cached
    _CACHE.mkdir(exist_ok=True)
    reasons = []
    for way in (_unpack, _build):
        try:
            way(cached)
        except Unavailable as reason:
            reasons.append(str(reason))
        else:
            return cached
    raise Unavailable("; ".join(reasons))


def _unpack(target: Path) -> None:
    """Out of the wheel. The name appears when the whole file is there, so that an interrupted run leaves no broken one."""
    architecture = _ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or architecture is None:
        raise Unavailable(f"AWS releases it for Linux on x86_64 and arm64, not for {sys.platform} on {platform.machine()}")
    with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
        pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check")
        _run((*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", _WHEEL, "-d", folder), "pip download")
        try:
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                unpacked = Path(wheel.extract(f"samcli/local/rapid/aws-lambda-rie-{architecture}", folder))
        except (StopIteration, KeyError, zipfile.BadZipFile) as error:
            raise Unavailable(f"the wheel holds no emulator: {error}") from error
        unpacked.chmod(0o755)
        unpacked.replace(target)


def _build(target: Path) -> None:
    if shutil.which("go") is None:
        raise Unavailable("no go on PATH to build it with")
    _run(("go", "install", _MODULE), "go install", GOBIN=str(target.parent))


def _run(command: tuple[str | Path, ...], name: str, **variables: str) -> None:
    ran = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
        raise Unavailable(f"{name} failed: {(lines or ['no reason given'])[-1][:160]}")
