"""``kappa crds``: the CustomResourceDefinitions, into a cluster or onto standard output. Parses, calls, prints."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import NoReturn

import click


@click.group()
def crds() -> None:
    """The CustomResourceDefinitions of lambda.kappa.dev."""


@crds.command()
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=None,
    help="Instead of the pod's own cluster, KUBECONFIG or ~/.kube/config.",
)
def apply(kubeconfig: Path | None) -> None:
    """Apply them to the current cluster and wait until it serves them; may be repeated."""
    try:
        from kappa_crds.api import ApiError, KubernetesApi  # noqa: PLC0415
        from kappa_crds.apply import apply_crds  # noqa: PLC0415
    except ModuleNotFoundError as error:
        _fail(_missing(error))

    async def connected() -> None:
        api = await KubernetesApi.connect(kubeconfig=kubeconfig)
        try:
            await apply_crds(api, say=click.echo)
        finally:
            await api.close()

    try:
        asyncio.run(connected())
    except ApiError as error:
        _fail(str(error))


@crds.command("print")
def print_() -> None:
    """Print them as YAML, for kubectl, Kustomize or a repository."""
    try:
        from kappa_crds.definitions import manifest  # noqa: PLC0415
    except ModuleNotFoundError as error:
        _fail(_missing(error))
    click.echo(manifest(), nl=False)


def _missing(error: ModuleNotFoundError) -> str:
    return f"{error.name} is not installed; run: pip install 'kappa-faas[kubernetes]'"


def _fail(message: str) -> NoReturn:
    click.echo(f"kappa: {message}", err=True)
    sys.exit(1)
