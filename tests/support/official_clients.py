"""AWS's own runtime clients where tests can use them: awslambdaric beside Kappa, aws-lambda-ric as `make test` installs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kappa_gateway.embedded import sdks

NODE_CLIENTS = Path(__file__).resolve().parents[1] / "runtime" / "aws-lambda-ric"


def python_client(cache: Path) -> str:
    """The folder with awslambdaric, or a skip."""
    folder = sdks.sdk_variables(cache).get("KAPPA_CLIENT_PYTHON")
    if folder is None:
        pytest.skip("awslambdaric is not installed")
    return folder


def node_client(folder: Path, *, major: int) -> Path:
    """A folder with ``node_modules/aws-lambda-ric`` of this major version, made in ``folder``; or a skip."""
    package = NODE_CLIENTS / "node_modules" / ("aws-lambda-ric" if major == 3 else f"aws-lambda-ric-{major}")
    if not any(package.rglob("rapid-client.node")):
        pytest.skip("aws-lambda-ric is not installed (tools/fixtures.sh builds it)")
    modules = folder / "client" / "node_modules"
    modules.mkdir(parents=True)
    (modules / "aws-lambda-ric").symlink_to(package)
    return modules.parent
