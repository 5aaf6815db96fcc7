# SPDX-License-Identifier: BSD-3-Clause
"""What the two commands list is what they can do, and it is loaded when it is run."""

import click
import pytest

from preswapd.__main__ import preswapd
from preswapd.cli.main import preswapctl
from preswapd.subcommands import Subcommand, Subcommands

LISTED = [
    pytest.param(group, name, id=f"{group.name} {name}")
    for group in (preswapctl, preswapd)
    for name in group.commands
]


@pytest.mark.parametrize(("group", "name"), LISTED)
def test_listed_as_it_is(group: Subcommands, name: str) -> None:
    listed = group.commands[name]
    found, command, rest = group.resolve_command(click.Context(group), [name, "--help"])
    assert command is not None
    assert not isinstance(command, Subcommand)
    assert (found, command.name, rest) == (name, name, ["--help"])
    # A width that cuts no sentence short.
    assert listed.get_short_help_str(1000) == command.get_short_help_str(1000)


def test_unknown_one() -> None:
    with pytest.raises(click.UsageError, match="No such command 'nonsense'"):
        preswapctl.resolve_command(click.Context(preswapctl), ["nonsense"])
