"""Which names and which symbolic links an archive may contain: pure decisions that extraction relies on.

A name must lead to one place below the root whatever is on the disk, so ``..``, absolute names and drive letters are refused rather
than repaired. A link may point anywhere inside the tree, seen through all other links of it, or to a place that is the function's
own at run time (``/tmp``, ``/opt`` and the like); nothing here touches the disk.
"""

from __future__ import annotations

import posixpath
import re
from collections import deque
from collections.abc import Mapping
from typing import Final

Parts = tuple[str, ...]
"""A path below the root, one name each; never empty, never with ``.`` or ``..``."""

NAME_BYTES: Final = 255
"""Of one file name, on every file system we know."""
PATH_BYTES: Final = 3072
"""Of a path below the root: leaves a kilobyte of Linux's PATH_MAX for where the tree stands."""
LINK_BYTES: Final = 4096
_LINKS_FOLLOWED = 40
"""The kernel gives up there with ELOOP (path_resolution(7)), so a longer chain leads nowhere."""
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_OWN_PLACES = ("/tmp", "/opt", "/var/task", "/var/runtime", "/var/lang", "/mnt")  # noqa: S108 - as functions see them


class UnsafePath(Exception):
    """The name or link may not be extracted; the message says which and why, for logs. Callers see AWS's own sentence."""


def entry_parts(name: str, *, backslashes_separate: bool) -> Parts:
    """The place below the root that ``name`` means; empty for the root itself. Raises UnsafePath.

    ``backslashes_separate`` is true for archives made on Windows, some of whose tools write them against the specification.
    """
    if "\0" in name:
        raise UnsafePath(f"name with a null character: {name!r}")
    slashed = name.replace("\\", "/")
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise UnsafePath(f"absolute name {name!r}")
    if ".." in slashed.split("/"):
        raise UnsafePath(f"name leaves the tree: {name!r}")
    parts = tuple(part for part in (slashed if backslashes_separate else name).split("/") if part not in {"", "."})
    if any(len(part.encode()) > NAME_BYTES for part in parts) or len(name.encode()) > PATH_BYTES:
        raise UnsafePath(f"name is too long: {name[:80]!r}…")
    return parts


def check_links(links: Mapping[Parts, str]) -> None:
    """Refuse links of a tree that lead out of it, each seen through all others. Raises UnsafePath."""
    for path, target in links.items():
        if not _stays_inside(path[:-1], target, links):
            raise UnsafePath(f"link {'/'.join(path)!r} leaves the tree: {target!r}")


def _stays_inside(folder: Parts, target: str, links: Mapping[Parts, str]) -> bool:
    if target.startswith("/"):
        return _is_own_place(target)
    position = list(folder)
    ahead = deque(target.split("/"))
    followed = 0
    while ahead:
        part = ahead.popleft()
        if part in {"", "."}:
            continue
        if part == "..":
            if not position:
                return False
            position.pop()
            continue
        position.append(part)
        link = links.get(tuple(position))
        if link is None:
            continue
        followed += 1
        if followed > _LINKS_FOLLOWED:
            return True
        if link.startswith("/"):
            return _is_own_place("/".join((link, *ahead)))
        position.pop()
        ahead.extendleft(reversed(link.split("/")))
    return True


def _is_own_place(target: str) -> bool:
    path = posixpath.normpath(target)
    return any(path == place or path.startswith(f"{place}/") for place in _OWN_PLACES)
