"""The filesystem of an environment, entered from inside: mounts, the new root, capabilities. Linux; standard library only, Python 3.9+.

A freshly forked process, about to become a runtime, calls :func:`enter` with the plan that ``kappa_runtime.supervisor.sandbox``
made, or :func:`reenter` when its environment has a filesystem from before a reset (``/tmp`` survives it). Loaded by the zygote and
by the supervisor's own forks. It decides nothing: a step that fails raises OSError with the path in it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MNT_DETACH = 2
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1
_SYS_MOUNT_SETATTR = 442  # the same on every architecture
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "s390x": 217, "ppc64le": 203}
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CAPABILITY_VERSION_3 = 0x20080522
# What statvfs reports of a mount and a remount has to repeat, as mount flags.
_KEPT_FLAGS = ((2, 2), (4, 4), (8, 8), (1024, 1024), (2048, 2048), (4096, 1 << 21))

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _check(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), target)


def _make_read_only(path: str) -> None:
    """Everything mounted at and below ``path``; on kernels before 5.12 only the mount itself."""
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    if _libc.syscall(_SYS_MOUNT_SETATTR, -100, os.fsencode(path), _AT_RECURSIVE, attributes, ctypes.c_size_t(32)) == 0:
        return
    status = os.statvfs(path)
    kept = 0
    for seen, flag in _KEPT_FLAGS:
        if status.f_flag & seen:
            kept |= flag
    _mount(None, path, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def enter(plan: dict[str, Any]) -> None:
    """Make the root that the plan describes and move into it. The calling process must have one thread."""
    user = plan["user"]
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_CLONE_NEWNS | (_CLONE_NEWUSER if user else 0)), "unshare")
    if user:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", "%d %d 1" % (uid, uid))
        _write("/proc/self/gid_map", "%d %d 1" % (gid, gid))
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    root = plan["root"]
    for step in plan["steps"]:
        _take(step, root)
    os.chdir(root)
    # Both names of the same place: the old root ends up under the new one and is taken away (pivot_root(2), "NOTES").
    machine = os.uname().machine
    _check(_libc.syscall(_SYS_PIVOT_ROOT[machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount")
    os.chdir("/")
    confine(plan["capabilities"])


def _take(step: list[Any], root: str) -> None:
    name = step[0]
    path = root + step[1] if step[1] != "/" else root
    if name == "tmpfs":
        _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV, step[2])
    elif name == "directory":
        os.makedirs(path, exist_ok=True)
    elif name == "link":
        if not os.path.lexists(path):
            os.symlink(step[2], path)
    elif name == "bind":
        if os.path.isdir(step[2]):
            os.makedirs(path, exist_ok=True)
        elif not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        _mount(step[2], path, None, _MS_BIND | _MS_REC)
    elif name == "read-only":
        _make_read_only(path)
    else:
        raise ValueError("unknown step " + name)


def reenter(mounts: int, user: int | None, capabilities: list[int]) -> None:
    """Move into the namespaces of an earlier process of this environment, given as file descriptors."""
    if user is not None:
        _check(_libc.setns(user, _CLONE_NEWUSER), "setns user")
    _check(_libc.setns(mounts, _CLONE_NEWNS), "setns mnt")
    os.chdir("/")
    confine(capabilities)


def confine(capabilities: list[int]) -> None:
    """Give up every capability but these, for this process and whatever it executes.

    With no_new_privs an execve can no longer add any, not even for root (cap_bprm_creds_from_file), so the bounding set may stay.
    """
    mask = sum(1 << capability for capability in capabilities)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("=IIIIII", mask, mask, 0, 0, 0, 0)
    _check(_libc.capset(header, data), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def end_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
