"""What a pod begins before it loads anything else: the zygote of a Python image, and the look for its gateways.

A zygote boots on another processor while the supervisor loads, and a name server answers meanwhile. Only what an interpreter loads
anyway, or asyncio needs, is used here. The :class:`~kappa_runtime.supervisor.zygote.Zygote` takes over the process that was started;
should nobody do so, the end of this one ends it. A look that fails says nothing: it is made again by whoever asks for it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

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


class Look(threading.Thread):
    """The addresses of one ``dns:host:port``, being looked up; ``found`` stays empty if that fails."""

    def __init__(self, host: str, port: str) -> None:
        super().__init__(daemon=True)
        self.host = host
        self.port = port
        self.found: set[str] = set()

    def run(self) -> None:
        with contextlib.suppress(OSError, UnicodeError):  # UnicodeError: a label that is too long for the idna codec
            answers = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            self.found = {str(address[0]) for *_, address in answers}


def look_ahead(gateways: str) -> dict[str, Look]:
    """By host, what is being looked up of the value of KAPPA_GATEWAYS."""
    looks = {}
    for source in gateways.split(","):
        scheme, _, rest = source.strip().partition(":")
        host, _, port = rest.rpartition(":")
        if scheme == "dns" and host:
            look = looks[host] = Look(host, port)
            look.start()
    return looks
