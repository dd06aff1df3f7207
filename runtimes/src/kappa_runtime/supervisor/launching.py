"""Which command runs a function: the table from (language of the runtime, client) to argv, variables and files.

Everything that is not the fork of a zygote starts through here: Kappa's own bootstraps, AWS's official clients, the executable
``bootstrap`` of a provided runtime, with or without AWS_LAMBDA_EXEC_WRAPPER in front. Host paths that only the supervisor needs
come as platform variables: ``KAPPA_SDK_PYTHON`` and ``KAPPA_SDK_NODE`` (folders with boto3 / the JavaScript SDK, served as
``/var/runtime``), ``KAPPA_CLIENT_PYTHON`` and ``KAPPA_CLIENT_NODE`` (folders that hold ``awslambdaric`` / ``node_modules/aws-lambda-ric``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

import msgspec

import kappa_runtime
from kappa_core.spec import VersionSpec
from kappa_runtime.supervisor.environment_variables import Places

Language = Literal["python", "node", "provided"]

_BOOTSTRAPS: Final = Path(kappa_runtime.__path__[0]).resolve() / "bootstrap"
PYTHON_SCRIPTS: Final = _BOOTSTRAPS / "python"
NODE_SCRIPTS: Final = _BOOTSTRAPS / "node"

EXEC_WRAPPER: Final = "AWS_LAMBDA_EXEC_WRAPPER"
# Read by the interpreter or the dynamic loader when a process starts: a fork of a zygote would come too late for them.
_START_UP_VARIABLES: Final = ("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "MALLOC_", "GLIBC_TUNABLES", "OPENSSL_", "SSL_")


class InvalidEntrypoint(Exception):
    """The function has nothing that could be executed; the text is AWS's."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    argv: tuple[str, ...]
    extra: dict[str, str] = {}
    """Variables for the bootstrap itself."""


def language_of(runtime: str) -> Language:
    """Raises ValueError for a runtime that has no row in the table."""
    for prefix, language in (("python", "python"), ("nodejs", "node"), ("provided", "provided")):
        if runtime.startswith(prefix):
            return language  # type: ignore[return-value]
    raise ValueError(f"no supervisor for runtime {runtime}")


def runtime_folder(spec: VersionSpec) -> str | None:
    """The host's folder behind ``/var/runtime``."""
    match language_of(spec.runtime):
        case "python":
            return spec.platform_variables.get("KAPPA_SDK_PYTHON")
        case "node":
            return spec.platform_variables.get("KAPPA_SDK_NODE")
        case "provided":
            return None


def client_folder(spec: VersionSpec) -> str | None:
    """The host's folder with the official client, where that was asked for."""
    if spec.client != "official":
        return None
    name = "KAPPA_CLIENT_PYTHON" if language_of(spec.runtime) == "python" else "KAPPA_CLIENT_NODE"
    return spec.platform_variables.get(name)


def visible_paths(spec: VersionSpec) -> tuple[str, ...]:
    """Host paths that must exist inside the sandbox under their own names."""
    paths: list[str] = []
    if spec.command:
        for path in (Path(spec.command[0]), Path(spec.command[0]).resolve()):
            prefix = path.parent.parent
            if str(prefix) not in ("/", "/usr", "/usr/local"):
                paths.append(str(prefix))
        paths.append(str(PYTHON_SCRIPTS if language_of(spec.runtime) == "python" else NODE_SCRIPTS))
    client = client_folder(spec)
    if client is not None:
        paths.append(client)
    return tuple(dict.fromkeys(paths))


def forks_from_zygote(spec: VersionSpec) -> bool:
    """Whether an environment may be a fork: nothing that must be there when an interpreter starts."""
    if language_of(spec.runtime) != "python" or spec.client != "own" or EXEC_WRAPPER in spec.variables:
        return False
    for name in spec.variables:
        if name.startswith("PYTHON") and name != "PYTHONPATH":
            return False
        if name.startswith(_START_UP_VARIABLES):
            return False
    # The loader reads LD_LIBRARY_PATH once per process; it matters where the zip or a layer brings libraries in these folders.
    folders = [Path(spec.task_root), Path(spec.task_root) / "lib"]
    if spec.opt_root is not None:
        folders.append(Path(spec.opt_root) / "lib")
    return not any(_holds_libraries(folder) for folder in folders)


def _holds_libraries(folder: Path) -> bool:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names suffice
    except (FileNotFoundError, NotADirectoryError):
        return False
    return any(".so" in name and "cpython" not in name and "abi3" not in name for name in names)


def command(spec: VersionSpec, places: Places) -> Command:
    """The command of one environment, without a zygote. Raises InvalidEntrypoint."""
    language = language_of(spec.runtime)
    if language == "provided":
        return Command(argv=(_provided(spec, places),))
    argv, extra = _python(spec, places) if language == "python" else _node(spec, places)
    wrapper = spec.variables.get(EXEC_WRAPPER)
    if wrapper:
        # Written for Lambda's paths; where these are stand-ins, a layer's wrapper is still that layer's.
        for theirs, ours in (("/opt/", f"{places.opt}/"), ("/var/task/", f"{places.task}/")):
            if wrapper.startswith(theirs):
                wrapper = ours + wrapper.removeprefix(theirs)
        argv = (wrapper, *argv)
    return Command(argv=argv, extra=extra)


def _python(spec: VersionSpec, places: Places) -> tuple[tuple[str, ...], dict[str, str]]:
    # -S -s: no site-packages of this machine. What a function may import is decided by the bootstrap alone.
    argv = (*spec.command, "-S", "-s", str(PYTHON_SCRIPTS / "bootstrap.py"))
    if spec.client == "official":
        client = client_folder(spec)
        return (*argv, "--official", spec.handler), python_extra(places) | ({"_KAPPA_CLIENT": client} if client else {})
    return argv, python_extra(places)


def python_extra(places: Places) -> dict[str, str]:
    """Variables that the Python bootstrap reads and removes."""
    return {"_KAPPA_OPT": places.opt} if places.stand_in else {}


def _node(spec: VersionSpec, places: Places) -> tuple[tuple[str, ...], dict[str, str]]:
    # Flags recorded from AWS's Node.js runtimes.
    flags = ("--expose-gc", "--max-http-header-size=81920")
    if spec.client == "official":
        return (*spec.command, *flags, _node_client(spec, places), spec.handler), {}
    return (*spec.command, *flags, str(NODE_SCRIPTS / "bootstrap.cjs")), {}


def _node_client(spec: VersionSpec, places: Places) -> str:
    """aws-lambda-ric of the task, then of the layers, then of this machine, as the function will see it.

    Version 3 has its program in ``bin`` and takes the handler as argument; version 4 reads it from ``_HANDLER``.
    """
    client = client_folder(spec)
    layers = (f"{spec.opt_root}/nodejs", f"{places.opt}/nodejs") if spec.opt_root is not None else (None, "")
    for host, seen in ((spec.task_root, places.task), layers, (client, client)):
        for program in ("bin/index.mjs", "index.mjs"):
            name = f"node_modules/aws-lambda-ric/{program}"
            if host is not None and (Path(host) / name).is_file():
                return f"{seen}/{name}"
    raise InvalidEntrypoint("Couldn't find aws-lambda-ric in [/var/task/node_modules /opt/nodejs/node_modules]")


def _provided(spec: VersionSpec, places: Places) -> str:
    """``bootstrap`` of the task, then of the layers, as the function will see it."""
    for host, seen in ((spec.task_root, places.task), (spec.opt_root, places.opt)):
        if host is not None and (Path(host) / "bootstrap").is_file():
            return f"{seen}/bootstrap"
    raise InvalidEntrypoint("Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]")


def entrypoint_failure(spec: VersionSpec, number: int, path: str) -> str | None:
    """AWS's text for an execution that failed, where it is the function's entrypoint that did; else None."""
    if language_of(spec.runtime) != "provided":
        return None
    reason = os.strerror(number).lower() if number else path
    return f"fork/exec {'/opt' if path.startswith('/opt') else '/var/task'}/bootstrap: {reason}"
