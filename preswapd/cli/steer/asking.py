# SPDX-License-Identifier: BSD-3-Clause
"""A question before what cannot be taken back."""

import sys

import click

from preswapd.errors import RefusedError


def confirm(question: str, what: str) -> None:
    """RefusedError unless a person agrees; `what` cannot be taken back, as in "this …"."""
    if not sys.stdin.isatty():
        raise RefusedError(f"this {what} and there is no terminal to ask on: give --yes")
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        # Ctrl-C, or the end of the input.
        click.echo(err=True)
        agreed = False
    if not agreed:
        raise RefusedError("nothing was changed")
