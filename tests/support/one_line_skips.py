"""Says in one line what a test run skipped and why, just above pytest's closing line.

A pytest plugin, loaded by `tests/conftest.py`. Machines differ (no Node.js, no user namespaces, no second Python), so a run that
skips is normal; a reader who has to scroll for what was skipped is not. It changes no outcome and hides no skip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def summarise(reasons: Iterable[str]) -> str:
    """One line for all skip reasons, the most frequent first; empty when nothing was skipped.

    Parameters
    ----------
    reasons
        The reason of each skipped test, as pytest reports it (`Skipped: ...`).
    """
    counted = Counter(reason.removeprefix("Skipped: ").strip() or "no reason given" for reason in reasons)
    parts = [f"{count} × {reason}" for reason, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]
    return f"skipped here: {'; '.join(parts)}" if parts else ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the line; pytest's own closing line still comes last."""
    reports = terminalreporter.stats.get("skipped", [])
    line = summarise(str(report.longrepr[2]) for report in reports if isinstance(report.longrepr, tuple))
    if line:
        terminalreporter.write_line(line)
