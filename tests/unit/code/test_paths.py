"""Names and links of archives: what stays inside is kept as it is, everything else is refused."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_core.archives.paths import UnsafePath, check_links, entry_parts


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("app.py", ("app.py",)),
        ("a/b/c.txt", ("a", "b", "c.txt")),
        ("./a//b/./c", ("a", "b", "c")),
        ("folder/", ("folder",)),
        ("./", ()),
        ("...", ("...",)),
        ("..a/b..", ("..a", "b..")),
        ("ünï/\U0001f600", ("ünï", "\U0001f600")),
        ("a:b", ("a:b",)),
        ("/".join(["directory"] * 30), ("directory",) * 30),
    ],
)
def test_names_below_the_root_are_kept(name: str, parts: tuple[str, ...]) -> None:
    assert entry_parts(name, backslashes_separate=False) == parts


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "/etc/passwd",
        "//x",
        "\\x",
        "..\\x",
        "a\\..\\..\\x",
        "C:\\x",
        "c:/x",
        "a\0b",
        "x" * 256,
        "ü" * 128,
        "/".join(["d" * 200] * 20),
    ],
)
def test_names_that_lead_elsewhere_or_nowhere_are_refused(name: str, windows: bool) -> None:
    with pytest.raises(UnsafePath):
        entry_parts(name, backslashes_separate=windows)


def test_backslashes_separate_only_in_archives_made_on_windows() -> None:
    assert entry_parts("lib\\a.py", backslashes_separate=True) == ("lib", "a.py")
    assert entry_parts("lib\\a.py", backslashes_separate=False) == ("lib\\a.py",)


@given(st.text(alphabet="./\\ab:C\0", max_size=12), st.booleans())
def test_whatever_the_name_its_place_is_below_the_root(name: str, windows: bool) -> None:
    try:
        parts = entry_parts(name, backslashes_separate=windows)
    except UnsafePath:
        return
    assert posixpath.normpath(posixpath.join("/root", *parts)).startswith("/root")
    assert not {"", ".", ".."} & set(parts)
    assert not any("/" in part for part in parts)


@pytest.mark.parametrize(
    "links",
    [
        {("bin", "tool"): "../lib/tool"},
        {("a",): "b"},
        {("a",): "."},
        {("a", "b"): ".."},
        {("cache",): "/tmp/cache"},
        {("python",): "/opt/python"},
        {("loop",): "loop"},
        {("a",): "b", ("b",): "a"},
        {("v1",): "v1.0", ("v1.0",): "releases/../releases/1"},
    ],
)
def test_links_inside_the_tree_or_to_places_of_the_function_are_kept(links: dict[tuple[str, ...], str]) -> None:
    check_links(links)


@pytest.mark.parametrize(
    "links",
    [
        {("a",): ".."},
        {("a",): "/etc/passwd"},
        {("a",): "/"},
        {("a",): "/tmp/../etc"},
        {("a",): "/tmpfoo"},
        {("a", "b"): "../../x"},
        {("a",): "b/../../c"},
        # Each is inside by its letters; followed one after the other they climb out.
        {("p",): ".", ("q",): ".", ("l",): "p/q/../.."},
        {("p",): "/tmp", ("l",): "p/../etc"},
    ],
)
def test_links_that_leave_the_tree_are_refused(links: dict[tuple[str, ...], str]) -> None:
    with pytest.raises(UnsafePath):
        check_links(links)
