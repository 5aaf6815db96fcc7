# SPDX-License-Identifier: BSD-3-Clause
"""`create`, `remove` and `mkswap`: devices at run time."""

import click

from preswapd.api.figures import DeviceAnswer
from preswapd.cli.instances import RunningInstance
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.asking import confirm, force_option, yes_option
from preswapd.cli.steer.in_use import at_stake, check_not_awaited, check_not_taken
from preswapd.codecs import COMPRESS
from preswapd.commandline import DEVICE, SIZE
from preswapd.errors import RefusedError
from preswapd.units import format_size


@click.command("create")
@click.argument("dev", type=DEVICE)
@click.argument("size", type=SIZE)
@click.option(
    "--compress",
    type=click.Choice(COMPRESS),
    help="How its pages are compressed. Default: as the instance's.",
)
@click.option(
    "--from",
    "source",
    metavar="URI",
    help="Its pages are those of another host's device, whose guest comes here.",
)
@yes_option
@force_option
@pass_invocation
def create_command(
    invocation: Invocation,
    dev: str,
    size: int,
    compress: str | None,
    source: str | None,
    yes: bool,
    force: bool,
) -> None:
    """Make a new device DEV of SIZE, ready for the guest's swapon.

    It stays until it is removed, also over restarts.

    With --from its pages are those of another server's device, named by its NBD URI, for a guest
    that is migrated here: make it before the guest comes. Until the guest changes something here,
    reads go through to the other host and nothing is kept. Then the other host serves this device
    alone, and the pages come over (`preswapctl pull`). A DEV that is there already is made anew,
    with its settings: it asks when it holds pages.

    \b
    Examples:
      preswapctl create swap1 8G --compress zstd
      preswapctl create swap0 8G --from 'nbd+unix:///swap0?socket=/run/a.sock'
      preswapctl create swap0 8G --from 'nbds://hosta/swap0?tls-certificates=/etc/keys'
    """
    instance = invocation.instances.only()
    if source is not None and not force:
        force = agree_anew(instance, dev, yes)
    device = instance.client.create(dev, size, compress, source=source, force=force)
    if invocation.json:
        print_json(device)
    else:
        click.echo(f"created {dev}, {format_size(size)}")


@click.command("remove")
@click.argument("dev", type=DEVICE)
@yes_option
@force_option
@pass_invocation
def remove_command(invocation: Invocation, dev: str, yes: bool, force: bool) -> None:
    """Remove the device DEV with everything in it, in tmem and on disk.

    Asks when it holds pages or a client is connected. Refused while the client that was connected
    when the server ended has not come back, or another host has taken it (`create --from`).
    One that the configuration names is made again at the next start, empty: take it out there.

    \b
    Example:
      preswapctl remove swap1
    """
    instance = invocation.instances.serving(dev)
    agreed = agree(instance, dev, "Remove it with all in it?", yes, force)
    instance.client.remove(dev, force=agreed)
    done(invocation, "removed", dev)


@click.command("mkswap")
@click.argument("dev", type=DEVICE)
@yes_option
@force_option
@pass_invocation
def mkswap_command(invocation: Invocation, dev: str, yes: bool, force: bool) -> None:
    """Write a fresh swap header, with DEV as its label.

    A guest that swaps to DEV loses its pages: it asks, and is refused, when remove does.

    \b
    Example:
      preswapctl mkswap swap0        then, in the guest: swapon LABEL=swap0
    """
    instance = invocation.instances.serving(dev)
    agreed = agree(instance, dev, "Write a fresh swap header?", yes, force)
    instance.client.mkswap(dev, force=agreed)
    done(invocation, "wrote a swap header to", dev)


def agree_anew(instance: RunningInstance, dev: str, yes: bool) -> bool:
    """What is there already goes, if somebody agrees."""
    device = instance.client.stats()["devices"].get(dev)
    lost = (
        at_stake({**device, "name": dev, "seconds_since_io": None}, instance.name)
        if device
        else None
    )
    if lost is None:
        return False
    if not yes:
        confirm(lost, "Make it anew, without these?")
    return True


def agree(instance: RunningInstance, dev: str, question: str, yes: bool, force: bool) -> bool:
    """Whether somebody has agreed to what is lost; False where nothing is, as far as is known.

    RefusedError: nobody has.  The server itself refuses when a client has come since.
    """
    device = instance.client.device(dev)
    if not force:
        check_not_awaited(device)
        check_not_taken(device)
    lost = at_stake(device, instance.name)
    if lost is not None and not (yes or force):
        confirm(lost, question)
        check_still_agreed(instance.client.device(dev), device["connections"])
    return yes or force or lost is not None


def check_still_agreed(device: DeviceAnswer, connections: int) -> None:
    """A question may stand on a terminal for hours: RefusedError where another guest would lose
    than the one that it told of."""
    check_not_awaited(device)
    if device["connections"] > connections:
        raise RefusedError(
            f"{device['name']}: a client has connected since the question; nothing was changed"
        )


def done(invocation: Invocation, what: str, dev: str) -> None:
    if invocation.json:
        print_json({"name": dev})
    else:
        click.echo(f"{what} {dev}")
