"""The data directory: one owner at a time, a secret that stays, nothing readable by others, and clear words when it cannot be."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path

import pytest

from kappa_gateway.embedded.data_dir import DataDir, DataDirError


def test_the_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    with closing(DataDir(tmp_path / "data", shared=False)) as first:
        secret = first.secret
    with closing(DataDir(tmp_path / "data", shared=False)) as second:
        assert second.secret == secret
    assert len(secret) == 32


def test_only_the_owner_can_look_inside(tmp_path: Path) -> None:
    with closing(DataDir(tmp_path / "data", shared=False)) as data:
        assert stat.S_IMODE(data.root.stat().st_mode) == 0o700
        assert stat.S_IMODE((data.root / "secret").stat().st_mode) == 0o600


def test_a_second_owner_is_refused_unless_both_share(tmp_path: Path) -> None:
    with closing(DataDir(tmp_path / "data", shared=False)), pytest.raises(DataDirError, match="another kappa dev uses"):
        DataDir(tmp_path / "data", shared=False)
    with closing(DataDir(tmp_path / "data", shared=True)), closing(DataDir(tmp_path / "data", shared=True)):
        pass


def test_a_damaged_secret_is_named(tmp_path: Path) -> None:
    DataDir(tmp_path / "data", shared=False).close()
    (tmp_path / "data" / "secret").write_bytes(b"short")
    with pytest.raises(DataDirError, match="damaged"):
        DataDir(tmp_path / "data", shared=False)


def test_what_dead_runs_left_is_removed(tmp_path: Path) -> None:
    with closing(DataDir(tmp_path / "data", shared=False)) as data:
        dead = data.root / "run" / "999999999"
        dead.mkdir()
        mine = data.work_dir()
        assert mine.name == str(os.getpid())
        assert not dead.exists()


def test_a_long_path_gets_a_socket_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    with closing(DataDir(deep, shared=False)) as data:
        socket = data.socket(data.work_dir())
        assert len(os.fsencode(socket)) <= 90
        folder = socket.parent
        assert folder.is_dir()
    assert not folder.exists()


def test_a_path_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DataDirError, match="cannot be used"):
        DataDir(tmp_path / "data", shared=False)
