"""What filesystem a function sees: AWS's real paths in namespaces of its own where the machine allows that, stand-ins elsewhere.

``probe`` finds out once, by doing it in a child process. ``plan`` is pure: it turns the function's directories and the host's
top-level entries into the steps that ``bootstrap/python/enter_sandbox.py`` takes inside the freshly forked process. In the
sandbox the host's files are there and read-only, so that interpreters and libraries work, except for what the function has of
its own: ``/var/task``, ``/opt``, ``/var/runtime``, ``/var/lang/bin`` and a size-limited ``/tmp``. Hidden directories (the gateway's
data) are empty inside. It is isolation against accidents, not against an attacker who shares the kernel and the user.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final, Literal, cast

import msgspec

from kappa_runtime.supervisor.environment_variables import Places
from kappa_runtime.supervisor.errors import SandboxConflict, SandboxUnavailable

Mode = Literal["auto", "namespaces", "plain"]
Kind = Literal["namespaces", "plain"]

_OWN: Final = ("/tmp", "/opt", "/var/task", "/var/runtime", "/var/lang")  # noqa: S108 - the sandbox's, not the host's
_WRITABLE: Final = frozenset({"dev", "proc", "sys"})
"""Kernel filesystems: devices, and what a process may say about itself. Their own permissions protect them."""
# CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER: what root needs to read another user's files, as with sudo.
_ROOT_CAPABILITIES: Final = (0, 1, 2, 3)


class Support(msgspec.Struct, frozen=True):
    """What the machine can do."""

    kind: Kind
    user_namespace: bool = False
    """Mounts need a user namespace, because this process is not privileged."""
    reason: str = ""
    """Why it is plain; for the banner."""


class HostEntry(msgspec.Struct, frozen=True):
    path: str
    link: str | None = None
    """Target, if it is a symbolic link."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What one function brings, as host paths."""

    task: str
    opt: str | None = None
    runtime: str | None = None
    language_bin: str | None = None
    """The directory of the interpreter."""
    ephemeral_mb: int = 512
    keep: tuple[str, ...] = ()
    """Visible at their own paths whatever covers them: interpreters, bootstraps, clients."""
    hidden: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """Input of ``enter_sandbox.enter``; travels to the zygote as JSON."""

    root: str
    user: bool
    capabilities: tuple[int, ...]
    steps: tuple[tuple[str, ...], ...]


def host_entries() -> tuple[HostEntry, ...]:
    """Directories and links in ``/`` and ``/var``; files there are no function's business."""
    found = [path for folder in ("/", "/var") for path in sorted(Path(folder).iterdir())]
    paths = [path for path in found if str(path) != "/var" and (path.is_symlink() or path.is_dir())]
    return tuple(HostEntry(str(path), str(path.readlink()) if path.is_symlink() else None) for path in paths)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def plan(layout: Layout, *, root: str, entries: tuple[HostEntry, ...], opt_entries: tuple[str, ...], support: Support) -> Plan:
    """The steps for one function. ``opt_entries`` are the names in ``layout.opt``. Raises SandboxConflict."""
    steps: list[tuple[str, ...]] = [("tmpfs", "/", "mode=755,size=4m"), ("directory", "/var"), ("directory", "/tmp")]  # noqa: S108
    writable = []
    for entry in entries:
        if any(_inside(entry.path, own) for own in _OWN):
            continue
        if entry.link is not None:
            steps.append(("link", entry.path, entry.link))
        elif entry.path.removeprefix("/") in _WRITABLE:
            steps.append(("directory", entry.path))
            writable.append(entry.path)
        else:
            steps.append(("bind", entry.path, entry.path))
    for place, source in (("/var/task", layout.task), ("/var/runtime", layout.runtime)):
        steps.append(("bind", place, source) if source else ("directory", place))
    steps.append(("directory", "/var/lang"))
    if layout.language_bin:
        steps.append(("link", "/var/lang/bin", layout.language_bin))
    steps.append(("directory", "/opt"))
    if layout.opt is not None:
        steps.extend(("bind", f"/opt/{name}", f"{layout.opt}/{name}") for name in opt_entries)
    hidden = [path for path in layout.hidden if not any(_inside(path, own) for own in _OWN)]
    steps.extend(("tmpfs", path, "mode=755,size=1m") for path in hidden)
    # A data directory may sit right beside what must stay visible: the mount points are made before all of it turns read-only.
    late = []
    for path in dict.fromkeys(layout.keep):
        if _inside(path, "/tmp"):  # noqa: S108 - the host's
            late.append(("bind", path, path))
        elif _inside(path, "/opt"):
            name = path.removeprefix("/opt").strip("/").split("/")[0]
            if not name or name in opt_entries:
                raise SandboxConflict(f"{path} is needed by the runtime, and a layer has /opt/{name}")
            steps.append(("bind", path, path))
        elif any(_inside(path, folder) for folder in hidden):
            steps.append(("bind", path, path))
        elif _inside(path, "/var/task") or _inside(path, "/var/runtime") or _inside(path, "/var/lang"):
            raise SandboxConflict(f"{path} is needed by the runtime, and the function has a directory of that name")
    steps.append(("read-only", "/"))
    steps.extend(("bind", path, path) for path in writable)
    steps.append(("tmpfs", "/tmp", f"mode=1777,size={layout.ephemeral_mb}m"))  # noqa: S108
    steps.extend(late)
    steps.extend(("read-only", step[1]) for step in late)
    capabilities = () if support.user_namespace else _ROOT_CAPABILITIES
    return Plan(root=root, user=support.user_namespace, capabilities=capabilities, steps=tuple(steps))


def stand_ins(layout: Layout, *, temporary: str, empty: str) -> Places:
    """The places of an environment without a sandbox. ``empty`` is a directory with nothing in it."""
    language = str(Path(layout.language_bin).parent) if layout.language_bin else "/usr"
    return Places(
        task=layout.task,
        opt=layout.opt or empty,
        runtime=layout.runtime or empty,
        language=language,
        temporary=temporary,
        stand_in=True,
    )


def probe(mode: Mode, *, scratch: Path) -> Support:
    """Try a sandbox in a child process. ``scratch`` is an existing directory. Raises SandboxUnavailable for ``namespaces``."""
    if mode == "plain":
        return Support("plain", reason="asked for by setting")
    support = _try(scratch)
    if mode == "namespaces" and support.kind != "namespaces":
        raise SandboxUnavailable(f"no namespaces here: {support.reason}")
    return support


def _try(scratch: Path) -> Support:
    if sys.platform != "linux":
        return Support("plain", reason="only Linux has mount namespaces")
    reason = ""
    for user in (False, True):
        support = Support("namespaces", user_namespace=user)
        layout = Layout(task=str(scratch), opt=str(scratch), runtime=str(scratch), ephemeral_mb=1)
        tried = plan(layout, root=str(scratch), entries=host_entries(), opt_entries=(), support=support)
        reason = _enter_in_child(tried)
        if not reason:
            return support
    return Support("plain", reason=reason)


def _enter_in_child(tried: Plan) -> str:
    """Empty if it worked; otherwise the step that did not."""
    from kappa_runtime.bootstrap.python import enter_sandbox  # noqa: PLC0415 - loads libc's mount(2) and friends: Linux only

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter_sandbox.enter(as_dict(tried))
            # The two things that a broken set-up gets wrong first.
            Path("/tmp/probe").write_text("x", encoding="ascii")  # noqa: S108 - inside the sandbox
            os.listdir("/var/task")  # noqa: PTH208
        except BaseException as error:  # noqa: BLE001 - a forked child must never return; the text is the answer
            os.write(writing, str(error).encode())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    try:
        return os.read(reading, 4096).decode(errors="replace")
    finally:
        os.close(reading)
        os.waitpid(pid, 0)


def as_dict(made: Plan) -> dict[str, object]:
    """The form that ``enter_sandbox`` takes."""
    return cast(dict[str, object], msgspec.to_builtins(made))
