"""How a zygote's process is started, for those who do: the supervisor, and a pod before it has loaded the supervisor. Loads nothing."""

from __future__ import annotations

import socket
from typing import NamedTuple


class Started(NamedTuple):
    """A zygote's process that nobody has heard of yet."""

    pid: int
    control: socket.socket
    """Our end; does not block."""


def zygote_arguments(command: tuple[str, ...], scripts: str, control: int) -> tuple[str, ...]:
    """``scripts`` is the folder of the bootstrap, ``control`` the descriptor of its end."""
    return (*command, "-S", "-s", f"{scripts}/zygote.py", str(control))


def zygote_variables() -> dict[str, str]:
    return {"LANG": "en_US.UTF-8", "LC_CTYPE": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
