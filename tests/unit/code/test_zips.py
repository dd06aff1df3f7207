"""What an archive may be, how its size is measured, and AWS's sentence for everything else."""

from __future__ import annotations

import random
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import msgspec
import pytest

import zip_samples
from kappa_core.archives import zips
from kappa_core.archives.zips import Tree, check_zipped_size, inspect, open_archive, read_tree
from kappa_core.errors import InvalidParameterValueException, RequestEntityTooLargeException
from kappa_core.limits import Limits
from zip_samples import WINDOWS, archive, entry, files, link

LIMITS = Limits()
SMALL = msgspec.structs.replace(LIMITS, unzipped_bytes=100_000)
COULD_NOT_UNZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."


def refusal(data: bytes, *, limits: Limits = LIMITS) -> str | None:
    with pytest.raises(InvalidParameterValueException) as caught:
        inspect(data, limits=limits)
    return caught.value.message


def tree(data: bytes) -> Tree:
    with open_archive(data) as opened:
        return read_tree(opened)


def test_the_size_is_that_of_the_files() -> None:
    assert inspect(files({"app.py": "x" * 1_000, "lib/": "", "lib/a.py": "y"}), limits=LIMITS) == 1_001


def test_an_archive_is_read_from_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "code.zip").write_bytes(files({"app.py": "1234"}))
    assert inspect(tmp_path / "code.zip", limits=LIMITS) == 4


@pytest.mark.parametrize("data", [b"not a zip", b"PK", b"PK\3\4" + bytes(100), b"\x1f\x8b" + bytes(50), b"PK\5\6" + bytes(17)])
def test_what_is_no_zip_is_refused(data: bytes) -> None:
    assert refusal(data) == COULD_NOT_UNZIP


@pytest.mark.parametrize("data", [b"", archive(), archive(("only/", b""))])
def test_an_archive_without_files_is_refused(data: bytes) -> None:
    assert refusal(data) == "Uploaded file must be a non-empty zip"


def test_a_truncated_archive_is_refused_wherever_it_ends() -> None:
    data = files({"app.py": "print()\n" * 50, "b.py": "x"})
    for length in range(1, len(data) - 1, 3):
        assert refusal(data[:length]) == COULD_NOT_UNZIP


def test_an_encrypted_archive_is_refused() -> None:
    data = bytearray(files({"app.py": "secret"}))
    data[data.index(b"PK\3\4") + 6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    assert refusal(bytes(data)) == COULD_NOT_UNZIP


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method: int) -> None:
    info = entry("app.py")
    info.compress_type = method
    assert refusal(archive((info, b"content" * 100))) == COULD_NOT_UNZIP


def test_content_that_does_not_match_its_checksum_is_refused() -> None:
    info = entry("app.py")
    info.compress_type = zipfile.ZIP_STORED
    data = archive((info, b"content")).replace(b"content", b"c0ntent")
    assert refusal(data) == COULD_NOT_UNZIP


def test_a_zip_in_a_request_may_have_exactly_50_mib() -> None:
    check_zipped_size(52_428_800, limits=LIMITS)
    with pytest.raises(RequestEntityTooLargeException) as caught:
        check_zipped_size(52_428_801, limits=LIMITS)
    assert caught.value.message == "Zipped size must be smaller than 52428800 bytes"
    assert caught.value.status == 413


def test_exactly_the_unzipped_limit_fits_and_one_byte_more_does_not() -> None:
    assert inspect(archive(("a", bytes(60_000)), ("b", bytes(40_000))), limits=SMALL) == 100_000
    data = archive(("a", bytes(60_000)), ("b", bytes(40_001)))
    assert refusal(data, limits=SMALL) == "Unzipped size must be smaller than 100000 bytes"


def test_a_bomb_is_stopped_at_the_limit_without_holding_what_it_unpacks_to() -> None:
    data = archive(("zeros", bytes(30_000_000)), ("more", bytes(30_000_000)))
    assert len(data) < 100_000
    limits = msgspec.structs.replace(LIMITS, unzipped_bytes=50_000_000)
    tracemalloc.start()
    try:
        assert refusal(data, limits=limits) == "Unzipped size must be smaller than 50000000 bytes"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_header_that_claims_less_than_there_is_does_not_help() -> None:
    data = archive(("zeros", bytes(5_000_000)))
    assert refusal(zip_samples.with_claimed_size(data, 10), limits=SMALL) == COULD_NOT_UNZIP


def test_a_header_that_claims_more_than_there_is_is_refused() -> None:
    data = archive(("app.py", b"content"))
    assert refusal(zip_samples.with_claimed_size(data, 5_000)) == COULD_NOT_UNZIP


def test_entries_that_share_one_stream_are_counted_each() -> None:
    assert refusal(zip_samples.overlapping(300, size=1_000_000)) in {
        "Unzipped size must be smaller than 262144000 bytes",
        COULD_NOT_UNZIP,  # newer versions of zipfile see the overlap first
    }


def test_too_many_entries_are_refused_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips.zipfile, "ZipFile", None)  # type: ignore[attr-defined]
    assert refusal(zip_samples.overlapping(zips.ENTRIES + 1, size=10)) == COULD_NOT_UNZIP


def test_folders_that_names_imply_count_as_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "ENTRIES", 100)
    deep = [("/".join(f"{number}-{level}" for level in range(40)), b"") for number in range(3)]
    assert refusal(archive(*deep)) == COULD_NOT_UNZIP


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "C:\\x", "a/../../x", "..\\x", "x" * 300])
def test_names_that_leave_the_tree_are_refused(name: str) -> None:
    assert refusal(archive(("app.py", b""), (entry(name), b"evil"))) == COULD_NOT_UNZIP
    assert refusal(archive(("app.py", b""), (entry(name, mode=None, system=WINDOWS), b"evil"))) == COULD_NOT_UNZIP


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../..", b"..", b"", b"\xff\xfe", b"x" * 5_000])
def test_links_that_leave_the_tree_are_refused(target: bytes) -> None:
    assert refusal(archive(("app.py", b""), (link("evil"), target))) == COULD_NOT_UNZIP


def test_a_file_below_a_link_is_refused() -> None:
    assert refusal(archive((link("a"), b"b"), ("a/x", b""), ("b/", b""))) == COULD_NOT_UNZIP
    assert refusal(archive(("a/x", b""), (link("a"), b"/tmp"))) == COULD_NOT_UNZIP


@pytest.mark.parametrize("type_", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices_pipes_and_sockets_are_refused(type_: int) -> None:
    assert refusal(archive(("app.py", b""), (entry("special", mode=type_ | 0o666), b""))) == COULD_NOT_UNZIP


def test_a_name_that_is_both_a_file_and_a_folder_is_refused() -> None:
    assert refusal(archive(("a", b"file"), ("a/b", b"below"))) == COULD_NOT_UNZIP
    assert refusal(archive(("a/", b""), ("a", b"file"))) == COULD_NOT_UNZIP


def test_of_entries_with_one_name_the_last_one_counts() -> None:
    data = archive(("app.py", b"first"), ("./app.py", b"second"), (link("l"), b"app.py"), ("l", b"a file now"))
    found = tree(data)
    assert {"/".join(parts): entry.info.file_size for parts, entry in found.files.items()} == {"app.py": 6, "l": 10}
    assert found.links == {}


def test_names_that_differ_in_case_are_different() -> None:
    assert set(tree(files({"App.py": "", "app.py": "1"})).files) == {("App.py",), ("app.py",)}


@pytest.mark.parametrize(
    ("mode", "executable"),
    [(0o100755, True), (0o100700, True), (0o104755, True), (0o100644, False), (0o100600, False), (0o755, True)],
)
def test_executability_comes_from_the_modes_where_there_are_some(mode: int, executable: bool) -> None:
    assert tree(archive((entry("bootstrap", mode=mode), b""))).files[("bootstrap",)].executable is executable


@pytest.mark.parametrize("info", [entry("x", mode=None), entry("x", mode=None, system=WINDOWS), entry("x", mode=0o600)])
def test_without_modes_bootstrap_and_extensions_are_executable(info: zipfile.ZipInfo) -> None:
    for name, executable in {"bootstrap": True, "extensions/agent": True, "app.py": False, "lib/bootstrap": False}.items():
        info.filename = name
        (found,) = tree(archive((info, b""))).files.values()
        assert found.executable is executable


def test_windows_separators_make_folders() -> None:
    data = archive((entry("lib\\a.py", mode=None, system=WINDOWS), b""), (entry("empty\\", mode=None, system=WINDOWS), b""))
    found = tree(data)
    assert set(found.files) == {("lib", "a.py")}
    assert found.folders == {("lib",), ("empty",)}


def test_utf8_names_without_the_flag_are_read_as_utf8() -> None:
    data = archive(("xx-hello.py", b"")).replace(b"xx-hello", "üß-xxx".encode())
    assert set(tree(data).files) == {("üß-xxx.py",)}


def test_times_come_from_the_extended_field_and_else_from_the_entry() -> None:
    plain, extended, broken = entry("plain"), entry("extended"), entry("broken", modified=(1980, 0, 0, 0, 0, 0))
    extended.extra = struct.pack("<HHBl", 0x5455, 5, 1, 1_700_000_001)
    found = tree(archive((plain, b""), (extended, b""), (broken, b""))).files
    assert [found[(name,)].modified for name in ("plain", "extended", "broken")] == [1_706_933_106, 1_700_000_001, 315_532_800]


@pytest.mark.parametrize("seed", range(30))
def test_damaged_archives_are_read_or_refused_and_nothing_else_happens(seed: int) -> None:
    dice = random.Random(seed)
    whole = archive(
        ("app.py", b"print('hello')\n" * 20),
        ("lib/data.bin", dice.randbytes(300)),
        (link("lib/link"), b"../app.py"),
        (entry("win\\x.txt", mode=None, system=WINDOWS), b"text"),
    )
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        if dice.random() < 0.3:
            cut = dice.randrange(len(damaged))
            damaged[cut : cut + dice.randrange(20)] = dice.randbytes(dice.randrange(20))
        outcomes.add(outcome(bytes(damaged)))
    assert outcomes <= {
        "read",
        COULD_NOT_UNZIP,
        "Unzipped size must be smaller than 100000 bytes",
        "Uploaded file must be a non-empty zip",
    }


def outcome(data: bytes) -> str | None:
    try:
        inspect(data, limits=SMALL)
    except InvalidParameterValueException as error:
        return error.message
    return "read"
