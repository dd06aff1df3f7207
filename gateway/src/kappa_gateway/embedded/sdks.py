"""The AWS SDKs that functions import without bringing them, as on AWS, and AWS's own runtime clients where they were asked for.

Each is a folder that the supervisor serves as `/var/runtime` (or, for a client, puts on the search path) and nothing but what is named
here is in it: Kappa's own packages and their dependencies stay out of reach. The one for Python is made of links to boto3 and what it
needs, as installed beside Kappa; all of it is pure Python, so it serves every interpreter. The one for JavaScript is installed from
npm once per user, by `kappa sdk install`. It refuses to install anything by itself: a gateway starts without a network.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

PYTHON_SDK: Final = {
    "boto3": "boto3",
    "botocore": "botocore",
    "s3transfer": "s3transfer",
    "jmespath": "jmespath",
    "dateutil": "python_dateutil",
    "six": "six",
    "urllib3": "urllib3",
}
"""Module and distribution of everything in the folder for Python functions."""
PYTHON_CLIENT: Final = {
    "awslambdaric": "awslambdaric",
    "runtime_client": None,
    "simplejson": "simplejson",
    "snapshot_restore_py": "snapshot_restore_py",
}
"""The same for AWS's Python client; `runtime_client` is its compiled part, so it fits the Python that runs Kappa only."""

NPM_SECONDS: Final = 900.0
_REPLACED: Final = ("/tmp", "/opt", "/var/task", "/var/runtime", "/var/lang")  # noqa: S108 - paths that a function has of its own
_MANIFESTS: Final = ("package.json", "package-lock.json", ".npmrc")


class SdkError(Exception):
    """An SDK could not be installed; the message is one line for the terminal."""


class Entry(NamedTuple):
    """One file or directory of a folder."""

    name: str
    source: Path


# -- Python ---------------------------------------------------------------------------------------------------------------


def python_sdk_entries() -> tuple[Entry, ...]:
    """What the folder for Python functions holds, and where that is installed. Empty parts are not installed here."""
    return _entries(PYTHON_SDK)


def python_client_entries() -> tuple[Entry, ...]:
    """The same for awslambdaric; empty where it is not installed beside Kappa."""
    found = _entries(PYTHON_CLIENT)
    return found if any(entry.name == "awslambdaric" for entry in found) else ()


def python_sdk(cache: Path) -> Path:
    """The folder for Python functions; made when it is not there. Raises OSError."""
    return _folder(cache, "sdk-python", python_sdk_entries())


def _entries(modules: Mapping[str, str | None]) -> tuple[Entry, ...]:
    found: list[Entry] = []
    for module, distribution in modules.items():
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            continue
        source = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        found.append(Entry(source.name, source))
        if distribution is not None:
            # Entry points and versions are read from here: importlib.metadata.version("boto3") works in functions, too.
            found.extend(Entry(path.name, path) for path in sorted(source.parent.glob(f"{distribution}-*.dist-info")))
    return tuple(found)


def _folder(cache: Path, name: str, entries: Iterable[Entry]) -> Path:
    """``<cache>/<name>-<digest of the entries>``, made whole or not at all, by however many processes at once."""
    chosen = tuple(entries)
    copied = any(_is_replaced(entry.source) for entry in chosen)
    text = "\n".join(f"{entry.name}={entry.source}" for entry in chosen) + f"\ncopied={copied}"
    made = cache / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if made.is_dir():
        return made
    started = Path(tempfile.mkdtemp(dir=cache, prefix=f".{name}-"))
    try:
        for entry in chosen:
            target = started / entry.name
            if not copied:
                target.symlink_to(entry.source)
            elif entry.source.is_dir():
                shutil.copytree(entry.source, target, copy_function=_link_or_copy)
            else:
                _link_or_copy(str(entry.source), str(target))
        started.chmod(0o755)
        started.rename(made)
    except OSError:
        shutil.rmtree(started, ignore_errors=True)
        if not made.is_dir():  # otherwise another process was faster
            raise
    return made


def _is_replaced(source: Path) -> bool:
    """Whether a function in a sandbox has something of its own at that path, so that a link there would lead nowhere."""
    return str(source.resolve()).startswith(tuple(f"{path}/" for path in _REPLACED))


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another filesystem, or files of another user
        shutil.copy2(source, target)
    return target


# -- JavaScript -----------------------------------------------------------------------------------------------------------


def node_sdk(*, home: Path | None = None, manifests: Path | None = None) -> Path | None:
    """The folder with ``node_modules`` that `install_node_sdk` made for this version of Kappa, or None."""
    folder = _node_folder(home or shared_home(), manifests or _node_manifests())
    return folder if (folder / "node_modules").is_dir() else None


def install_node_sdk(*, home: Path | None = None, manifests: Path | None = None, npm: str = "npm") -> Path:
    """Install the AWS SDK for JavaScript v3 with ``npm ci`` and return its folder. Does nothing where it is there.

    Several at once wait for the first; one that is killed leaves nothing that counts. Raises SdkError.
    """
    home, manifests = home or shared_home(), manifests or _node_manifests()
    folder = _node_folder(home, manifests)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / "install.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "node_modules").is_dir():
                for abandoned in home.glob(".node-sdk-*"):
                    shutil.rmtree(abandoned, ignore_errors=True)
                _npm_ci(manifests, folder, npm)
    except OSError as error:
        raise SdkError(f"the AWS SDK for JavaScript cannot be installed in {home}: {error.strerror or error}") from error
    return folder


def _npm_ci(manifests: Path, folder: Path, npm: str) -> None:
    executable = shutil.which(npm)
    if executable is None:
        raise SdkError("npm is not on PATH: Node.js functions have to bring the AWS SDK themselves")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".node-sdk-", ignore_cleanup_errors=True) as started:
        for name in _MANIFESTS:
            if (manifests / name).is_file():
                shutil.copyfile(manifests / name, Path(started) / name)
        command = [executable, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            done = subprocess.run(
                command,
                cwd=started,
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=NPM_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise SdkError(f"npm ci did not finish within {NPM_SECONDS:.0f} s") from None
        if done.returncode != 0 or not (Path(started) / "node_modules").is_dir():
            raise SdkError(f"npm ci failed: {_last_words(done.stderr) or f'exit status {done.returncode}'}")
        Path(started).chmod(0o755)
        # What is there without node_modules is no installation; the directory itself would stop the rename.
        shutil.rmtree(folder, ignore_errors=True)
        Path(started).rename(folder)


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if "error" in line and "complete log" not in line]
    return lines[-1][:200] if lines else ""


def _node_folder(home: Path, manifests: Path) -> Path:
    return home / f"node-sdk-{hashlib.sha256((manifests / 'package-lock.json').read_bytes()).hexdigest()[:16]}"


def _node_manifests() -> Path:
    """package.json and its lock: inside an installed Kappa, or in a checkout."""
    packaged = Path(__file__).with_name("node-sdk")
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "runtimes" / "node-sdk"


def shared_home() -> Path:
    """What all data directories of a user share. As a user without a home: a directory of this user's in the temporary one."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "kappa"
    try:
        return Path.home() / ".cache" / "kappa"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"kappa-{os.getuid()}"


# -- for the supervisor ---------------------------------------------------------------------------------------------------


def sdk_variables(cache: Path) -> dict[str, str]:
    """Platform variables that tell supervisors where the folders are; those that are not there are left out. Raises OSError.

    ``KAPPA_SDK_PYTHON``, ``KAPPA_SDK_NODE``: served as `/var/runtime`. ``KAPPA_CLIENT_PYTHON``: holds awslambdaric for the Python
    that runs Kappa; other versions, and Node.js, have AWS's client in the function's own code or layers.
    """
    found = {"KAPPA_SDK_PYTHON": str(python_sdk(cache))}
    if client := python_client_entries():
        found["KAPPA_CLIENT_PYTHON"] = str(_folder(cache, "client-python", client))
    if (node := node_sdk()) is not None:
        found["KAPPA_SDK_NODE"] = str(node)
    return found
