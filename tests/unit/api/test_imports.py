"""What a gateway loads at start: the budget of 1.5 s and 90 MB leaves no room for botocore, and the invoke path none for FastAPI."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOT = "kappa_gateway.wire, kappa_gateway.auth.identity, kappa_gateway.auth.browser, kappa_gateway.auth.session_keys"


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        pytest.param(HOT, {"fastapi", "starlette", "pydantic", "botocore", "boto3"}, id="what-the-invoke-path-uses"),
        pytest.param("kappa_gateway.api.app", {"botocore", "boto3", "urllib3"}, id="the-control-plane"),
    ],
)
def test_importing_does_not_load(modules: str, heavy: set[str]) -> None:
    program = f"import sys, {modules}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()
    assert "kappa_gateway" in loaded
    assert heavy.isdisjoint(loaded), heavy & set(loaded)


def test_reading_the_model_does_not_load_botocore() -> None:
    program = "import sys; from kappa_gateway.api.model import load_model; load_model(); print('botocore' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "False"
