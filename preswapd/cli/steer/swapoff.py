# SPDX-License-Identifier: BSD-3-Clause
"""`swapoff`: all pages of a device are dropped, after the guest's own swapoff."""

from dataclasses import asdict

import click

from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.asking import confirm, yes_option
from preswapd.cli.steer.in_use import at_stake, in_use
from preswapd.commandline import DEVICE
from preswapd.units import format_pages


@click.command("swapoff")
@click.argument("dev", type=DEVICE)
@yes_option
@pass_invocation
def swapoff_command(invocation: Invocation, dev: str, yes: bool) -> None:
    """Drop all pages of DEV, in tmem and on disk, after the guest's own swapoff.

    The swap header stays, so that the guest's next swapon finds the device.

    \b
    Example:
      preswapctl swapoff swap0 --yes
    """
    instance = invocation.instances.serving(dev)
    device = instance.client.device(dev)
    warning = in_use(device)
    if warning:
        click.echo(f"preswapctl: {dev}: {warning}", err=True)
    if not yes:
        lost = at_stake(device, instance.name)
        confirm(lost or f"{dev} of {instance.name} holds no pages", "Drop all its pages?")
    report = instance.client.swapoff(dev)
    if invocation.json:
        print_json(asdict(report))
    else:
        in_tmem, on_disk = format_pages(report.pages), format_pages(report.disk_pages)
        click.echo(f"dropped {in_tmem} from tmem, {on_disk} from disk")
