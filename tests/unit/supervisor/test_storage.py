"""What takes room below a folder: allocated blocks, each file once, whatever its names are."""

from __future__ import annotations

import os
from pathlib import Path

from kappa_runtime.supervisor.storage import empty, exceeds, has_size


def test_files_of_all_folders_below_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(os.urandom(300_000))
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (below / "two").write_bytes(os.urandom(300_000))
    assert exceeds(tmp_path, 500_000)
    assert not exceeds(tmp_path, 1_000_000)


def test_a_file_counts_once_and_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(os.urandom(900_000))
    folder = tmp_path / "tmp"
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(300_000))
    (folder / "again").hardlink_to(folder / "large")
    (folder / "away").symlink_to(outside)
    (folder / "up").symlink_to(tmp_path)
    assert not exceeds(folder, 500_000)


def test_a_sparse_file_takes_what_it_has_written(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    assert not exceeds(tmp_path, 1 << 20)


def test_what_is_gone_takes_nothing(tmp_path: Path) -> None:
    assert not exceeds(tmp_path / "gone", 0)


def test_a_folder_on_a_large_disk_has_no_size_of_its_own(tmp_path: Path) -> None:
    assert not has_size(tmp_path, limit_mb=1)
    assert has_size(tmp_path, limit_mb=1 << 30)


def test_emptying_leaves_the_folder_and_what_links_lead_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    folder = tmp_path / "tmp"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").touch()
    (folder / "away").symlink_to(outside)
    empty(folder)
    assert list(folder.iterdir()) == []
    assert (outside / "kept").exists()
