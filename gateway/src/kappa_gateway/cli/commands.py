"""Subcommands of other packages: found as entry points of the group ``kappa.commands``, loaded when they are asked for.

The gateway does not import the operator, yet both are one ``kappa``. A subcommand whose package is not installed completely (the
extra ``kubernetes``) is listed all the same and says what it needs.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Final

import click

GROUP: Final = "kappa.commands"


class Commands(click.Group):
    """A group that has these subcommands besides its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_found()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _found():
            return own
        command = _found()[cmd_name].load()
        if not isinstance(command, click.Command):
            raise TypeError(f"the entry point {cmd_name} of {GROUP} is no command")
        return command


def _found() -> dict[str, EntryPoint]:
    return {each.name: each for each in entry_points(group=GROUP)}
