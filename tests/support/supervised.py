"""A function under a real supervisor Host: real runtime processes, no gateway and no link.

    async def scenario(work: Path) -> None:
        async with supervised(work, "def handler(event, context): return event") as function:
            assert await function.returned({"a": 1}) == {"a": 1}

By default with stand-in paths, so that a test says the same on every machine; ``mode="namespaces"`` for the sandbox.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

import made_specs
from kappa_core.link.frames import Invoke, LogLine, Result
from kappa_core.spec import VersionSpec
from kappa_runtime.supervisor import sandbox
from kappa_runtime.supervisor.host import Environment, Host
from kappa_runtime.supervisor.sandbox import Mode

ARN = "arn:aws:lambda:us-east-1:000000000000:function:tried"
INTERPRETER = os.path.realpath(sys.executable)
WAIT_SECONDS = 20.0


def version_spec(task_root: Path, **changes: Any) -> VersionSpec:
    """A spec of a small Python function; ``changes`` override its fields."""
    given: dict[str, Any] = {
        "revision": "uid.$LATEST.digest",
        "handler": "index.handler",
        "memory_mb": 256,
        "task_root": str(task_root),
        "command": (INTERPRETER,),
    }
    return made_specs.version_spec("tried", **(given | changes))


@cache
def namespaces_work(scratch: Path) -> bool:
    return sandbox.probe("auto", scratch=scratch).kind == "namespaces"


def need_namespaces(scratch: Path) -> None:
    """Skip where this machine has none."""
    if not namespaces_work(scratch):
        pytest.skip("no mount namespaces here")


@dataclass
class Supervised:
    """One environment of one function."""

    host: Host
    environment: Environment
    task_root: Path
    lines: list[LogLine] = field(default_factory=list)
    exits: list[str] = field(default_factory=list)
    _number: int = 0

    async def invoke(
        self,
        event: Any = None,
        *,
        raw: bytes | None = None,
        on_data: Callable[[bytes], Any] | None = None,
        environment: Environment | None = None,
        **frame: Any,
    ) -> tuple[Result, bytes]:
        """Invoke; ``frame`` are fields of the INVOKE frame. ``tail`` is asked for."""
        self._number += 1
        values: dict[str, Any] = {
            "request_id": f"00000000-0000-4000-8000-{self._number:012d}",
            "function_arn": ARN,
            "tail": True,
        } | frame
        payload = json.dumps(event).encode() if raw is None else raw
        target = environment or self.environment
        async with asyncio.timeout(WAIT_SECONDS):
            return await target.invoke(Invoke(**values), payload, on_data=on_data)

    async def returned(self, event: Any = None, **frame: Any) -> Any:
        """What the handler returned; it must not have failed."""
        result, payload = await self.invoke(event, **frame)
        assert result.function_error == "", payload
        return json.loads(payload)

    async def failed(self, event: Any = None, **frame: Any) -> Any:
        """The error JSON; it must have failed."""
        result, payload = await self.invoke(event, **frame)
        assert result.function_error == "Unhandled", payload
        return json.loads(payload)

    @property
    def log(self) -> str:
        """Everything so far."""
        return "".join(line.message for line in self.lines)

    def log_of(self, request_id: str) -> str:
        return "".join(line.message for line in self.lines if line.request_id == request_id)


@asynccontextmanager
async def supervised(
    folder: Path,
    code: str | Mapping[str, str],
    *,
    mode: Mode = "plain",
    init: bool = True,
    hidden: tuple[Path, ...] = (),
    **spec: Any,
) -> AsyncIterator[Supervised]:
    """Write ``code`` (of ``index.py``, or by file name) below ``folder``/task, start an environment, end all of it."""
    task_root = folder / "task"
    task_root.mkdir(exist_ok=True)
    for name, text in ({"index.py": code} if isinstance(code, str) else code).items():
        path = task_root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if text.startswith("#!"):
            path.chmod(0o755)
    lines: list[LogLine] = []
    exits: list[str] = []
    work = folder / "work"
    host = Host(
        spec=version_spec(task_root, **spec),
        work_dir=work,
        on_log=lambda _environment, new: lines.extend(new),
        on_exit=lambda _environment, reason: exits.append(reason),
        mode=mode,
        hidden=hidden,
    )
    try:
        await host.prepare()
        environment = await host.start("environment-1")
        function = Supervised(host, environment, task_root, lines, exits)
        if init:
            async with asyncio.timeout(WAIT_SECONDS):
                await environment.init()
        yield function
    finally:
        await host.close()
    assert not work.exists()
    assert not marked_processes(environment.log_stream), "a process is left behind"


def marked_processes(log_stream: str) -> set[int]:
    """Processes that were executed with this environment's variables."""
    marker = f"AWS_LAMBDA_LOG_STREAM_NAME={log_stream}".encode()
    found = set()
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if entry.name.isdigit():
            try:
                if marker in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
            except OSError:
                continue  # gone, or another user's
    return found


def lives(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def changed(spec: VersionSpec, **changes: Any) -> VersionSpec:
    return msgspec.structs.replace(spec, **changes)
