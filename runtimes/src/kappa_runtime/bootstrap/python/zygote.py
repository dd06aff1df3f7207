"""The fork server of a Python function: an interpreter with the bootstrap loaded, which forks an environment in milliseconds.

    zygote.py FD        FD: one end of a SOCK_SEQPACKET pair; the supervisor holds the other

Messages are JSON, one per packet. Supervisor → zygote: ``{"environment", "variables", "directory", "sandbox", "namespaces",
"files"}`` with file descriptors (the log pipe; for a reset environment its namespaces). Zygote → supervisor: ``ready`` once,
``forked`` with a pid, ``ended`` with a wait status and the peak memory in KiB.

It preloads only standard modules that the bootstrap itself needs, never the customer's code. When the supervisor goes away, it ends
everything that it forked, and itself. Linux; standard library only, Python 3.9+.
"""

from __future__ import annotations

import array
import gc
import json
import os
import random
import resource
import select
import signal
import socket
import sys
import time
from typing import Any

import bootstrap
import enter_sandbox

_MESSAGE = 256 * 1024


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    message, ancillary, _, _ = control.recvmsg(_MESSAGE, socket.CMSG_SPACE(8 * fds.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


def wait_for_order(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for every order. Returns in the child only, with its order and file descriptors."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    children: dict[int, tuple[int, str]] = {}
    while True:
        for fd, _ in poll.poll():
            if fd != control.fileno():
                pid, environment = children.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                _, status, usage = os.wait4(pid, 0)
                tell(control, {"ended": pid, "environment": environment, "status": status, "peak_kib": usage.ru_maxrss})
                continue
            try:
                message, fds = receive(control)
            except ConnectionResetError:  # the supervisor ended with something of ours unread
                message, fds = b"", []
            if not message:
                end(children)
            order = json.loads(message)
            pid = os.fork()
            if pid == 0:
                control.close()
                for sibling in children:
                    os.close(sibling)
                return order, fds
            for inherited in fds:
                os.close(inherited)
            watch = os.pidfd_open(pid)  # type: ignore[attr-defined]
            children[watch] = (pid, order["environment"])
            poll.register(watch, select.POLLIN)
            tell(control, {"forked": pid, "environment": order["environment"]})


def tell(control: socket.socket, message: dict[str, Any]) -> None:
    try:
        control.send(json.dumps(message).encode())
    except OSError:
        pass  # the supervisor is gone; the next receive says so


def end(children: dict[int, tuple[int, str]]) -> None:
    for pid, _ in children.values():
        for kill in (os.killpg, os.kill):
            try:
                kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # not a group leader yet, or ended
    os._exit(0)


def become(order: dict[str, Any], fds: list[int]) -> None:
    """In the child: session, log pipe, variables, filesystem, limits."""
    os.setsid()
    os.dup2(fds[0], 1)
    os.dup2(fds[0], 2)
    if order["namespaces"]:
        enter_sandbox.reenter(fds[1], fds[2] if len(fds) > 2 else None, order["sandbox"]["capabilities"])
    elif order["sandbox"]:
        enter_sandbox.enter(order["sandbox"])
    for fd in fds:
        os.close(fd)
    os.environ.clear()
    os.environ.update(order["variables"])
    time.tzset()
    os.chdir(order["directory"])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = order["files"] if hard == resource.RLIM_INFINITY else min(order["files"], hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    random.seed()


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    os.close(os.pidfd_open(os.getpid()))  # type: ignore[attr-defined]  # fails here, not at the first environment
    # Compiled and imported once, shared by every fork.
    gc.collect()
    gc.freeze()
    tell(control, {"ready": os.getpid(), "version": sys.version.split()[0], "prefix": sys.base_prefix})
    order, fds = wait_for_order(control)
    del control
    try:
        become(order, fds)
    except OSError as error:
        os.write(2, ("kappa: this environment could not be set up: %s\n" % error).encode())
        os._exit(1)
    # From here on this process looks as if it had been started with bootstrap.py alone.
    for name in ("zygote", "bootstrap", "enter_sandbox"):
        sys.modules.pop(name, None)
    bootstrap.__name__ = "__main__"
    bootstrap.__spec__ = None
    sys.modules["__main__"] = bootstrap
    bootstrap.run_environment()


if __name__ == "__main__":
    main()
