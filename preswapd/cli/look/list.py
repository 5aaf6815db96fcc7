# SPDX-License-Identifier: BSD-3-Clause
"""`list`: the devices, a row each."""

import click

from preswapd.api.client import Client
from preswapd.api.figures import DeviceFigures, Statistics
from preswapd.cli.instances import all_images, ask_all, complain
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.look.columns import DEVICE_COLUMNS, DEVICE_DEFAULT, PARKED, parked
from preswapd.cli.look.rows import Moment, devices_of
from preswapd.cli.look.table import (
    Style,
    TableCommand,
    TextTable,
    check_style,
    choose,
    table_options,
)
from preswapd.cli.output import print_answers
from preswapd.units import format_pages


class ListCommand(TableCommand):
    tables = (("Columns", DEVICE_COLUMNS, DEVICE_DEFAULT),)


@click.command("list", cls=ListCommand)
@table_options
@pass_invocation
def list_command(
    invocation: Invocation, output: str | None, raw: bool, exact: bool, noheadings: bool
) -> None:
    """Show the devices, one row each.

    Sizes are the guest's: what its pages take before they are compressed. They add up:
    SIZE = USED + FREE, and USED = TMEM + DISK + LOST. Counts run from the server's start. Where a
    virtual machine is parked, its devices say so in a further column, PARKED. With --json it is
    {"instances": [...]} where no instance is named.

    \b
    Examples:
      preswapctl list
      preswapctl list -o +LOADS,HIT%
      preswapctl list --raw --noheadings --bytes -o NAME,USED
      preswapctl --instance vm1 --json list
    """
    style = Style(output, raw, exact, not noheadings)
    check_style(style, as_json=invocation.json)
    choose(DEVICE_COLUMNS, DEVICE_DEFAULT, output)  # a mistake is told before anybody is asked
    answers, errors = ask_all(invocation.instances.running(), Client.stats)
    if invocation.json:
        print_answers([device_list(stats) for stats in answers], named=invocation.instances.named)
    elif answers:
        rows = [row for stats in answers for row in devices_of(Moment.of(stats))]
        also = (PARKED.name,) if any(map(parked, rows)) else ()
        TextTable(choose(DEVICE_COLUMNS, (*DEVICE_DEFAULT, *also), output), style).print(rows)
    for stats in answers:
        for name, why in stats.get("refused", {}).items():
            click.echo(f"preswapctl: {stats['instance']}: {name} is not served: {why}", err=True)
        for name, device in stats["devices"].items():
            if (line := moving(name, device)) is not None:
                click.echo(f"preswapctl: {stats['instance']}: {line}", err=True)
        if not stats["devices"] and all_images(stats):
            name = stats["instance"]
            text = f"instance {name} has images: `preswapctl images` shows them"
            click.echo(f"preswapctl: {text}", err=True)
    invocation.instances.warn_of_stopped()
    complain(errors)


def moving(name: str, device: DeviceFigures) -> str | None:
    """Of one that has something to do with another host."""
    if device.get("guest") == "gone":
        return (
            f"another host has taken {name}: its pages wait here to be fetched; if that host will"
            f" never do it, `preswapctl swapoff {name}` drops them"
        )
    if source := device.get("source"):
        if not (pending := device.get("pending_pages", 0)):
            return f"{name} has all its pages, and {source} keeps them until it is told"
        return f"{format_pages(pending)} of {name} are still on {source}: `preswapctl pull {name}`"
    return None


def device_list(stats: Statistics) -> dict[str, object]:
    devices = [{"name": name, **figures} for name, figures in stats["devices"].items()]
    refused = [{"name": name, "why": why} for name, why in stats.get("refused", {}).items()]
    return {"instance": stats["instance"], "devices": devices, "refused": refused}
