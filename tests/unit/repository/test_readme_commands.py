"""Commands in a README are the blocks fenced as sh, in their order; other blocks are prose."""

from pathlib import Path

import pytest

from readme_commands import commands, run_readme

README = "# A\n\n    indented is prose\n\n```sh\necho one > out\n```\n\n```json\n{}\n```\n\n```sh\ncat out\n```\n"


def test_only_sh_blocks_are_commands(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)

    assert commands(tmp_path / "README.md") == "echo one > out\n\ncat out\n"


def test_a_readme_without_commands_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# nothing to type\n")

    with pytest.raises(AssertionError, match="no block"):
        commands(tmp_path / "README.md")


def test_commands_run_in_the_folder_with_what_a_reader_adapts_replaced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)

    printed = run_readme(tmp_path / "README.md", folder=tmp_path, environment={"PATH": "/usr/bin:/bin"}, replace={"o(n)e": "two"})

    assert printed == "two\n"


def test_the_first_command_that_fails_fails_the_whole(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("```sh\nfalse\necho went on\n```\n")

    with pytest.raises(AssertionError, match="failed"):
        run_readme(tmp_path / "README.md", folder=tmp_path, environment={"PATH": "/usr/bin:/bin"}, replace={})
