# SPDX-License-Identifier: BSD-3-Clause
"""Questions before something is lost, and the one meaning of --yes: it answers them."""

import sys

import click

from preswapd.errors import RefusedError

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
force_option = click.option(
    "--force",
    is_flag=True,
    help="Do not ask, and go ahead although the client that was connected may be coming back.",
)


def confirm(what: str, question: str) -> None:
    """Says what is at stake and asks; RefusedError unless the answer is yes."""
    if not sys.stdin.isatty():
        raise RefusedError(f"{what}; there is no terminal to ask on: --yes goes ahead")
    try:
        agreed = click.confirm(f"{what}. {question}", err=True)
    except click.Abort:
        # Ctrl-C, or the end of the input.
        click.echo(err=True)
        agreed = False
    if not agreed:
        raise RefusedError("nothing was changed")
