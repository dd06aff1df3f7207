"""Fixtures of the cluster suite: the cluster, and one installed release for all tests of the run."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from kappa_cluster import SCRIPTS, Cluster, Release, installed, require_cluster, run

IDLE_SECONDS = 8
"""Short, so that a test sees a function go to zero; long enough that none goes in the middle of another test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one part alone come before the release is installed: it serves the whole cluster, their namespaces included."""
    items.sort(key=lambda item: "release" in getattr(item, "fixturenames", ()))


_installed: list[Release] = []


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What the test before has killed runs again before the next one, or a fixture of its module, looks for it."""
    if "release" in getattr(item, "fixturenames", ()):
        for each in _installed:
            each.wait_whole()


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of KUBECONFIG."""
    return require_cluster()


@pytest.fixture(scope="session", autouse=True)
def definitions(cluster: Cluster) -> None:
    """The kinds are known, as after an install: not every test makes one."""
    run(str(SCRIPTS / "kappa"), "crds", "apply")


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Iterator[Release]:
    """Kappa, installed by helm into a fresh namespace; gone without a trace at the end."""
    with installed(cluster, functions={"idleSeconds": IDLE_SECONDS}) as running:
        _installed.append(running)
        yield running
        _installed.remove(running)


@pytest.fixture
def name() -> str:
    """A function name that no other test uses."""
    return f"fn-{secrets.token_hex(4)}"


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Callable[..., str]]:
    """Makes namespaces that end with the test: `namespace("orders", account="111111111111")`."""
    with_block = []

    def make(label: str, *, account: str = "") -> str:
        made = cluster.namespace(f"kappa-{label}-{secrets.token_hex(3)}", account=account)
        with_block.append(made)
        return made.__enter__()

    yield make
    for made in reversed(with_block):
        made.__exit__(None, None, None)
