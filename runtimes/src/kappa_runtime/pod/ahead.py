"""Starts the zygote of a Python image before anything else is loaded: it boots on another processor while the supervisor loads.

Only what an interpreter has loaded anyway is used here. The :class:`~kappa_runtime.supervisor.zygote.Zygote` takes over what was started;
should nobody do so, the end of this process ends it.
"""

from __future__ import annotations

import os
import socket

import kappa_runtime
from kappa_runtime.supervisor.started import Started, zygote_arguments, zygote_variables


def is_python(command: str) -> bool:
    """Whether environments can be forked from a zygote of this interpreter."""
    return command.rpartition("/")[2].startswith("python")


def start_zygote(command: str) -> Started | None:
    """A zygote of this interpreter; None where it cannot be started, which is told when it is tried again."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.set_inheritable(True)
        scripts = f"{kappa_runtime.__path__[0]}/bootstrap/python"
        argv = zygote_arguments((command,), scripts, theirs.fileno())
        try:
            pid = os.posix_spawn(
                command,
                argv,
                zygote_variables(),
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
                setsid=True,
            )
        except OSError:
            ours.close()
            return None
    ours.setblocking(False)
    return Started(pid, ours)
