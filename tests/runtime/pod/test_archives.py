"""Code and layers of a pod: from a server by link to a read-only folder, or one clear refusal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kappa_core.spec import Archive
from kappa_runtime.pod import downloads
from kappa_runtime.pod.archives import Archives
from kappa_runtime.supervisor.errors import CodeUnavailable
from pod_gateway import ArchiveServer, python_spec


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with ArchiveServer().serving() as one:
        yield one


class Folders:
    def __init__(self, root: Path) -> None:
        self.task, self.opt, self.work = root / "task", root / "opt", root / "work"
        for folder in (self.task, self.opt):
            folder.mkdir()
        self.archives = Archives(self.work, task=self.task, opt=self.opt)

    def place(self, code: Archive | None, *layers: Archive, along: bytes = b"") -> None:
        self.archives.place(python_spec(code=code, layers=layers), along)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_code_goes_to_the_task_and_layers_over_each_other_to_opt(server: ArchiveServer, folders: Folders) -> None:
    folders.place(
        server.offer({"app.py": "x"}), server.offer({"lib/a": "first", "lib/b": "first"}), server.offer({"lib/b": "second"})
    )
    assert (folders.task / "app.py").read_text() == "x"
    assert [(folders.opt / "lib" / name).read_text() for name in "ab"] == ["first", "second"]
    assert list(folders.work.iterdir()) == []


def test_code_that_came_along_is_not_fetched_and_layers_are(server: ArchiveServer, folders: Folders) -> None:
    code, layer = server.offer({"app.py": "x"}), server.offer({"lib/a": "layer"})
    (_, along) = next(found for path, found in server.answers.items() if code.url.endswith(path))
    assert isinstance(along, bytes)
    folders.place(code, layer, along=along)
    assert (folders.task / "app.py").read_text() == "x"
    assert (folders.opt / "lib" / "a").read_text() == "layer"
    assert [path for path in server.asked if code.url.endswith(path)] == []
    assert list(folders.work.iterdir()) == []


def test_what_an_earlier_life_left_is_gone(server: ArchiveServer, folders: Folders) -> None:
    folders.place(server.offer({"old/app.py": "x"}))
    folders.task.chmod(0o755)
    (folders.task / "link").symlink_to("/etc")
    folders.place(server.offer({"app.py": "y"}))
    assert [entry.name for entry in folders.task.iterdir()] == ["app.py"]


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"size": 5}], ids=["digest", "size"])
def test_an_archive_that_is_another_one_is_refused_before_it_is_opened(
    server: ArchiveServer, folders: Folders, change: dict[str, object]
) -> None:
    archive = msgspec.structs.replace(server.offer({"app.py": "x"}), **change)
    with pytest.raises(CodeUnavailable, match="its size or its digest is wrong"):
        folders.place(archive)
    assert list(folders.task.iterdir()) == []


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_link_that_has_expired_is_an_error_at_once(server: ArchiveServer, folders: Folders, status: int) -> None:
    with pytest.raises(CodeUnavailable, match=f"answers {status}"):
        folders.place(server.offer({"app.py": "x"}, status=status))
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http:///x", "x"])
def test_other_links_than_http_and_https_are_not_followed(folders: Folders, url: str) -> None:
    with pytest.raises(CodeUnavailable, match="neither http nor https"):
        folders.place(Archive(url=url, sha256="0" * 64, size=1))


def test_an_archive_that_leaves_its_folder_is_refused(server: ArchiveServer, folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(CodeUnavailable, match="cannot be unpacked"):
        folders.place(server.offer({"../escaped": "x"}))
    assert not (tmp_path / "escaped").exists()
    assert list(folders.work.iterdir()) == []


def test_a_server_that_is_away_is_asked_again_until_the_pod_ends(
    server: ArchiveServer, folders: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(downloads, "LONGEST_PAUSE", 0.001)
    monkeypatch.setattr(downloads, "FIRST_PAUSE", 0.001)
    asked = threading.Event()

    def busy() -> tuple[int, bytes]:
        if len(server.asked) == 5:
            folders.archives.stop()
            asked.set()
        return 503, b""

    archive = server.offer({"app.py": "x"})
    server.answers = dict.fromkeys(server.answers, (0, busy))
    with pytest.raises(CodeUnavailable, match="the pod ends"):
        folders.place(archive)
    assert asked.is_set()
    assert caplog.text.count("answers 503") == 1
