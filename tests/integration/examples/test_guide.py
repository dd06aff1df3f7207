"""The first session of the README and the getting-started page work as they are written."""

import json
from pathlib import Path

from kappa_dev import RUNTIME, KappaDev
from readme_commands import run_readme

ROOT = Path(__file__).parents[3]


def adapted(kappa: KappaDev) -> dict[str, str]:
    return {r"http://127\.0\.0\.1:9000": kappa.endpoint, r"python3\.11": RUNTIME, r"\.venv/bin/": ""}


def test_the_session_on_the_readmes_first_screen_works(kappa: KappaDev, tmp_path: Path) -> None:
    printed = run_readme(ROOT / "README.md", folder=tmp_path, environment=kappa.environment(), replace=adapted(kappa))

    assert json.loads((tmp_path / "answer.json").read_bytes()) == "Hello, Ada"
    assert "REPORT RequestId: " in printed.splitlines()[-1]


def test_the_getting_started_page_works_from_its_first_command_to_its_last(kappa: KappaDev, tmp_path: Path) -> None:
    page = ROOT / "docs" / "guide" / "getting-started.md"

    printed = run_readme(page, folder=tmp_path, environment=kappa.environment(), replace=adapted(kappa))

    assert '{"greeting": "Hello, Ada"}' in printed
    assert "greeting Ada\n" in printed
    # The last answer comes through the alias: the version's word, not the newer one of $LATEST.
    assert json.loads((tmp_path / "answer.json").read_bytes()) == {"greeting": "Welcome, Ada"}
    assert "greeter" not in [each["FunctionName"] for each in kappa.client().list_functions()["Functions"]]
