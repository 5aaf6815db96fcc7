# SPDX-License-Identifier: BSD-3-Clause
"""`ages`: how much of what is in memory nobody has used for how long."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import click

from preswapd.api.client import Client
from preswapd.api.figures import Statistics
from preswapd.api.messages import Age
from preswapd.cli.instances import ask_all, complain
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.look.columns import AGE_COLUMNS, AGE_DEFAULT
from preswapd.cli.look.rows import ages_of
from preswapd.cli.look.table import (
    Style,
    TableCommand,
    TextTable,
    check_style,
    choose,
    table_options,
)
from preswapd.cli.output import print_answers
from preswapd.commandline import DEVICE
from preswapd.errors import RefusedError


class Found(NamedTuple):
    """The ages of one instance, or what it said instead."""

    stats: Statistics
    ages: Sequence[Age]
    refusal: str | None = None


class AgesCommand(TableCommand):
    tables = (("Columns", AGE_COLUMNS, AGE_DEFAULT),)


@click.command("ages", cls=AgesCommand)
@click.argument("dev", required=False, type=DEVICE)
@table_options
@pass_invocation
def ages_command(
    invocation: Invocation,
    dev: str | None,
    output: str | None,
    raw: bool,
    exact: bool,
    noheadings: bool,
) -> None:
    """Show how much of what is in tmem was not used for how long, in all devices or in DEV.

    A page is used when it is written or read. Each row counts the pages of the longer times
    too, and the first one counts all. `shrink --idle` moves those of its AGE to disk. Ages begin
    anew with the server: no page is older than that has run. With --json it is
    {"instances": [...]} where no instance is named.

    \b
    Examples:
      preswapctl ages
      preswapctl ages swap0
      preswapctl --instance vm1 --json ages
    """
    style = Style(output, raw, exact, not noheadings)
    check_style(style, as_json=invocation.json)
    table = TextTable(choose(AGE_COLUMNS, AGE_DEFAULT, output), style)
    instances = invocation.instances
    asked = instances.running() if dev is None else [instances.having(dev)]
    answers, errors = ask_all(asked, lambda client: look(client, dev))
    found = [answer for answer in answers if answer.refusal is None]
    if invocation.json:
        named = instances.named
        print_answers([described(one, named=named) for one in found], named=named)
    elif found:
        table.print(row for one in found for row in ages_of(one.stats, one.ages))
    if dev is None:
        instances.warn_of_stopped()
    complain(errors)
    if refusals := [f"{one.stats['instance']}: {one.refusal}" for one in answers if one.refusal]:
        raise RefusedError("; ".join(refusals))


def look(client: Client, dev: str | None) -> Found:
    """An older server, which does not know them, must not keep the others from the operator."""
    stats = client.stats()
    try:
        return Found(stats, client.ages(dev))
    except RefusedError as error:
        return Found(stats, [], str(error))


def described(found: Found, *, named: bool) -> dict[str, object]:
    """Where an instance was named, nobody needs to be told which it is."""
    name = {} if named else {"instance": found.stats["instance"]}
    return {**name, "ages": [asdict(age) for age in found.ages]}
