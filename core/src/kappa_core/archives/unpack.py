"""Writing one archive, or several over each other, into an empty folder as a read-only tree.

Folders and files come first and links last, so that nothing is ever written through a link. Files get 0444 or, where executable,
0555, and folders 0555: a tree is shared by all environments of a version. Set-id bits and owners are not kept.

It refuses, with AWS's error, what :mod:`kappa_core.archives.zips` refuses, and layers of which one has a file where another has a
folder. Blocking: to be run on a thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from kappa_core.archives.paths import Parts, UnsafePath, check_links
from kappa_core.archives.zips import COULD_NOT_UNZIP, FileEntry, chunks, open_archive, read_tree
from kappa_core.errors import InvalidParameterValueException


def unpack(archives: Sequence[Path], target: Path, /) -> None:
    """Unpack ``archives`` in order, later ones over earlier ones, into the empty folder ``target``. Raises OSError when the disk
    does; the caller then removes what there is."""
    with contextlib.ExitStack() as stack:
        folders: set[Parts] = set()
        files: dict[Parts, tuple[zipfile.ZipFile, FileEntry]] = {}
        links: dict[Parts, str] = {}
        for path in archives:
            archive = stack.enter_context(open_archive(path))
            tree = read_tree(archive)
            for parts in tree.files.keys() | tree.links.keys():
                files.pop(parts, None)
                links.pop(parts, None)
            files |= {parts: (archive, entry) for parts, entry in tree.files.items()}
            links |= tree.links
            folders |= tree.folders
        for parts in folders:
            if parts in files or parts in links:
                raise InvalidParameterValueException(f"{'/'.join(parts)} is a file in one layer and a folder in another")
        # Links of different layers may lead out together where each alone does not.
        check_links(links)
        _write(target, folders, files, links)


def remove_tree(tree: Path, /) -> None:
    """Remove a tree that :func:`unpack` made, or a part of one; nothing if it is not there."""
    for folder, _, _ in os.walk(tree):
        with contextlib.suppress(FileNotFoundError):
            Path(folder).chmod(0o700)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(tree)


def _write(
    target: Path, folders: set[Parts], files: dict[Parts, tuple[zipfile.ZipFile, FileEntry]], links: dict[Parts, str]
) -> None:
    outermost_first = sorted(folders, key=lambda parts: (len(parts), parts))
    try:
        for parts in outermost_first:
            target.joinpath(*parts).mkdir(mode=0o755)
        for parts, (archive, entry) in files.items():
            _write_file(target.joinpath(*parts), archive, entry)
        for parts, link in links.items():
            target.joinpath(*parts).symlink_to(link)
    except FileExistsError as error:
        # The file system does not tell upper from lower case, or one form of an accent from another, and the archive does.
        raise InvalidParameterValueException(COULD_NOT_UNZIP) from UnsafePath(f"two entries fall on {error.filename}")
    for parts in reversed(outermost_first):
        target.joinpath(*parts).chmod(0o555)
    with contextlib.suppress(PermissionError):  # the root of a pod's volume is root's, whoever may write to it
        target.chmod(0o555)


def _write_file(path: Path, archive: zipfile.ZipFile, entry: FileEntry) -> None:
    with path.open("xb") as file:
        for chunk in chunks(archive, entry.info):
            file.write(chunk)
        file.flush()
        os.fchmod(file.fileno(), 0o555 if entry.executable else 0o444)
        os.utime(file.fileno(), (entry.modified, entry.modified))
