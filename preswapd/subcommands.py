# SPDX-License-Identifier: BSD-3-Clause
"""A command's subcommands in one table; the module of each is imported when it is run.

Most of what preswapctl can do needs modules that its other commands do not, and whoever runs one
of those would wait for them.  A guest waits while `preswapd serve` starts again.
"""

from importlib import import_module
from typing import Any

import click


def imported(place: str) -> Any:
    """What MODULE:ATTRIBUTE names; its module is imported now."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


class Subcommand(click.Command):
    """What --help and completion show of a subcommand: its name, and how its help text begins."""

    def __init__(self, name: str, place: str, help: str) -> None:
        """`place`: where the command itself is, as MODULE:ATTRIBUTE."""
        super().__init__(name, help=help)
        self.place = place

    def load(self) -> click.Command:
        try:
            command: click.Command = imported(self.place)
        except KeyboardInterrupt:
            # click would write an empty line before it is told.
            raise click.Abort from None
        return command


class Subcommands(click.Group):
    """A group that loads a subcommand when it is run, and lists it without that."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Subcommand) else command, rest
