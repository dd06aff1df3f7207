"""``kappa operator``: the subcommand, found by the console script as an entry point of the group ``kappa.commands``."""

from __future__ import annotations

import logging
import sys

import click


@click.command()
def operator() -> None:
    """Run the operator of a cluster. Its settings are KAPPA_* variables (docs/settings.md)."""
    import asyncio  # noqa: PLC0415 - the list of commands must not pay for what one of them needs

    try:
        from kappa_crds.api import Unavailable  # noqa: PLC0415
        from kappa_operator.process import LeaseLost, run  # noqa: PLC0415
        from kappa_operator.settings import SettingsError, load  # noqa: PLC0415
    except ModuleNotFoundError as error:
        click.echo(f"kappa: the operator needs the package {error.name}: pip install 'kappa-faas[kubernetes]'", err=True)
        sys.exit(1)
    try:
        settings = load()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        asyncio.run(run(settings))
    except (SettingsError, LeaseLost, Unavailable, OSError) as error:
        click.echo(f"kappa: {error}", err=True)
        sys.exit(1)
