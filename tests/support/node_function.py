"""A Node.js function under a bootstrap and a stand-in Runtime API: files in, answers, logs and exit status out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import kappa_runtime
from queued_runtime_api import WAIT_SECONDS, QueuedRuntimeApi, Sent

BOOTSTRAP = Path(kappa_runtime.__path__[0]) / "bootstrap" / "node" / "bootstrap.cjs"
FLAGS = ("--expose-gc", "--max-http-header-size=81920")


@cache
def node() -> str:
    """The Node.js on PATH, or a skip."""
    found = shutil.which("node") or shutil.which("nodejs")
    if found is None or node_version(found) < (18, 0):
        pytest.skip("no Node.js 18 or later on PATH")
    return found


@cache
def node_version(executable: str) -> tuple[int, ...]:
    """Major and minor number; (0, 0) of what does not run."""
    try:
        said = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=WAIT_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return (0, 0)
    return tuple(int(part) for part in said.strip().removeprefix("v").split(".")[:2])


@dataclass
class NodeFunction:
    """A running function."""

    api: QueuedRuntimeApi
    process: subprocess.Popen[bytes]
    task_root: Path
    _log: Path

    def invoke(self, event: Any = None, *, headers: Mapping[str, str] | None = None, raw: bytes | None = None) -> Sent:
        """See QueuedRuntimeApi.invoke."""
        return self.api.invoke(event, headers=headers, raw=raw)

    def returned(self, event: Any = None) -> Any:
        """What the handler returned; it must not have failed."""
        sent = self.invoke(event)
        assert sent.kind == "response", sent.body
        return sent.json

    def posted(self) -> Sent:
        """What the runtime posts without having been asked (init/error), or for an event queued before."""
        return self.api.sent.get(timeout=WAIT_SECONDS)

    def exit_status(self) -> int:
        """Wait for the process to end."""
        return self.process.wait(WAIT_SECONDS)

    def output(self) -> str:
        """Standard output and error so far."""
        return self._log.read_bytes().decode()  # not read_text: carriage returns are part of the format


@contextmanager
def node_function(
    folder: Path,
    files: Mapping[str, str],
    handler: str,
    *,
    runtime: str = "nodejs20.x",
    variables: Mapping[str, str] | None = None,
    api: QueuedRuntimeApi | None = None,
    command: Sequence[str] | None = None,
    pass_fds: Sequence[int] = (),
    stdout: int | None = None,
) -> Iterator[NodeFunction]:
    """Write ``files`` below ``folder``/task and start the function. ``command`` replaces Kappa's bootstrap, ``stdout`` the file
    behind ``output()``."""
    task_root = folder / "task"
    for name, text in files.items():
        path = task_root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    task_root.mkdir(exist_ok=True)
    log = folder / "output"
    with api or QueuedRuntimeApi() as server, log.open("wb") as output:
        environment = {
            "PATH": os.environ["PATH"],
            "TZ": ":UTC",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": "tried",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/tried",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/02/[$LATEST]0123456789abcdef0123456789abcdef",
            "AWS_LAMBDA_RUNTIME_API": server.address,
            "LAMBDA_TASK_ROOT": str(task_root),
            "_HANDLER": handler,
        } | dict(variables or {})
        process = subprocess.Popen(
            [node(), *FLAGS, *(command or [str(BOOTSTRAP)])],
            cwd=task_root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output if stdout is None else stdout,
            stderr=output,
            pass_fds=pass_fds,
        )
        try:
            yield NodeFunction(server, process, task_root, log)
        finally:
            process.kill()
            process.wait(WAIT_SECONDS)
