"""What a run skipped is one line, whatever the number of tests."""

from one_line_skips import summarise


def test_equal_reasons_are_counted_and_the_most_frequent_comes_first() -> None:
    line = summarise(["Skipped: no node on PATH", "Skipped: no go", "Skipped: no node on PATH"])

    assert line == "skipped here: 2 × no node on PATH; 1 × no go"


def test_nothing_is_said_when_nothing_was_skipped() -> None:
    assert summarise([]) == ""
