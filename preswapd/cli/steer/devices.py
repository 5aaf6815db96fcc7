# SPDX-License-Identifier: BSD-3-Clause
"""`create`, `remove` and `mkswap`: devices at run time."""

import click

from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.codecs import COMPRESS
from preswapd.commandline import DEVICE, SIZE
from preswapd.units import format_size


@click.command("create")
@click.argument("dev", type=DEVICE)
@click.argument("size", type=SIZE)
@click.option(
    "--compress",
    type=click.Choice(COMPRESS),
    help="How its pages are compressed. Default: as the instance's.",
)
@pass_invocation
def create_command(invocation: Invocation, dev: str, size: int, compress: str | None) -> None:
    """Make a new device DEV of SIZE, ready for the guest's swapon.

    It stays until it is removed, also over restarts.

    \b
    Example:
      preswapctl create swap1 8G --compress zstd
    """
    device = invocation.instances.only().client.create(dev, size, compress)
    if invocation.json:
        print_json(device)
    else:
        click.echo(f"created {dev}, {format_size(size)}")


@click.command("remove")
@click.argument("dev", type=DEVICE)
@click.option("--yes", is_flag=True, help="Do it even when a client is connected.")
@pass_invocation
def remove_command(invocation: Invocation, dev: str, yes: bool) -> None:
    """Remove the device DEV with everything in it, in tmem and on disk.

    \b
    Example:
      preswapctl remove swap1
    """
    invocation.instances.having(dev).client.remove(dev, force=yes)
    done(invocation, "removed", dev)


@click.command("mkswap")
@click.argument("dev", type=DEVICE)
@click.option("--yes", is_flag=True, help="Do it even when a client is connected.")
@pass_invocation
def mkswap_command(invocation: Invocation, dev: str, yes: bool) -> None:
    """Write a fresh swap header, with DEV as its label.

    \b
    Example:
      preswapctl mkswap swap0        then, in the guest: swapon LABEL=swap0
    """
    invocation.instances.having(dev).client.mkswap(dev, force=yes)
    done(invocation, "wrote a swap header to", dev)


def done(invocation: Invocation, what: str, dev: str) -> None:
    if invocation.json:
        print_json({"name": dev})
    else:
        click.echo(f"{what} {dev}")
